"""Selection: every row's parameters by the primary metric on validation data."""

import functools
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.journal import Journal, schedule_key
from experiments.stages import guidance as guidance_stage
from experiments.workdir import Workdir
from lgd import guidance
from lgd.data import Dataset
from lgd.evaluation import Found, Generator, Grid, Screened, search, search_per_class
from lgd.metrics.energy import ClassEnergyDistance
from lgd.progress import bar
from lgd.types import OmegaFn

HAND_MADE = ("constant", "limited_interval", "limited_interval_per_class", "clamp_linear")


class Candidates(NamedTuple):
    """Selected schedules by row name, and the first looks that the report draws."""

    found: dict[str, Found]
    screened: dict[str, Screened]


class ValidationScore:
    """Energy distance of every class to validation data: a mean over seeds for full runs.

    Validation noise starts at seed 0. What the journal holds is not measured again.
    """

    def __init__(
        self, config: ConfigDict, dataset: Dataset, generator: Generator, journal: Journal
    ) -> None:
        settings = config.evaluation
        self.full = settings.num_samples // dataset.num_classes
        self.screening = settings.num_screening // dataset.num_classes
        self._num_seeds = settings.validation_seeds
        self._real = ClassEnergyDistance(dataset.validation, dataset.num_classes)
        self._generator, self._journal = generator, journal

    def __call__(self, omega_fn: OmegaFn, per_class: int) -> np.ndarray:
        """Distance of each class (classes,)."""
        name = schedule_key(omega_fn, self._generator.times, self._generator.num_classes)
        scores = [
            self._journal(
                f"validation {name} n={per_class} seed={seed}",
                functools.partial(self._measure, omega_fn, per_class, seed),
            )
            for seed in range(self._num_seeds if per_class == self.full else 1)
        ]
        return np.mean(np.asarray(scores, np.float64), axis=0)

    def _measure(self, omega_fn: OmegaFn, per_class: int, seed: int) -> list[float]:
        return np.asarray(self._real(self._generator(omega_fn, per_class, seed=seed))).tolist()


def tune(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    generator: Generator,
    journal: Journal,
) -> Candidates:
    """Select every row's parameters by the primary metric on validation data."""
    score = ValidationScore(config, dataset, generator, journal)
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
        per_class = search_per_class(
            screened["limited_interval"],
            guidance.limited_interval_per_class,
            score,
            full=score.full,
            finalists=finalists,
            advance=advance,
        )
    found["limited_interval_per_class"] = per_class
    for method in config.guidance.methods:
        found[f"learned:{method}"] = _select(config, workdir, dataset, method, score)
    order = ["unguided", *HAND_MADE, *(f"learned:{method}" for method in config.guidance.methods)]
    return Candidates({name: found[name] for name in order}, screened)


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


def _select(
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
