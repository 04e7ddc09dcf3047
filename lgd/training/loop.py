"""The loop of a training: steps, reports, checkpoints, resuming."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from lgd.data import pipeline
from lgd.machinery import parallel, stopping
from lgd.machinery.failures import NonFiniteError, OtherTrainingError, memory_advice
from lgd.training.settings import Optimizer, Store, Trainer
from lgd.training.step import Loss, TrainState, init_state, make_step
from lgd.types import Params, PRNGKey, PyTree

Batches = Callable[[int], PyTree]


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
    optimizer = trainer.optimizer
    if optimizer is None:
        raise ValueError("trainer: expected an optimizer, got None")
    mesh = parallel.make_mesh() if trainer.mesh is None else trainer.mesh
    state = _placed_state(params, optimizer, mesh)
    frozen = parallel.place(frozen, parallel.param_sharding(frozen, mesh))
    key = parallel.place(key, parallel.replicated(mesh))
    identity = pipeline.identity_of(batches) if trainer.store is not None else {}
    metadata = {"fingerprint": fingerprint, "batches": identity}
    state = _restored(state, trainer.store, metadata)
    example = batches(int(state.step))
    parallel.check_divisible(example, mesh, batch_axis)
    step_fn = make_step(
        loss, optimizer, state, frozen, example, mesh=mesh, batch_axis=batch_axis, project=project
    )

    def advance(step: int, state: TrainState) -> tuple[TrainState, dict[str, Array]]:
        batch = parallel.place_batch(batches(step), mesh, batch_axis)
        return step_fn(state, frozen, batch, key)

    return _walk(state, advance, trainer, optimizer, batches, metadata)


def _walk(
    state: TrainState,
    advance: Callable[[int, TrainState], tuple[TrainState, dict[str, Array]]],
    trainer: Trainer,
    optimizer: Optimizer,
    batches: Batches,
    metadata: Mapping[str, Any],
) -> TrainState:
    """All steps that are left, with reports and checkpoints between them."""
    store, num_steps, before = trainer.store, optimizer.num_steps, None
    with stopping.deferring(), stopping.keeping() as unsaved:
        for step in range(int(state.step), num_steps):
            state, info = advance(step, state)
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


def _restored(state: TrainState, store: Store | None, metadata: Mapping[str, Any]) -> TrainState:
    """The state that a store holds, if any, of the same training."""
    restored = store.restore(state) if store is not None else None
    if restored is None:
        return state
    _check_fingerprint(restored.metadata.get("fingerprint", ""), metadata["fingerprint"])
    pipeline.check_identity(restored.metadata.get("batches", {}), metadata["batches"])
    return restored.state


def _check_fingerprint(saved: str, expected: str) -> None:
    if saved and expected and saved != expected:
        raise OtherTrainingError(
            "store: expected checkpoints of a training with the same data, key, denoiser and "
            "settings (of objective, model, start, optimizer, batch), got those of another; "
            "use another folder"
        )


def _placed_state(params: Params, optimizer: Optimizer, mesh: Mesh) -> TrainState:
    """`init_state` made where it lies, so that no device ever holds all of a large state."""
    params = parallel.place(params, parallel.param_sharding(params, mesh))
    init = functools.partial(init_state, optimizer=optimizer)
    sharding = parallel.param_sharding(jax.eval_shape(init, params), mesh)
    return jax.jit(init, out_shardings=sharding)(params)


def _due(done: int, every: int, last: int) -> bool:
    return done == last or (every > 0 and done % every == 0)


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
