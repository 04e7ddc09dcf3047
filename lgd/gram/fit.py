"""Learn omega from statistics: any one-step objective, and many settings as one program.

A `Lane` is one setting. All lanes of a sweep train in one compiled loop: lanes of one seed see the
same examples, times and noise at every step, so that only the settings differ between them.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from lgd.gram.lanes import (
    Lane,
    LaneSettings,
    Program,
    State,
    check_lanes,
    initial_state,
    make_program,
    narrowed,
)
from lgd.gram.layout import Statistics, StatisticsError
from lgd.gram.learned import learned_guidance
from lgd.gram.loss import Examples, example_conditions, examples, prepared
from lgd.gram.score import score
from lgd.gram.steps import lane_loss, redrawn_batches
from lgd.machinery import stopping
from lgd.machinery.failures import NonFiniteError
from lgd.machinery.progress import bar
from lgd.objectives import OneStep
from lgd.omega import Guidance, LearnedModel
from lgd.training import Optimizer, Trainer
from lgd.types import Params, PRNGKey, Schedule

_OPTIMIZER = Optimizer(num_steps=1000, learning_rate=3e-3, ema_decay=0.98)
_LOG_EVERY = 50


class Fitted(NamedTuple):
    """The guidance that one lane learned, with its losses."""

    lane: Lane
    guidance: Guidance
    losses: Float[np.ndarray, " k"]  # of training: means over the steps between reports
    held_out: float | None  # the loss of the objective on held-out statistics, if there are any


def fit(
    statistics: Statistics,
    objective: OneStep,
    model: LearnedModel,
    *,
    schedule: Schedule,
    trainer: Trainer | None = None,
    seed: int = 0,
    params: Params | None = None,
    held_out: Statistics | None = None,
) -> Fitted:
    """Learn omega with one objective.

    Args:
      statistics: what `collect` gathered, of members that the objective compares.
      objective: what is minimised.
      model: what is learned.
      schedule: the forward process of the denoiser.
      trainer: see `sweep`; ``on_step`` gets the parameters of the model.
      seed: of the parameters, the batches and the noise.
      params: where training starts; by default ``model.init``.
      held_out: statistics of other data, to judge what was learned.

    Raises:
      StatisticsError: for statistics that do not fit the objective, the model or the schedule, or
        a trainer with a store.
      NonFiniteError: when a loss is not finite.
      Stopped: when a signal asked for it.
    """
    trainer, optimizer = _settings(trainer)
    on_step = trainer.on_step
    lane = Lane(objective=objective, model=model, learning_rate=optimizer.learning_rate, seed=seed)

    def first_lane(step: int, ema: Params) -> None:
        if on_step is not None:
            on_step(step, jax.tree.map(lambda leaf: leaf[0], ema))

    return sweep(
        statistics,
        [lane],
        schedule=schedule,
        trainer=dataclasses.replace(trainer, on_step=first_lane),
        params=params,
        held_out=held_out,
    )[0]


def sweep(
    statistics: Statistics,
    lanes: Sequence[Lane],
    *,
    schedule: Schedule,
    trainer: Trainer | None = None,
    params: Params | None = None,
    held_out: Statistics | None = None,
) -> list[Fitted]:
    """Learn omega in many settings at once, as one vmapped program.

    Lanes may differ in beta, lam and churn of their objective, in the width of their network, in
    learning rate and seed. A narrow network is trained as a wide one whose other units are 0 and
    stay 0, and comes back narrow.

    Args:
      statistics: what `collect` gathered, of members that the objective compares.
      lanes: the settings, at least one.
      schedule: the forward process of the denoiser.
      trainer: by default 1,000 steps at learning rate 3e-3, with a report after every 50. The
        compiled loop runs ``log_every`` steps (0: all) and then reports: ``on_log`` gets the mean
        loss of these steps and all lanes, ``on_step`` the EMA of the parameters, stacked over lanes
        and as wide as the widest. The learning rate of the optimizer is replaced by that of each
        lane. A fit runs on one device, so ``mesh`` is not used.
      params: where training starts, for every lane; by default ``model.init`` by its seed.
      held_out: statistics of other data, to compare what was learned.

    Raises:
      StatisticsError: for lanes that cannot share a program, statistics that do not fit, or a
        trainer with a store.
      NonFiniteError: when a loss is not finite.
      Stopped: when a signal asked for it.
    """
    trainer, optimizer = _settings(trainer)
    first = check_lanes(lanes, statistics.layout)
    statistics, weights = prepared(statistics, first.objective, schedule)
    seeds = tuple(dict.fromkeys(lane.seed for lane in lanes))
    program, settings = make_program(lanes, seeds, statistics.layout, schedule, optimizer)
    index_of = _drawing(weights, trainer.batch_size)
    data, c = examples(statistics), example_conditions(statistics)
    keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), 1) for seed in seeds])
    state, losses, num_steps = initial_state(lanes, program, params, c), [], optimizer.num_steps
    every = trainer.log_every if trainer.log_every > 0 else num_steps
    label = f"fit omega: {type(first.objective).__name__}"
    with bar(label, num_steps, show=trainer.progress) as advance:
        for start in range(0, num_steps, every):
            steps = np.arange(start, min(start + every, num_steps), dtype=np.int32)
            index = np.stack([[index_of(seed, int(i)) for seed in seeds] for i in steps])
            state, values = _run(state, settings, data, keys, steps, index, program=program)
            losses.append(_finite(np.asarray(values), lanes, steps))
            _report(trainer, int(steps[-1]) + 1, losses[-1], state.ema)
            stopping.check(f"step {steps[-1] + 1}")
            for _ in steps:
                advance(f"loss {losses[-1].mean():.5g}")
    curves = np.stack(losses, axis=1)
    learned = [
        learned_guidance(
            lane.model,
            narrowed(state.ema, i, lane, c),
            statistics,
            lane.objective,
            schedule=schedule,
            start="init" if params is None else "given parameters",
            history={"loss": curves[i].tolist()},
        )
        for i, lane in enumerate(lanes)
    ]
    scores = _held_out(held_out, lanes, learned, schedule)
    return [Fitted(*parts) for parts in zip(lanes, learned, curves, scores, strict=True)]


def _settings(trainer: Trainer | None) -> tuple[Trainer, Optimizer]:
    """The trainer with an optimizer, and the optimizer. Raises StatisticsError for a store."""
    if trainer is None:
        trainer = Trainer(log_every=_LOG_EVERY)
    if trainer.store is not None:
        raise StatisticsError("trainer: expected no store (a fit is not resumed), got one")
    optimizer = _OPTIMIZER if trainer.optimizer is None else trainer.optimizer
    return dataclasses.replace(trainer, optimizer=optimizer), optimizer


def _report(trainer: Trainer, step: int, losses: Float[np.ndarray, " l"], ema: Params) -> None:
    """Tell the trainer the mean loss of some steps and the EMA after them."""
    if trainer.on_log is not None:
        trainer.on_log(step, {"loss": float(losses.mean())})
    if trainer.on_step is not None:
        trainer.on_step(step, ema)


@functools.partial(jax.jit, static_argnames="program", donate_argnames="state")
def _run(
    state: State,
    settings: LaneSettings,
    data: Examples,
    keys: PRNGKey,
    steps: Int[Array, " k"],
    index: Int[Array, "k seeds b"],
    *,
    program: Program,
) -> tuple[State, Float[Array, "k l"]]:
    """The state after some steps of all lanes, and the losses of the steps."""
    transformation = program.optimizer.transformation()

    def one_step(state: State, inputs: tuple[Array, Array]) -> tuple[State, Array]:
        step, rows = inputs
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
        batch, s, forms = redrawn_batches(program, data, step_keys, rows)
        done = step.astype(jnp.float32)
        decay = jnp.minimum(program.optimizer.ema_decay, (1.0 + done) / (10.0 + done))

        def one_lane(state: State, lane: LaneSettings) -> tuple[State, Array]:
            lane_batch, lane_s = jax.tree.map(lambda leaf: leaf[lane.seed], (batch, s))
            form = jax.tree.map(lambda leaf: leaf[lane.form], forms)
            loss = functools.partial(lane_loss, program, lane_batch, lane_s, form, lane.energy)
            value, grads = jax.value_and_grad(loss)(state.params)
            updates, opt_state = transformation.update(grads, state.opt_state, state.params)
            updates = jax.tree.map(lambda update: lane.learning_rate * update, updates)
            params = program.model.project(optax.apply_updates(state.params, updates))
            ema = optax.incremental_update(params, state.ema, 1.0 - decay)
            return State(params, ema, opt_state), value

        return jax.vmap(one_lane)(state, settings)

    return jax.lax.scan(one_step, state, (steps, index))


def _drawing(
    weights: Float[np.ndarray, " n"], batch_size: int
) -> Callable[[int, int], Int[np.ndarray, " b"]]:
    """A function (seed, step) -> examples, each drawn with a probability by its weight."""
    ends = np.cumsum(weights)

    def draw(seed: int, step: int) -> Int[np.ndarray, " b"]:
        u = np.random.default_rng((seed, step)).random(batch_size)
        index = np.searchsorted(ends, u * ends[-1], side="right")
        return np.minimum(index, len(ends) - 1).astype(np.int32)

    return draw


def _held_out(
    held_out: Statistics | None,
    lanes: Sequence[Lane],
    learned: Sequence[Guidance],
    schedule: Schedule,
) -> list[float | None]:
    """The held-out loss of every lane; lanes of one objective are scored together."""
    scores: list[float | None] = [None] * len(lanes)
    if held_out is None:
        return scores
    for objective in dict.fromkeys(lane.objective for lane in lanes):
        members = [i for i, lane in enumerate(lanes) if lane.objective == objective]
        named = {str(i): learned[i].omega_fn for i in members}
        losses = score(held_out, named, objective=objective, schedule=schedule)
        for i in members:
            scores[i] = losses.mean(str(i))
    return scores


def _finite(values: Float[np.ndarray, "k l"], lanes: Sequence[Lane], steps: np.ndarray) -> Any:
    """Mean losses over the steps. Raises NonFiniteError for the first lane that is not finite."""
    bad = ~np.isfinite(values)
    if bad.any():
        step, lane = np.argwhere(bad)[0]
        raise NonFiniteError(
            f"step {steps[step] + 1}: expected a finite loss, got {values[step, lane]} "
            f"of {lanes[lane]}"
        )
    return values.mean(axis=0)
