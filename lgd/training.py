"""State, one sharded jitted step, and the loop. Serves denoisers, classifiers and omega alike.

A loss is ``loss(params, frozen, batch, key) -> (scalar, info)``; ``batches(step)`` returns the
batch of a step, so that the step number is all there is to resume. Randomness of step i comes from
``fold_in(key, i)``.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from lgd.data import pipeline
from lgd.machinery import parallel, stopping
from lgd.machinery.failures import NonFiniteError, memory_advice
from lgd.types import Params, PRNGKey, PyTree

Loss = Callable[[Params, PyTree, PyTree, PRNGKey], tuple[Float[Array, ""], dict[str, Array]]]
Batches = Callable[[int], PyTree]
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Adam with clipping of the gradient's norm, warm-up, and a cosine decay to 0.

    ema_decay: of the parameters, bias-corrected by a warm-up ``min(decay, (1+i)/(10+i))``.
    clip: global norm of the gradient above which it is scaled down; 0: no clipping.
    max_skipped: so many steps in a row that are not finite end the training; fewer are skipped.
    """

    num_steps: int
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    decay: bool = True
    clip: float = 1.0
    ema_decay: float = 0.999
    max_skipped: int = 10

    def __post_init__(self) -> None:
        if self.num_steps < 1 or not 0 <= self.warmup_steps < self.num_steps:
            raise ValueError(f"expected 0 <= warmup_steps < num_steps, got {self}")
        if not self.learning_rate > 0.0 or self.clip < 0.0 or not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(
                f"expected learning_rate > 0, clip >= 0, ema_decay in [0, 1), got {self}"
            )
        if self.max_skipped < 1:
            raise ValueError(f"expected max_skipped >= 1, got {self}")

    def transformation(self) -> optax.GradientTransformation:
        """The optax transformation."""
        steps = self.num_steps - self.warmup_steps
        main = (
            optax.cosine_decay_schedule(self.learning_rate, steps)
            if self.decay
            else optax.constant_schedule(self.learning_rate)
        )
        warmup = optax.linear_schedule(0.0, self.learning_rate, max(self.warmup_steps, 1))
        rate = optax.join_schedules([warmup, main], [self.warmup_steps])
        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        return optax.chain(clip, optax.adam(rate))


@runtime_checkable
class Store(Protocol):
    """Where `fit` saves; `lgd.machinery.checkpoint.CheckpointStore` is one."""

    def save(self, step: int, state: PyTree, metadata: dict[str, Any] | None = None) -> None: ...
    def restore(self, like: PyTree) -> Any: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """How a training runs: settings that `learn_guidance` and `fit` share.

    Args:
      optimizer: None: what suits the model that is learned.
      batch_size: examples of a step. Objectives on groups take as many rounds of one group for
        every stratum as fit, and at least one.
      mesh: devices, see `parallel.make_mesh`; None: one device for `learn_guidance`, all devices
        along "data" for `fit`.
      store: checkpoints, every ``save_every`` steps, at the end, and before `Stopped`.
      save_every: steps between checkpoints; 0: at the end only.
      log_every: steps between calls of ``on_log``; 0: at the end only.
      on_log: called with (step, info). Info has what is finite of the loss, its parts and the
        gradient's norm; and "skipped", once there are any.
      on_step: called with (step, EMA of the parameters) after every step; the next step donates
        these arrays, so copy what you keep.
      progress: show a bar.
    """

    optimizer: Optimizer | None = None
    batch_size: int = 256
    mesh: Mesh | None = None
    store: "Store | None" = None
    save_every: int = 0
    log_every: int = 10
    on_log: Callable[[int, dict[str, float]], None] | None = None
    on_step: Callable[[int, Params], None] | None = None
    progress: bool = True


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

    ``state``, ``frozen`` and ``batch`` stand for what the step will be given: arrays or
    ShapeDtypeStructs. State and frozen parameters lie as `parallel.param_sharding` says, the batch
    is split along ``batch_axis``, see `parallel.batch_sharding`. Returns ``(new_state, info)``,
    where info has the loss, its parts, the gradient's norm and the counts of skipped steps: one
    with NaN or inf in its loss, gradient or result is skipped.
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
        decay = jnp.minimum(optimizer.ema_decay, (1.0 + state.step) / (10.0 + state.step))
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


@memory_advice()
def fit(
    key: PRNGKey,
    loss: Loss,
    params: Params,
    *,
    batches: Batches,
    trainer: Trainer,
    frozen: PyTree = (),
    project: Callable[[Params], Params] = lambda params: params,
    batch_axis: int | None = 0,
    fingerprint: str = "",
) -> TrainState:
    """Train for ``trainer.optimizer.num_steps`` steps, resuming from the store if it holds any.

    Args:
      key: source of all randomness; the key of step i is ``fold_in(key, i)``.
      loss: ``loss(params, frozen, batch, key) -> (scalar, info)``.
      params: initial parameters.
      batches: step -> batch, arrays whose batch_axis the number of devices divides. Several
        processes return their own part each, see `parallel.local_rows`.
      trainer: settings, with an optimizer; ``batch_size`` and ``progress`` are not used here.
      frozen: what the loss reads and training does not change (parameters of a denoiser).
      project: applied to the parameters after every update.
      batch_axis: along which a batch is split, see `parallel.batch_sharding`.
      fingerprint: of data and settings; a store filled with another one is refused.

    Raises:
      NonFiniteError: after ``optimizer.max_skipped`` steps in a row with NaN or inf; such steps
        change no parameter. Names them, and their examples if ``batches`` is `Indexed`.
      Stopped: when a signal asked for it, see `lgd.machinery.stopping`; has the state of the last
        step, which the store has too. Ctrl-C comes in this way wherever nothing else handles it.
      DeviceMemoryError: when a device has too little memory.
      CheckpointError: when the store cannot be used.
      ValueError: for a trainer without an optimizer; a store with another fingerprint, or with
        batches of another `Identified`, which are named.
    """
    optimizer, store = trainer.optimizer, trainer.store
    if optimizer is None:
        raise ValueError("trainer: expected an optimizer, got None")
    mesh = parallel.make_mesh() if trainer.mesh is None else trainer.mesh
    state = _placed_state(params, optimizer, mesh)
    frozen = parallel.place(frozen, parallel.param_sharding(frozen, mesh))
    key = parallel.place(key, parallel.replicated(mesh))
    identity = pipeline.identity_of(batches) if store is not None else {}
    metadata = {"fingerprint": fingerprint, "batches": identity}
    restored = store.restore(state) if store is not None else None
    if restored is not None:
        _check_fingerprint(restored.metadata.get("fingerprint", ""), fingerprint)
        state = restored.state
        pipeline.check_identity(restored.metadata.get("batches", {}), identity)
    example = batches(int(state.step))
    parallel.check_divisible(example, mesh, batch_axis)
    step_fn = make_step(
        loss, optimizer, state, frozen, example, mesh=mesh, batch_axis=batch_axis, project=project
    )
    num_steps, before = optimizer.num_steps, None
    with stopping.deferring(), stopping.keeping() as unsaved:
        for step in range(int(state.step), num_steps):
            batch = parallel.place_batch(batches(step), mesh, batch_axis)
            state, info = step_fn(state, frozen, batch, key)
            done, logging = step + 1, _due(step + 1, trainer.log_every, num_steps)
            unsaved(store is not None)
            _refuse_many_skipped(step, before, optimizer, batches)  # while this step computes
            if logging:
                _refuse_many_skipped(done, info, optimizer, batches)
            if logging and trainer.on_log is not None:
                trainer.on_log(done, _loggable(info))
            if trainer.on_step is not None:
                trainer.on_step(done, state.ema)
            stop = stopping.requested(f"step {done}")
            if store is not None and (stop or _due(done, trainer.save_every, num_steps)):
                _refuse_many_skipped(done, info, optimizer, batches)
                store.save(done, state, {name: value for name, value in metadata.items() if value})
                unsaved(False)
            if stop:
                raise stopping.Stopped(f"stopped after step {done} of {num_steps}", state)
            before = info
    return state


def _check_fingerprint(found: str, expected: str) -> None:
    if found and expected and found != expected:
        raise ValueError(
            "store: expected checkpoints of a training with the same data, key, batch size, "
            "optimizer and kind of objective, got those of another; use another folder"
        )


def _placed_state(params: Params, optimizer: Optimizer, mesh: Mesh) -> TrainState:
    """`init_state` made where it lies, so that no device ever holds all of a large state."""
    params = parallel.place(params, parallel.param_sharding(params, mesh))
    init = functools.partial(init_state, optimizer=optimizer)
    sharding = parallel.param_sharding(jax.eval_shape(init, params), mesh)
    return jax.jit(init, out_shardings=sharding)(params)


def _due(done: int, every: int, last: int) -> bool:
    return done == last or (every > 0 and done % every == 0)


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _loggable(info: dict[str, Array]) -> dict[str, float]:
    values = {name: float(value) for name, value in info.items() if name != "skipped_in_a_row"}
    if not values["skipped"]:
        del values["skipped"]
    return {name: value for name, value in values.items() if np.isfinite(value)}


def _refuse_many_skipped(
    done: int, info: dict[str, Array] | None, optimizer: Optimizer, batches: Batches
) -> None:
    if info is None or int(info["skipped_in_a_row"]) < optimizer.max_skipped:
        return
    steps = list(range(done - optimizer.max_skipped + 1, done + 1))
    examples = None
    if isinstance(batches, pipeline.Indexed):
        examples = [batches.index(step - 1).tolist() for step in steps]
    raise NonFiniteError(
        f"steps {steps[0]} to {steps[-1]}: expected finite losses and gradients, got NaN or inf in "
        f"each; parameters are those of step {steps[0] - 1}",
        steps,
        examples,
    )
