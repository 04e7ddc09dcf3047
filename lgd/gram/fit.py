"""Learn omega from statistics: any one-step objective, and many settings as one program.

A `Lane` is one setting. All lanes of a sweep train in one compiled loop: lanes of one seed see the
same examples, times and noise at every step, so that what differs between them is the setting.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from lgd import omega
from lgd.gram.lanes import (
    Lane,
    Numbers,
    Program,
    State,
    check_lanes,
    initial_state,
    make_program,
    own_guidance,
)
from lgd.gram.layout import Statistics
from lgd.gram.loss import (
    Energy,
    Examples,
    OneStep,
    examples,
    forms_of,
    loss_of,
    particles_of,
    prepared,
    redrawn_rows,
    weights_of,
)
from lgd.gram.score import score
from lgd.machinery import stopping
from lgd.machinery.failures import NonFiniteError
from lgd.machinery.progress import bar
from lgd.objectives.forms import DistanceForms
from lgd.omega import Guidance
from lgd.training import Optimizer
from lgd.types import OmegaModel, Params, PRNGKey, Schedule

OnSteps = Callable[[int, Params, Float[np.ndarray, " l"]], None]


class Fitted(NamedTuple):
    """What came of one lane. ``held_out``: its objective's loss on held-out statistics, or None."""

    lane: Lane
    guidance: Guidance
    losses: Float[np.ndarray, " k"]  # of training: means over ``steps_at_once`` steps each
    held_out: float | None


def fit(
    statistics: Statistics,
    objective: OneStep,
    model: OmegaModel,
    *,
    schedule: Schedule,
    optimizer: Optimizer | None = None,
    batch_size: int = 256,
    seed: int = 0,
    params: Params | None = None,
    held_out: Statistics | None = None,
    steps_at_once: int = 50,
    on_steps: Callable[[int, Params, float], None] | None = None,
    progress: bool = True,
) -> Fitted:
    """Learn omega with one objective; arguments as in `sweep`.

    By default 1,000 steps at learning rate 3e-3. ``on_steps`` is called with (step, EMA of the
    parameters, mean loss) every ``steps_at_once`` steps and at the end.
    """
    if optimizer is None:
        optimizer = Optimizer(num_steps=1000, learning_rate=3e-3, ema_decay=0.98)
    lane = Lane(objective=objective, model=model, learning_rate=optimizer.learning_rate, seed=seed)

    def first_lane(step: int, ema: Params, losses: Float[np.ndarray, " l"]) -> None:
        if on_steps is not None:
            on_steps(step, jax.tree.map(lambda leaf: leaf[0], ema), float(losses[0]))

    return sweep(
        statistics,
        [lane],
        schedule=schedule,
        optimizer=optimizer,
        batch_size=batch_size,
        params=params,
        held_out=held_out,
        steps_at_once=steps_at_once,
        on_steps=first_lane,
        progress=progress,
    )[0]


def sweep(
    statistics: Statistics,
    lanes: Sequence[Lane],
    *,
    schedule: Schedule,
    optimizer: Optimizer,
    batch_size: int = 256,
    params: Params | None = None,
    held_out: Statistics | None = None,
    steps_at_once: int = 50,
    on_steps: OnSteps | None = None,
    progress: bool = True,
) -> list[Fitted]:
    """Learn omega in many settings at once, as one vmapped program.

    Lanes may differ in beta, lam and churn of their objective, in the width of their network, in
    learning rate and seed. A narrow network is trained as a wide one whose other units are 0 and
    stay 0, and comes back narrow.

    Args:
      statistics: what `collect` gathered, of members that the objective compares.
      lanes: at least one.
      schedule: the denoiser's.
      optimizer: its learning rate is replaced by each lane's.
      batch_size: examples of a step.
      params: where training starts, for every lane; by default ``model.init`` by the lane's seed.
      held_out: statistics of other data, to compare what was fitted.
      steps_at_once: steps of the compiled loop, between two updates of the bar.
      on_steps: called with (step, EMA of the parameters, mean losses (lanes,)) every so many steps
        and at the end; the parameters of all lanes are stacked, and as wide as the widest.
      progress: show a bar.

    Raises:
      StatisticsError: for lanes that cannot share a program, or statistics that do not fit.
      NonFiniteError: when a loss is not finite.
    """
    first = check_lanes(lanes)
    statistics, weights = prepared(statistics, first.objective, schedule)
    seeds = tuple(dict.fromkeys(lane.seed for lane in lanes))
    program, numbers = make_program(lanes, seeds, statistics.layout, schedule, optimizer)
    index_of = _drawing(weights, batch_size)
    data = examples(statistics)
    keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), 1) for seed in seeds])
    state, losses, num_steps = initial_state(lanes, program, params), [], optimizer.num_steps
    label = f"fit omega: {type(first.objective).__name__}"
    with bar(label, num_steps, show=progress) as advance:
        for start in range(0, num_steps, steps_at_once):
            steps = np.arange(start, min(start + steps_at_once, num_steps), dtype=np.int32)
            index = np.stack([[index_of(seed, int(i)) for seed in seeds] for i in steps])
            state, values = _run(state, numbers, data, keys, steps, index, program=program)
            losses.append(_finite(np.asarray(values), lanes, steps))
            if on_steps is not None:
                on_steps(int(steps[-1]) + 1, state.ema, losses[-1])
            stopping.check(f"step {steps[-1] + 1}")
            for _ in steps:
                advance(f"loss {losses[-1].mean():.5g}")
    found = [own_guidance(state.ema, i, lane) for i, lane in enumerate(lanes)]
    curves, scores = np.stack(losses, axis=1), _held_out(held_out, lanes, found, schedule)
    return [Fitted(*each) for each in zip(lanes, found, curves, scores, strict=True)]


@functools.partial(jax.jit, static_argnames="program", donate_argnames="state")
def _run(
    state: State,
    numbers: Numbers,
    data: Examples,
    keys: PRNGKey,
    steps: Int[Array, " k"],
    index: Int[Array, "k seeds b"],
    *,
    program: Program,
) -> tuple[State, Float[Array, "k l"]]:
    """Some steps of all lanes; the losses."""
    transformation = program.optimizer.transformation()

    def one_step(state: State, inputs: tuple[Array, Array]) -> tuple[State, Array]:
        step, chosen = inputs
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
        batch, s, forms = _redrawn(program, data, step_keys, chosen)
        decay = jnp.minimum(program.optimizer.ema_decay, (1.0 + step) / (10.0 + step))

        def one_lane(state: State, numbers: Numbers) -> tuple[State, Array]:
            own = jax.tree.map(lambda leaf: leaf[numbers.seed], (batch, s))
            form = jax.tree.map(lambda leaf: leaf[numbers.form], forms)
            loss = functools.partial(_loss, program, own[0], own[1], form, numbers.energy)
            value, grads = jax.value_and_grad(loss)(state.params)
            updates, opt_state = transformation.update(grads, state.opt_state, state.params)
            updates = jax.tree.map(lambda update: numbers.learning_rate * update, updates)
            params = program.model.project(optax.apply_updates(state.params, updates))
            ema = optax.incremental_update(params, state.ema, 1.0 - decay)
            return State(params, ema, opt_state), value

        return jax.vmap(one_lane)(state, numbers)

    return jax.lax.scan(one_step, state, (steps, index))


def _redrawn(
    program: Program, data: Examples, keys: PRNGKey, index: Int[Array, "seeds b"]
) -> tuple[Examples, Float[Array, "seeds b"], DistanceForms]:
    """The batch and s of every seed, with fresh noise; distances for every seed and churn."""
    m = particles_of(program.objective)

    def of_seed(key: PRNGKey, chosen: Int[Array, " b"]) -> tuple:
        s_key, rows_key = jax.random.split(key)
        batch = data.at(chosen)
        s = program.objective.time_law.sample_s(s_key, batch.t)
        return batch, s, redrawn_rows(rows_key, batch, program.layout, num_particles=m)

    def of_form(seed: Int[Array, ""], churn: Float[Array, ""]) -> DistanceForms:
        t, own_s, own_rows = jax.tree.map(lambda leaf: leaf[seed], (batch.t, s, rows))
        return forms_of(
            program.objective, own_rows, s=own_s, t=t, schedule=program.schedule, churn=churn
        )

    batch, s, rows = jax.vmap(of_seed)(keys, index)
    seeds, churns = jnp.asarray(program.form_seeds), jnp.asarray(program.form_churns, jnp.float32)
    return batch, s, jax.vmap(of_form)(seeds, churns)


def _loss(
    program: Program,
    batch: Examples,
    s: Float[Array, " b"],
    forms: DistanceForms,
    energy: Energy,
    params: Params,
) -> Float[Array, ""]:
    """Mean loss of one lane on its batch."""
    weights = weights_of(
        omega.bind(program.model, params),
        batch,
        program.layout,
        s=s,
        num_particles=particles_of(program.objective),
    )
    beta, lam, _ = (
        each if shared is None else shared
        for each, shared in zip(energy, program.common, strict=True)
    )
    return jnp.mean(loss_of(program.objective, forms, weights, beta=beta, lam=lam))


def _drawing(
    weights: Float[np.ndarray, " n"], batch_size: int
) -> Callable[[int, int], Int[np.ndarray, " b"]]:
    """(seed, step) -> examples, each drawn as often as its weight asks."""
    ends = np.cumsum(weights)

    def draw(seed: int, step: int) -> Int[np.ndarray, " b"]:
        u = np.random.default_rng((seed, step)).random(batch_size)
        index = np.searchsorted(ends, u * ends[-1], side="right")
        return np.minimum(index, len(ends) - 1).astype(np.int32)

    return draw


def _held_out(
    held_out: Statistics | None,
    lanes: Sequence[Lane],
    found: Sequence[Guidance],
    schedule: Schedule,
) -> list[float | None]:
    """The loss of every lane; lanes of one objective are scored together."""
    scores: list[float | None] = [None] * len(lanes)
    if held_out is None:
        return scores
    for objective in dict.fromkeys(lane.objective for lane in lanes):
        mine = [i for i, lane in enumerate(lanes) if lane.objective == objective]
        named = {str(i): found[i].omega_fn for i in mine}
        losses = score(held_out, named, objective=objective, schedule=schedule)
        for i in mine:
            scores[i] = losses.mean(str(i))
    return scores


def _finite(values: Float[np.ndarray, "k l"], lanes: Sequence[Lane], steps: np.ndarray) -> Any:
    """Means over the steps. Raises NonFiniteError naming the first lane that is not finite."""
    bad = ~np.isfinite(values)
    if bad.any():
        step, lane = np.argwhere(bad)[0]
        raise NonFiniteError(
            f"step {steps[step] + 1}: expected a finite loss, got {values[step, lane]} "
            f"of {lanes[lane]}"
        )
    return values.mean(axis=0)
