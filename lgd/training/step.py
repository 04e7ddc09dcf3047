"""The state of a training, and one sharded, jitted step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from lgd.machinery import parallel
from lgd.training.settings import Optimizer
from lgd.types import Params, PRNGKey, PyTree

Loss = Callable[[Params, PyTree, PyTree, PRNGKey], tuple[Float[Array, ""], dict[str, Array]]]


StepFn = Callable[["TrainState", PyTree, PyTree, PRNGKey], tuple["TrainState", dict[str, Array]]]


class TrainState(NamedTuple):
    """Everything that training changes; the key and the data are functions of ``step``.

    skipped: steps so far that were not finite, and changed nothing but this count and ``step``.
    skipped_in_a_row: the last steps, if they were such.
    """

    step: Int[Array, ""]
    params: Params
    ema: Params
    opt_state: optax.OptState
    skipped: Int[Array, ""]
    skipped_in_a_row: Int[Array, ""]


def init_state(params: Params, optimizer: Optimizer) -> TrainState:
    """State before the first step; the EMA starts at the parameters."""
    params = jax.tree.map(jnp.array, params)
    ema = jax.tree.map(jnp.copy, params)
    step, skipped, in_a_row = jnp.zeros((3,), jnp.int32)
    opt_state = optimizer.transformation().init(params)
    return TrainState(step, params, ema, opt_state, skipped, in_a_row)


def make_step(
    loss: Loss,
    optimizer: Optimizer,
    state: TrainState,
    frozen: PyTree,
    batch: PyTree,
    *,
    mesh: Mesh,
    batch_axis: int | None = 0,
    project: Callable[[Params], Params] = lambda params: params,
) -> StepFn:
    """One training step: jitted, state donated, every argument and result explicitly sharded.

    Args:
      loss: ``loss(params, frozen, batch, key) -> (scalar, info)``.
      optimizer: settings.
      state: stands for the states to come: arrays or ShapeDtypeStructs.
      frozen: the same for what the loss reads and training does not change.
      batch: the same for the batches.
      mesh: devices; state and frozen parameters lie on them as `parallel.param_sharding` says.
      batch_axis: along which a batch is split, see `parallel.batch_sharding`.
      project: applied to the parameters after every update.

    Returns:
      A function ``(state, frozen, batch, key) -> (new_state, info)``, where info has the loss, its
      parts, the norm of the gradient and the counts of skipped steps: one with NaN or inf in its
      loss, gradient or result is skipped.
    """
    transformation = optimizer.transformation()

    def step(
        state: TrainState, frozen: PyTree, batch: PyTree, key: PRNGKey
    ) -> tuple[TrainState, dict[str, Array]]:
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        step_key = jax.random.fold_in(key, state.step)
        (value, info), grads = value_and_grad(state.params, frozen, batch, step_key)
        updates, opt_state = transformation.update(grads, state.opt_state, state.params)
        params = project(optax.apply_updates(state.params, updates))
        done = state.step.astype(jnp.float32)
        decay = jnp.minimum(optimizer.ema_decay, (1.0 + done) / (10.0 + done))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        grad_norm = optax.tree.norm(grads)
        finite = _all_finite((value, grad_norm, params, opt_state))
        updated, unchanged = (params, ema, opt_state), (state.params, state.ema, state.opt_state)
        # Not `where` by leaf: for a hundred leaves XLA compiles that for minutes on a CPU.
        params, ema, opt_state = jax.lax.cond(finite, lambda: updated, lambda: unchanged)
        skipped = state.skipped + jnp.where(finite, 0, 1)
        in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        counts = {"skipped": skipped, "skipped_in_a_row": in_a_row}
        new = TrainState(state.step + 1, params, ema, opt_state, skipped, in_a_row)
        return new, {"loss": value, "grad_norm": grad_norm, **info, **counts}

    everywhere = parallel.replicated(mesh)
    state_sharding, frozen_sharding = parallel.param_sharding((state, frozen), mesh)
    by_example = parallel.batch_sharding(batch, mesh, batch_axis)
    return jax.jit(
        step,
        in_shardings=(state_sharding, frozen_sharding, by_example, everywhere),
        out_shardings=(state_sharding, everywhere),
        donate_argnums=0,
    )


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
