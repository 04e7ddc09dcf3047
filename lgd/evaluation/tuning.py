"""Hand-made families tuned on validation data, all by one score and with the same noise."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from lgd.evaluation.distances import Distance
from lgd.evaluation.journal import schedule_key
from lgd.evaluation.search import Grid, Screened, Selected, grid_of, search, search_apart
from lgd.guidance import FAMILIES
from lgd.types import Drawing, Schedule

Axes = Mapping[str, Mapping[str, Sequence[float]]]  # values to try, by family and field
_NO_AXES: Axes = {}


class MemoryJournal:
    """Measurements by key in memory: a `Journal` without a file."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def __call__(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value of a key, computed if it is not there yet."""
        if key not in self._values:
            self._values[key] = compute()
        return self._values[key]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ValidationScore:
    """Distance of every stratum to validation data, less a reward: a mean over seeds.

    The score is ``distance - gamma reward``. The journal holds both, so that scores of several
    weights, or of other entries of one distance, share their samples.

    Args:
      generator: draws the samples.
      journal: what it holds is not measured again, see `Journal` and `MemoryJournal`.
      distance: samples (g, n, *dims) -> entries (d,).
      full: samples of every stratum in a full run.
      screening: samples of every stratum in a first look; None: as in a full run.
      num_seeds: seeds of a full run; a first look takes the first alone.
      first_seed: the seed of the first run.
      reward: samples -> mean reward of every stratum (g,).
      gamma: weight of the reward.
      part: which entries of the distance are the score. Where it is one of all strata, the reward
        is a mean over strata too.
    """

    generator: Drawing
    journal: Callable[[str, Callable[[], Any]], Any]
    distance: Distance
    full: int
    screening: int | None = None
    num_seeds: int = 1
    first_seed: int = 0
    reward: Callable[[Array], Array] | None = None
    gamma: float = 0.0
    part: slice = dataclasses.field(default_factory=lambda: slice(None))

    @property
    def first_look(self) -> int:
        """Samples of every stratum in a first look."""
        return self.full if self.screening is None else self.screening

    def __call__(self, guidance: Any, per_stratum: int) -> Float[np.ndarray, " g"]:
        """The score of every stratum, or (1,) where it is one of all strata."""
        count = self.num_seeds if per_stratum == self.full else 1
        seeds = range(self.first_seed, self.first_seed + count)
        return self.on_seeds(guidance, per_stratum, seeds).mean(axis=0)

    def on_seeds(
        self, guidance: Any, per_stratum: int, seeds: Sequence[int]
    ) -> Float[np.ndarray, "s g"]:
        """The score of every stratum with every seed."""
        name = schedule_key(guidance)
        runs = [
            self.journal(
                f"validation {name} n={per_stratum} seed={seed}",
                functools.partial(self._measured, guidance, per_stratum, seed),
            )
            for seed in seeds
        ]
        return np.stack([self._scored(run) for run in runs])

    def with_part(self, part: slice) -> "ValidationScore":
        """This score with other entries of the distance, on the same runs."""
        return dataclasses.replace(self, part=part)

    def with_gamma(self, gamma: float) -> "ValidationScore":
        """This score with another weight of the reward, on the same runs."""
        return dataclasses.replace(self, gamma=gamma)

    def _measured(self, guidance: Any, per_stratum: int, seed: int) -> Any:
        x = self.generator(guidance, per_stratum, seed=seed)
        distance = np.asarray(self.distance(x)).tolist()
        if self.reward is None:
            return distance
        return {"distance": distance, "reward": np.asarray(self.reward(x)).tolist()}

    def _scored(self, run: Any) -> Float[np.ndarray, " g"]:
        if self.reward is None:
            return np.asarray(run, np.float64)[self.part]
        distance, reward = (np.asarray(run[name], np.float64) for name in ("distance", "reward"))
        distance = distance[self.part]
        return distance - self.gamma * (reward if len(reward) == len(distance) else reward.mean())


def tune(
    names: Sequence[str],
    score: ValidationScore,
    by_stratum: ValidationScore | None = None,
    *,
    schedule: Schedule,
    axes: Axes = _NO_AXES,
    finalists: int = 8,
    advance: Callable[..., None] = lambda note="": None,
) -> tuple[dict[str, Selected], dict[str, Screened]]:
    """The best schedule of every family by its score, and the first looks.

    A family that has one schedule for each stratum is searched among the points that the family it
    is apart from has looked at. Families without a grid are skipped.

    Args:
      names: rows of `guidance.FAMILIES`.
      score: of which the mean over its entries is minimised.
      by_stratum: the same runs scored for each stratum; None: ``score`` is.
      schedule: the noise schedule, for families that take it.
      axes: values to try instead of those of a family, by family and field.
      finalists: points of a screened family that are run again in full.
      advance: called after every measurement.

    Returns:
      What was selected, by family in the order of names, and what the searches looked at first, by
      family.

    Raises:
      ValueError: for names of no family.
    """
    by_stratum = score if by_stratum is None else by_stratum
    selected: dict[str, Selected] = {}
    screened: dict[str, Screened] = {}
    for name, grid in _grids(names, schedule, axes).items():
        selected[name], screened[name] = search(
            grid,
            score,
            screening=score.first_look if FAMILIES[name].screened else score.full,
            full=score.full,
            finalists=finalists,
            advance=advance,
        )
    for name, parent in _apart(names).items():
        looked = screened[parent]
        if by_stratum.part != score.part:
            looked = _scored_again(looked, by_stratum, FAMILIES[parent].screened)
        make = functools.partial(FAMILIES[name].make, **_fixed(name, schedule))
        selected[name] = _searched_apart(looked, make, score, by_stratum, finalists, advance)
    return {name: selected[name] for name in names if name in selected}, screened


def num_candidates(
    names: Sequence[str], *, schedule: Schedule, axes: Axes = _NO_AXES, finalists: int = 8
) -> int:
    """About how many measurements `tune` takes: grids that grow take more.

    Args:
      names: rows of `guidance.FAMILIES`.
      schedule: the noise schedule.
      axes: as in `tune`.
      finalists: as in `tune`.
    """
    grids = _grids(names, schedule, axes)
    again = sum(FAMILIES[name].screened for name in grids) + len(_apart(names))
    return sum(len(grid.points()) for grid in grids.values()) + finalists * again


def _searched_apart(
    screened: Screened,
    make: Callable[..., Any],
    score: ValidationScore,
    by_stratum: ValidationScore,
    finalists: int,
    advance: Callable[..., None],
) -> Selected:
    selected = search_apart(
        screened,
        make,
        by_stratum,
        screening=by_stratum.first_look,
        full=by_stratum.full,
        finalists=finalists,
        advance=advance,
    )
    if by_stratum.part == score.part:
        return selected
    return selected._replace(score=float(score(selected.guidance, score.full).mean()))


def _scored_again(screened: Screened, score: ValidationScore, in_part: bool) -> Screened:
    """The points scored by another score, from runs that the journal already holds."""
    count = score.first_look if in_part else score.full
    guidances = [screened.grid.make(**screened.params(i)) for i in range(len(screened.points))]
    return screened._replace(scores=np.stack([score(guidance, count) for guidance in guidances]))


def _grids(names: Sequence[str], schedule: Schedule, axes: Axes) -> dict[str, Grid]:
    """The grids that are searched for all strata at once, in the order of names."""
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        raise ValueError(f"expected families of {[*FAMILIES]}, got {unknown}")
    wanted = dict.fromkeys((*names, *_apart(names).values()))
    return {
        name: grid_of(FAMILIES[name], schedule=schedule, axes=axes.get(name))
        for name in wanted
        if not FAMILIES[name].is_per_stratum and any(f.grid for f in FAMILIES[name].fields.values())
    }


def _apart(names: Sequence[str]) -> dict[str, str]:
    """Families with a schedule for each stratum, and the one that each is apart from."""
    parents = {family.apart: name for name, family in FAMILIES.items() if family.apart}
    return {name: parents[name] for name in names if name in parents}


def _fixed(name: str, schedule: Schedule) -> dict[str, Schedule]:
    return {"schedule": schedule} if FAMILIES[name].takes_schedule else {}
