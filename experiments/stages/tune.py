"""Selection: every row's parameters by the primary metric on validation data."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments.journal import Journal, schedule_key
from experiments.stages import guidance as guidance_stage
from experiments.stages.inception import ValidationInception
from experiments.stages.measure import PRIMARY, ValidationFrechet
from experiments.workdir import Workdir
from lgd import guidance
from lgd.data import Dataset
from lgd.evaluation import Found, Generator, Grid, Screened, search, search_per_class
from lgd.machinery.progress import bar
from lgd.metrics.energy import ClassEnergyDistance
from lgd.types import OmegaFn

HAND_MADE = ("constant", "limited_interval", "limited_interval_per_class", "clamp_linear")


_ALL, _POOLED, _EACH_CLASS = slice(None), slice(0, 1), slice(1, None)


class Candidates(NamedTuple):
    """Selected schedules by row name, and the first looks that the report draws."""

    found: dict[str, Found]
    screened: dict[str, Screened]


class ValidationScore:
    """Distance of every class to validation data: a mean over seeds for full runs.

    Validation noise starts at seed 0. What the journal holds is not measured again. Each run is
    measured by ``distance``, whose entries ``part`` are the score.
    """

    def __init__(
        self,
        config: ConfigDict,
        dataset: Dataset,
        generator: Generator,
        journal: Journal,
        distance: Callable[[Array], Any],
        part: slice = _ALL,
    ) -> None:
        settings = config.evaluation
        self.full = settings.num_samples // dataset.num_classes
        self.screening = settings.num_screening // dataset.num_classes
        self._num_seeds = settings.validation_seeds
        self._distance, self._part = distance, part
        self._generator, self._journal = generator, journal

    def __call__(self, omega_fn: OmegaFn, per_class: int) -> np.ndarray:
        """Distance of each class (classes,), or (1,) where it is one of all classes."""
        seeds = range(self._num_seeds if per_class == self.full else 1)
        return self.on_seeds(omega_fn, per_class, seeds).mean(axis=0)

    def on_seeds(self, omega_fn: OmegaFn, per_class: int, seeds: Sequence[int]) -> np.ndarray:
        """The same for every seed, (seeds, classes) or (seeds, 1)."""
        name = schedule_key(omega_fn, self._generator.times, self._generator.num_classes)
        scores = [
            self._journal(
                f"validation {name} n={per_class} seed={seed}",
                functools.partial(self._measure, omega_fn, per_class, seed),
            )
            for seed in seeds
        ]
        return np.asarray(scores, np.float64)[:, self._part]

    def with_part(self, part: slice) -> "ValidationScore":
        """The same runs by other entries of their distance."""
        other = copy.copy(self)
        other._part = part
        return other

    def _measure(self, omega_fn: OmegaFn, per_class: int, seed: int) -> list[float]:
        return np.asarray(self._distance(self._generator(omega_fn, per_class, seed=seed))).tolist()


def tune(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    generator: Generator,
    journal: Journal,
) -> Candidates:
    """Select every row's parameters by the primary metric on validation data."""
    score, by_class = scores_for(config, workdir, dataset, generator, journal)
    finalists = config.evaluation.num_finalists
    found = {"unguided": Found({}, guidance.constant(0.0), float("nan"))}
    screened: dict[str, Screened] = {}
    with bar("tune hand-made schedules", _num_candidates(config)) as advance:
        for name, grid in _grids(config).items():
            found[name], screened[name] = search(
                grid,
                score,
                screening=score.screening if name == "limited_interval" else score.full,
                full=score.full,
                finalists=finalists,
                advance=advance,
            )
        intervals = screened["limited_interval"]
        per_class = search_per_class(
            intervals if by_class is score else _by_class(intervals, by_class),
            guidance.limited_interval_per_class,
            by_class,
            screening=score.screening,
            full=score.full,
            finalists=finalists,
            advance=advance,
        )
    if by_class is not score:
        total = float(score(per_class.omega_fn, score.full).mean())
        per_class = per_class._replace(score=total)
    found["limited_interval_per_class"] = per_class
    for method in config.guidance.methods:
        found[f"learned:{method}"] = select(config, workdir, dataset, method, score)
    order = ["unguided", *HAND_MADE, *(f"learned:{method}" for method in config.guidance.methods)]
    return Candidates({name: found[name] for name in order}, screened)


def scores_for(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, generator: Generator, journal: Journal
) -> tuple[ValidationScore, ValidationScore]:
    """By the primary metric; and by its part that belongs to each class.

    The Frechet distance of all classes at once has none: classes are then told apart by their own,
    or by their energy distance, see `ValidationInception`.
    """
    if config.evaluation.primary == PRIMARY:
        energy = ClassEnergyDistance(dataset.validation, dataset.num_classes)
        score = ValidationScore(config, dataset, generator, journal, energy)
        return score, score
    by_inception = config.evaluation.features == "inception"
    distance = ValidationInception if by_inception else ValidationFrechet
    frechet = distance(config, workdir, dataset)
    by_class = ValidationScore(config, dataset, generator, journal, frechet, _EACH_CLASS)
    pooled = config.evaluation.primary == "frechet_distance"
    return by_class.with_part(_POOLED) if pooled else by_class, by_class


def _by_class(screened: Screened, score: ValidationScore) -> Screened:
    """The same points, scored class by class; the journal has them already."""
    make, axes = screened.grid.make, tuple(screened.grid.axes)
    functions = [make(**dict(zip(axes, point, strict=True))) for point in screened.points]
    return screened._replace(scores=np.stack([score(fn, score.screening) for fn in functions]))


def _grids(config: ConfigDict) -> dict[str, Grid]:
    settings, unbounded = config.evaluation, (0.0, float("inf"))
    return {
        "constant": Grid(
            make=guidance.constant, axes={"w": settings.constant_weights}, bounds={"w": unbounded}
        ),
        "limited_interval": Grid(
            make=guidance.limited_interval,
            axes={
                "w": settings.interval_weights,
                "lo": settings.interval_lower,
                "hi": settings.interval_upper,
            },
            bounds={"w": unbounded, "lo": (0.0, 1.0), "hi": (0.0, 1.0)},
        ),
        "clamp_linear": Grid(
            make=guidance.clamp_linear,
            axes={"cfg_scale": settings.clamp_linear_scales},
            bounds={"cfg_scale": (0.5, float("inf"))},  # 0.5 is no guidance
        ),
    }


def _num_candidates(config: ConfigDict) -> int:
    points = sum(len(grid.points()) for grid in _grids(config).values())
    return points + 2 * config.evaluation.num_finalists


def select(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    method: str,
    score: ValidationScore,
) -> Found:
    """The best snapshot of a training, by the same score and sample count as its opponents."""
    found = []
    for step in guidance_stage.snapshot_steps(config, method):
        omega_fn = guidance_stage.load(config, workdir, dataset, method, step)
        found.append(Found({"step": step}, omega_fn, float(score(omega_fn, score.full).mean())))
    return min(found, key=lambda each: each.score)
