"""What a guidance does, in words: when and for whom, and which schedules come near it."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lgd import schedules
from lgd.guidance import FAMILIES, Family
from lgd.omega import Guidance
from lgd.types import Condition, OmegaFn, Schedule

_OFF = 0.01  # below this a weight is called none
_NAMED = 3  # conditions that are named at either end


class Grid(NamedTuple):
    """Weights on a grid.

    omega: (g, k). times: (k + 1,), decreasing. names: of the g conditions. schedule: of the
    denoiser; None: not known.
    """

    omega: np.ndarray
    times: np.ndarray
    names: Sequence[str]
    schedule: Schedule | None


class Near(NamedTuple):
    """A schedule beside a guidance: its name, omega (k,), and how far it is.

    distance: root mean square of the difference over steps and conditions. share: how much of the
    mean square of omega it explains, 1 less the ratio; 1: all of it.
    """

    name: str
    omega: np.ndarray
    distance: float
    share: float


def known_conditions(found: Guidance) -> Condition | None:
    """One condition for every row or label that a guidance tells apart, leaves (g, ...).

    None where only whoever uses it knows them: where it takes vectors, tokens or several at once.
    """
    models = getattr(found.model, "models", (found.model,))
    params = found.params if hasattr(found.model, "models") else (found.params,)
    first = None
    for model, of_model in zip(models, params, strict=True):
        if hasattr(model, "rows"):
            c = model.rows.examples(of_model, jnp.zeros(1, jnp.int32))
        else:
            count = getattr(getattr(model, "encoder", None), "num_classes", None)
            is_nothing = type(getattr(model, "encoder", None)).__name__ == "Nothing"
            c = jnp.arange(1 if count is None and is_nothing else count or 0, dtype=jnp.int32)
        if len(c) == 0:
            return None
        first = c if first is None or len(c) > len(first) else first
    return first


def own_times(found: Guidance, num_steps: int) -> np.ndarray:
    """The grid that a guidance was learned on, or so many equal steps of its range of times."""
    model = getattr(found.model, "models", (found.model,))[0]
    own = getattr(model, "times", None)
    if own is not None and num_steps == 0:
        return np.asarray(own, np.float64)
    support = found.model.support
    times = schedules.uniform_times(num_steps or 25, start=support.t_max, end=support.s_min)
    return np.asarray(times, np.float64)


def words(grid: Grid, near: Sequence[Near]) -> str:
    """When and for whom weights are largest and least, and which schedules are near."""
    parts = [_range(grid), _when(grid), _for_whom(grid), _off(grid), _near(near)]
    return "\n\n".join(part for part in parts if part)


def _range(grid: Grid) -> str:
    g, k = grid.omega.shape
    low, high, mean = grid.omega.min(), grid.omega.max(), grid.omega.mean()
    return (
        f"{_counted(k, 'step')} from t = {grid.times[0]:.3g} to {grid.times[-1]:.3g}, "
        f"{_counted(g, 'condition')}: omega from {low:.3g} to {high:.3g}, mean {mean:.3g}. "
        "omega = 0 is no guidance; the CFG scale of other tools is 1 + omega."
    )


def _when(grid: Grid) -> str:
    """Which steps have the largest and the least mean, and where most of the guidance lies."""
    means = grid.omega.mean(axis=0)
    if np.ptp(means) < 1e-6 * max(1.0, float(np.abs(means).max())):
        return f"When: at every step alike, mean omega {means[0]:.3g}."
    most, least = int(means.argmax()), int(means.argmin())
    said = (
        f"When: it guides most at {_level(grid, most)}, mean omega {means[most]:.3g}, and least at "
        f"{_level(grid, least)}, {means[least]:.3g}."
    )
    if means.min() < 0.0 or len(means) < 8:
        return said
    reached = np.cumsum(means) / means.sum()
    first, last = (int(np.searchsorted(reached, share)) for share in (0.25, 0.75))
    start, end = grid.times[first], grid.times[last + 1]
    return f"{said} The middle half of all guidance lies between t = {start:.3g} and {end:.3g}."


def _for_whom(grid: Grid) -> str:
    means = grid.omega.mean(axis=1)
    if len(means) == 1:
        return "For whom: it does not tell conditions apart, or there is one."
    if np.ptp(means) < 1e-6 * max(1.0, float(np.abs(means).max())):
        return f"For whom: for all conditions alike, mean omega {means[0]:.3g} over the steps."
    order = np.argsort(-means, kind="stable")
    count = min(_NAMED, len(order) // 2)
    most = ", ".join(_condition(grid, i) for i in order[:count])
    least = ", ".join(_condition(grid, i) for i in order[::-1][:count])
    spread = means.std(ddof=1)
    return (
        f"For whom: it guides most for {most}; least for {least}. Means over the steps differ "
        f"between conditions by a standard deviation of {spread:.2g} around {means.mean():.3g}."
    )


def _condition(grid: Grid, place: int) -> str:
    row = grid.omega[place]
    peak = f", up to {row.max():.3g} at t = {grid.times[int(row.argmax())]:.3g}"
    return f"{grid.names[place]} (mean omega {row.mean():.3g}{peak})"


def _off(grid: Grid) -> str:
    """How often there is no guidance, or guidance the other way."""
    off, negative = np.mean(np.abs(grid.omega) < _OFF), np.mean(grid.omega <= -_OFF)
    if off == 1.0:
        return f"It hardly guides at all: omega is below {_OFF:g} everywhere."
    said = [f"It is off (below {_OFF:g}) in {off:.0%} of all steps and conditions"]
    said += [f"negative in {negative:.0%}"] if negative else []
    return ", and ".join(said) + "."


def _near(near: Sequence[Near]) -> str:
    if not near:
        return ""
    width = max(len(each.name) for each in near)
    rows = [(each.name, f"{each.distance:.4f}", _share(each.share)) for each in near]
    lines = [f"  {name:{width}}  {distance:>8}  {share:>6}" for name, distance, share in
             [("schedule", "distance", "share"), *rows]]  # fmt: skip
    said = (
        "Beside hand-made schedules (distance: root mean square over steps and conditions; share: "
        "of the mean square of omega that it explains):"
    )
    return "\n".join([said, "", *lines])


def _share(value: float) -> str:
    return f"{value:.1%}" if value > 0.0 else "none"


def _level(grid: Grid, step: int) -> str:
    """Where a step starts: its time, number and noise level."""
    t = grid.times[step]
    parts = [f"step {step + 1}"]
    if grid.schedule is not None:
        at = jnp.asarray([t], jnp.float32)
        parts.append(f"sigma {float(grid.schedule.sigma(at)[0]):.3g}")
        parts.append(f"logsnr {float(schedules.clipped_logsnr(grid.schedule, at)[0]):.3g}")
    return f"t = {t:.3g} ({', '.join(parts)})"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def nearest(grid: Grid) -> list[Near]:
    """The schedule of every hand-made family that comes nearest, the nearest first.

    Values are those of the grid that tuning starts from; a weight that only scales a family is the
    best one. A family with a schedule for each stratum is that for every condition by itself.
    """
    found: list[Near] = []
    for name, family in FAMILIES.items():
        if family.is_per_stratum or (family.takes_schedule and grid.schedule is None):
            continue
        patterns = _patterns(family, grid)
        if not patterns:
            continue
        found.append(measured(grid, *_fitted(family, patterns, grid)))
        if family.apart and len(grid.omega) > 1:
            rows = [grid._replace(omega=row[None]) for row in grid.omega]
            best = np.stack([_fitted(family, patterns, row)[1] for row in rows])
            found.append(measured(grid, f"{name}, one for each condition", best))
    return sorted(found, key=lambda each: each.distance)


def measured(grid: Grid, name: str, omega: np.ndarray) -> Near:
    """A schedule (k,), or one for each condition (g, k), beside a guidance."""
    distance, size = _distance(grid, omega), float(np.sqrt(np.mean(grid.omega**2)))
    share = 1.0 - (distance / size) ** 2 if size > 0.0 else float(distance == 0.0)
    return Near(name, omega if omega.ndim == 1 else omega.mean(axis=0), distance, share)


def on_steps(schedule: OmegaFn, times: np.ndarray) -> np.ndarray | None:
    """Omega of a schedule on the steps of a grid, (k,); None of several directions."""
    grid = jnp.asarray(times, jnp.float32)
    c = jnp.zeros(len(times) - 1, jnp.int32)
    values = np.asarray(schedule(s=grid[1:], t=grid[:-1], c=c), np.float64)
    return values if values.ndim == 1 else None


def _distance(grid: Grid, omega: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(grid.omega - omega))))


def _fitted(family: Family, patterns: Sequence["_Pattern"], grid: Grid) -> tuple[str, np.ndarray]:
    """The schedule of a family that comes nearest, by name, with the weight that suits best."""
    tried, mean = [], grid.omega.mean(axis=0)
    for values, pattern in patterns:
        size = float(pattern @ pattern)
        if "w" in family.fields:
            w = float(mean @ pattern) / size if size > 0.0 else 0.0
            values, pattern = values | {"w": w}, w * pattern
        tried.append((_distance(grid, pattern), values, pattern))
    _, values, omega = min(tried, key=lambda each: each[0])
    shown = ", ".join(f"{values[name]:.3g}" for name in family.fields if name in values)
    return f"{family.name}({shown})", omega


_Pattern = tuple[dict[str, float], np.ndarray]  # values of a family, and its omega (k,)


def _patterns(family: Family, grid: Grid) -> list[_Pattern]:
    """Omega of a family for a weight of 1, of every point of its grid."""
    fields = {name: field.grid for name, field in family.fields.items() if field.grid}
    axes = {name: (1.0,) if name == "w" else values for name, values in fields.items()}
    more = {"schedule": grid.schedule} if family.takes_schedule else {}
    found = []
    for point in itertools.product(*axes.values()):
        values = dict(zip(axes, point, strict=True))
        try:
            pattern = on_steps(family.make(**values, **more), grid.times)
        except ValueError:  # ends of an interval that do not increase
            continue
        if pattern is not None:
            found.append((values, pattern))
    return found
