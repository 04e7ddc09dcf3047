"""Readings of a model: what its output may mean, and what it may take, other than was declared.

The score of a reading is the squared error of x0_hat, divided by that of the best linear estimate
of x0 from x_t, ``v sigma^2 / (alpha^2 v + sigma^2)`` with v the variance of the data; a mean over
times of moderate noise. A posterior mean is better than any other estimate, so the score of a model
that is read rightly is below 1 but for its own errors, and that of a wrong reading is larger.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lgd import conditions
from lgd.checks.probes import RATIOS, Ask, Probe, probe_of
from lgd.checks.worlds import DECLARED, World, rescaled, worlds
from lgd.diffusion import Kind, to_x0
from lgd.types import Schedule

SOUND = 1.0  # a reading with a larger score explains nothing
# How small the score of another reading must be relative to that of the declared one, and to that
# of an output of zeros: a network that has learned little is close to the latter in many readings.
CLOSE, FAR = (0.75, 0.7), (0.5, 0.85)
DATA = ((0.5, 0.7),)  # the same where the data are others, of which one is fitted
NUM_MATCHES = 4  # times that the scale of data is estimated, each time nearer
MATCHED = RATIOS.index(1.7)  # where it is estimated

Output: TypeAlias = tuple[Kind, int]  # kind, and the sign of the output
OUTPUTS: tuple[Output, ...] = (
    *((kind, 1) for kind in get_args(Kind)),
    *((kind, -1) for kind in get_args(Kind) if kind != "x0"),
)


class Reading(NamedTuple):
    """A world, the kind and sign of the output in it, its score, and that of an output of 0."""

    world: World
    output: Output
    score: float
    blank: float


def readings(ask: Ask, world: World, probe: Probe, declared: Schedule) -> list[Reading]:
    """The readings of all kinds in a world.

    Args:
      ask: the model.
      world: what it takes.
      probe: rows of the declared world.
      declared: the schedule that was declared.
    """
    schedule = declared if world.schedule is None else world.schedule
    if (world.schedule, world.scale, world.offset) != (None, 1.0, 0.0):
        x0 = world.scale * probe.x0[: probe.num_examples] + world.offset
        probe = probe_of(x0, conditions.take(probe.c, slice(probe.num_examples)), schedule)
    c = jax.tree.map(lambda leaf: leaf + world.shift, probe.c) if world.shift else probe.c
    output = ask(probe.x_t, np.asarray(world.time(jnp.asarray(probe.t), schedule)), c)
    scores, blanks = (_scores(each, probe, schedule) for each in (output, np.zeros_like(output)))
    return [Reading(world, each, scores[each], blanks[each]) for each in OUTPUTS]


def _scores(output: np.ndarray, probe: Probe, schedule: Schedule) -> dict[Output, float]:
    rows = probe.num_examples * len(RATIOS)
    x_t, t, x0 = (jnp.asarray(each[:rows]) for each in (probe.x_t, probe.t, probe.x0))
    variance = float(np.var(probe.x0[: probe.num_examples]))
    key: Any = schedule  # which can be hashed
    errors = _errors(key)(jnp.asarray(output[:rows]), x_t, t, x0, variance)
    by_time = np.asarray(errors, np.float64).reshape(len(OUTPUTS), len(RATIOS), -1).mean(axis=-1)
    return dict(zip(OUTPUTS, by_time.mean(axis=-1).tolist(), strict=True))


@functools.lru_cache(maxsize=8)
def _errors(schedule: Any) -> Callable[..., Array]:
    """Relative squared errors of every row under each of `OUTPUTS`, (outputs, rows)."""

    @jax.jit
    def errors(output: Array, x_t: Array, t: Array, x0: Array, variance: Array) -> Array:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        linear = variance * sigma**2 / (alpha**2 * variance + sigma**2)

        def error(kind: Any, sign: int) -> Array:
            x0_hat = to_x0(sign * output, x_t, t=t, schedule=schedule, kind=kind)
            squares = jnp.square(x0_hat - x0).reshape(len(x0), -1)
            return jnp.mean(squares, axis=1) / linear

        return jnp.stack([error(*each) for each in OUTPUTS])

    return errors


def explanation(
    ask: Ask, kind: Kind, probe: Probe, declared: Schedule, shifts: tuple[int, ...]
) -> tuple[Reading, Reading | None]:
    """The declared reading, and the one that explains the output far better, if there is one.

    Readings that differ in one thing go before those that differ in two.

    Args:
      ask: the model.
      kind: of the output, as declared.
      probe: the rows.
      declared: the noise schedule, as declared.
      shifts: of labels that are tried.
    """
    here = {each.output: each for each in readings(ask, DECLARED, probe, declared)}
    base = here.pop((kind, 1))
    others = list(here.values())
    apart: list[Reading] = []
    mean, std = (float(f(probe.x0[: probe.num_examples])) for f in (np.mean, np.std))
    for world in (*worlds(declared, mean, std, shifts), *_matched(ask, kind, probe, declared)):
        apart += readings(ask, world, probe, declared)
    singles = [each for each in apart if each.output == _same_output(kind, each.world)]
    better = _decisive([*others, *singles], base)
    return base, better if better is not None else _decisive(apart, base)


def _same_output(kind: Kind, world: World) -> Output:
    """The declared output in another world: where time runs back, a velocity has another sign."""
    return kind, -1 if world.runs_back and kind == "velocity" else 1


def _decisive(candidates: list[Reading], base: Reading) -> Reading | None:
    sound = [each for each in candidates if each.score < SOUND and _explains(each, base)]
    return min(sound, key=lambda each: each.score, default=None)


def _explains(reading: Reading, base: Reading) -> bool:
    limits = DATA if reading.world.subject == "data" else (CLOSE, FAR)
    return any(
        reading.score < of_base * base.score and reading.score < of_blank * reading.blank
        for of_base, of_blank in limits
    )


def _matched(ask: Ask, kind: Kind, probe: Probe, schedule: Schedule) -> tuple[World, ...]:
    """The world whose data have the mean and variance that the output implies, if any."""
    x0, c = probe.x0[: probe.num_examples], conditions.take(probe.c, slice(probe.num_examples))
    scale, offset, now = 1.0, 0.0, probe
    for _ in range(NUM_MATCHES):
        step = _implied(ask, kind, now, schedule)
        if not np.isfinite(step).all():
            return ()
        scale, offset = step[0] * scale, step[0] * offset + step[1]
        now = probe_of(scale * x0 + offset, c, schedule)
    moved = abs((scale - 1.0) * x0.mean() + offset) / x0.std()
    return (rescaled(scale, offset),) if abs(np.log(scale)) > 0.3 or moved > 0.3 else ()


def _implied(ask: Ask, kind: Kind, probe: Probe, schedule: Schedule) -> tuple[float, float]:
    """The scale and offset that take data to those that a model seems to be made for.

    A posterior mean has the slope ``alpha v / (alpha^2 v + sigma^2)`` in x_t, on average, and is
    the mean m of the data at ``x_t = alpha m``.
    """
    rows = slice(MATCHED * probe.num_examples, (MATCHED + 1) * probe.num_examples)
    t, x_t = jnp.asarray(probe.t[rows]), probe.x_t[rows]
    output = jnp.asarray(ask(probe.x_t, probe.t, probe.c)[rows])
    x0_hat = np.asarray(to_x0(output, jnp.asarray(x_t), t=t, schedule=schedule, kind=kind))
    alpha, sigma = (float(f(t)[0]) for f in (schedule.alpha, schedule.sigma))
    covariance = np.mean((x_t - x_t.mean()) * (x0_hat - x0_hat.mean()))
    slope = max(covariance / x_t.var(), 1e-3 / alpha)
    intercept = x0_hat.mean() - slope * x_t.mean()
    rest = max(1.0 - alpha * slope, 1e-3)
    mean, std = probe.x0[: probe.num_examples].mean(), probe.x0[: probe.num_examples].std()
    scale = float(np.clip(sigma * (slope / (alpha * rest)) ** 0.5 / std, 0.1, 10.0))
    return scale, float(intercept / rest - scale * mean)
