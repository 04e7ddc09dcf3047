"""Search for the best schedule on a grid, which grows while its best value lies at an edge."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lgd.guidance import Family
from lgd.types import Schedule

Score = Callable[[Any, int], np.ndarray]  # (guidance, samples of each stratum) -> (strata,)
Coordinates = tuple[float, ...]  # a value of every axis of a grid
MAX_GROWTH = 8  # times a grid may grow

_log = logging.getLogger(__name__)


class Selected(NamedTuple):
    """The winner of a search: its parameters, what it guides by, and its validation score."""

    params: dict
    guidance: Any  # whatever samplers take as guidance
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A family of schedules over a product of axes.

    make: from one value of each axis, by keyword, to guidance; ValueError where they do not fit.
    axes: increasing values. bounds: how far each axis may grow.
    """

    make: Callable[..., Any]
    axes: Mapping[str, Sequence[float]]
    bounds: Mapping[str, tuple[float, float]]

    def points(self) -> dict[Coordinates, Any]:
        """Every valid combination."""
        return self._valid(self.axes.values())

    def around(self, point: Coordinates) -> dict[Coordinates, Any]:
        """Every valid combination of values at most one place from those of a point."""
        near = []
        for values, value in zip(self.axes.values(), point, strict=True):
            place = list(values).index(value)
            near.append(values[max(place - 1, 0) : place + 2])
        return self._valid(near)

    def _valid(self, axes: Iterable[Sequence[float]]) -> dict[Coordinates, Any]:
        valid = {}
        for point in itertools.product(*axes):
            try:
                valid[point] = self.make(**dict(zip(self.axes, point, strict=True)))
            except ValueError:
                continue
        return valid

    def grown(self, best: Coordinates) -> "Grid | None":
        """A grid with one more value wherever best lies at an edge inside the bounds, or None."""
        axes = {
            name: _grown_axis(list(values), value, self.bounds[name])
            for (name, values), value in zip(self.axes.items(), best, strict=True)
        }
        same = all(len(axes[name]) == len(values) for name, values in self.axes.items())
        return None if same else dataclasses.replace(self, axes=axes)


def grid_of(
    family: Family,
    *,
    schedule: Schedule,
    axes: Mapping[str, Sequence[float]] | None = None,
) -> Grid:
    """The grid over which a family is tuned.

    Args:
      family: a row of `guidance.FAMILIES` with grids.
      schedule: the noise schedule, for families that take it.
      axes: values instead of those of the family, by field.
    """
    fixed = {"schedule": schedule} if family.takes_schedule else {}
    grids = {name: field.grid for name, field in family.fields.items() if field.grid}
    return Grid(
        make=functools.partial(family.make, **fixed),
        axes=grids | dict(axes or {}),
        bounds={name: family.fields[name].growth for name in grids},
    )


def _grown_axis(values: list[float], best: float, bounds: tuple[float, float]) -> list[float]:
    if len(values) < 2:
        return values
    if best == values[-1] and best < bounds[1]:
        return [*values, round(min(2 * values[-1] - values[-2], bounds[1]), 6)]
    if best == values[0] and best > bounds[0]:
        return [round(max(2 * values[0] - values[1], bounds[0]), 6), *values]
    return values


class Screened(NamedTuple):
    """First look at a family: parameters of every point, and scores (points, strata)."""

    grid: Grid
    points: list[Coordinates]
    scores: np.ndarray

    def params(self, index: int) -> dict[str, float]:
        """Parameters of a point by name."""
        return dict(zip(self.grid.axes, self.points[index], strict=True))


def screen(grid: Grid, score: Score, per_stratum: int, *, advance: Callable[..., None]) -> Screened:
    """Score every point of a grid, growing it while the best lies at an edge."""
    scores: dict[Coordinates, np.ndarray] = {}
    for _ in range(MAX_GROWTH + 1):
        for point, guidance in grid.points().items():
            if point not in scores:
                scores[point] = score(guidance, per_stratum)
                advance()
        best = min(scores, key=lambda point: scores[point].mean())
        wider = grid.grown(best)
        if wider is None:
            break
        grid = wider
    else:
        _log.warning("the best of %s lies at the edge of a grid grown %d times: %s",
                     list(grid.axes), MAX_GROWTH, best)  # fmt: skip
    return Screened(grid, list(scores), np.stack(list(scores.values())))


def search(
    grid: Grid,
    score: Score,
    *,
    screening: int,
    full: int,
    finalists: int,
    advance: Callable[..., None] = lambda note="": None,
) -> tuple[Selected, Screened]:
    """The point of least mean score: all screened, the best ones run again in full.

    With screening = full, the first look is the last.

    Args:
      grid: the points; it grows while the best one lies at an edge.
      score: (guidance, samples of each stratum) -> (strata,), less is better.
      screening: samples of each stratum in the first look.
      full: samples of each stratum in a full run.
      finalists: points that are run in full.
      advance: called after every run.
    """
    screened = screen(grid, score, screening, advance=advance)
    means = screened.scores.mean(axis=1)
    if screening == full:
        best = int(np.argmin(means))
        params = screened.params(best)
        return Selected(params, grid.make(**params), float(means[best])), screened
    order = np.argsort(means, kind="stable")[:finalists]
    runs = []
    for index in order:
        params = screened.params(int(index))
        guidance = grid.make(**params)
        runs.append(Selected(params, guidance, float(score(guidance, full).mean())))
        advance()
    return min(runs, key=lambda run: run.score), screened


def search_apart(
    screened: Screened,
    make: Callable[..., Any],
    score: Score,
    *,
    screening: int,
    full: int,
    finalists: int,
    advance: Callable[..., None] = lambda note="": None,
) -> Selected:
    """The best point of every stratum by itself.

    First every stratum whose best lies at an edge looks further. Then run j gives every stratum its
    j-th best point so far, so that ``finalists`` full runs serve all strata.

    Args:
      screened: a first look at the points.
      make: from one list for each axis, an entry for each stratum, to guidance.
      score: (guidance, samples of each stratum) -> (strata,), less is better.
      screening: samples of each stratum in the first look.
      full: samples of each stratum in a full run.
      finalists: points that are run in full.
      advance: called after every run.
    """

    def schedule(points: Sequence[Coordinates]) -> tuple[dict[str, list[float]], Any]:
        lists = dict(zip(screened.grid.axes, map(list, zip(*points, strict=True)), strict=True))
        return lists, make(**lists)

    def measure(points: Sequence[Coordinates], per_stratum: int) -> np.ndarray:
        scores = score(schedule(points)[1], per_stratum)
        advance()
        return scores

    known = _look_further(screened, lambda points: measure(points, screening))
    count = min(finalists, *map(len, known))
    runs = list(zip(*(sorted(own, key=own.__getitem__)[:count] for own in known), strict=True))
    scores = np.stack([measure(points, full) for points in runs])
    winners = np.argmin(scores, axis=0)
    params, guidance = schedule([runs[run][c] for c, run in enumerate(winners)])
    return Selected(params, guidance, float(scores.min(axis=0).mean()))


StrataScores = Sequence[dict[Coordinates, float]]  # by point, for every stratum


def _look_further(
    screened: Screened, measure: Callable[[Sequence[Coordinates]], np.ndarray]
) -> StrataScores:
    """Scores of every stratum on its own grid, which grows while its best lies at an edge.

    Of a grown grid only the neighbours of the best are scored. measure: a point for each stratum ->
    (strata,).
    """
    known = [dict(zip(screened.points, each, strict=True)) for each in screened.scores.T.tolist()]
    grids = [screened.grid] * len(known)
    for _ in range(MAX_GROWTH):
        best = [min(own, key=own.__getitem__) for own in known]
        wider = [grid.grown(point) for grid, point in zip(grids, best, strict=True)]
        asked = [
            [] if grid is None else [point for point in grid.around(at) if point not in own]
            for grid, at, own in zip(wider, best, known, strict=True)
        ]
        if not any(asked):
            return known
        _score_each(known, asked, best, measure)
        grids = [new or grid for new, grid in zip(wider, grids, strict=True)]
    _log.warning("the best of %s may lie at an edge for some strata, of grids grown %d times",
                 list(screened.grid.axes), MAX_GROWTH)  # fmt: skip
    return known


def _score_each(
    known: StrataScores,
    asked: Sequence[Sequence[Coordinates]],
    best: Sequence[Coordinates],
    measure: Callable[[Sequence[Coordinates]], np.ndarray],
) -> None:
    """Add to ``known`` the points that every stratum asks for: the j-th points of all in one run.

    A stratum that asks for fewer repeats its best point. The number of runs then does not grow with
    the number of strata.
    """
    for points in itertools.zip_longest(*asked):
        pairs = zip(points, best, strict=True)
        scores = measure([at if point is None else point for point, at in pairs]).tolist()
        for own, point, score in zip(known, points, scores, strict=True):
            if point is not None:
                own[point] = score
