"""Rows of a comparison: tuned, measured, and with their weights."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import schedules
from lgd.data.dataset import Split
from lgd.diffusion import direction_names
from lgd.evaluation.comparison import GIVEN, Curves
from lgd.evaluation.draws import Draws, taken
from lgd.evaluation.generator import Generator
from lgd.evaluation.measures import Measure, Measurement
from lgd.evaluation.seeds import summary
from lgd.evaluation.settings import CompareSettings
from lgd.evaluation.tuning import MemoryJournal, ValidationScore, tune
from lgd.evaluation.weights import guided_weight, squared_gap, weights_on_grid
from lgd.metrics.energy import ClassEnergyDistance

Advance = Callable[..., None]


class Row(NamedTuple):
    """A row before it is measured. validation: its score, where it was tuned."""

    method: str
    family: str
    params: dict[str, Any]
    guidance: Any
    validation: float | None


@dataclasses.dataclass(frozen=True)
class NamedMeasure:
    """A measure whose metrics have a name before their own: ``name.metric``."""

    name: str
    measure: Measure

    def __call__(self, x: Float[Array, "g n *dims"]) -> Measurement:
        """The metrics."""
        return {
            kind: {f"{self.name}.{metric}": value for metric, value in values.items()}
            for kind, values in self.measure(x).items()
        }


def tuned(
    families: Sequence[str], draws: Draws, seed: int, settings: CompareSettings, advance: Advance
) -> list[Row]:
    """Hand-made families, tuned on the examples that draws have their conditions from.

    Args:
      families: rows of `guidance.FAMILIES`.
      draws: draws the samples.
      seed: of the first run.
      settings: numbers of samples and seeds, and what is tried.
      advance: called after every run.
    """
    full, first_look = settings.per_stratum(draws.num_strata)
    score = ValidationScore(
        generator=draws,
        journal=MemoryJournal(),
        distance=ClassEnergyDistance(draws.real),
        full=full,
        screening=first_look,
        num_seeds=settings.validation_seeds,
        first_seed=seed,
    )
    selected, _ = tune(
        families,
        score,
        schedule=draws.generator(full).denoiser.schedule,
        axes=settings.axes,
        finalists=settings.finalists,
        advance=advance,
    )
    return [
        Row(name, name, best.params, best.guidance, best.score) for name, best in selected.items()
    ]


def runs(
    row: Row,
    draws: Draws,
    measure: Measure,
    first_seed: int,
    settings: CompareSettings,
    advance: Advance,
) -> list[Measurement]:
    """The measurements of a row, one for every seed.

    Args:
      row: the row.
      draws: draws the samples.
      measure: samples -> metrics.
      first_seed: the first seed.
      settings: numbers of samples and seeds.
      advance: called after every run.
    """
    full, _ = settings.per_stratum(draws.num_strata)
    measured = []
    for seed in range(first_seed, first_seed + settings.test_seeds):
        measured.append(measure(draws(row.guidance, full, seed=seed)))
        advance(row.method)
    return measured


def resampled_metrics(runs: Sequence[Mapping[str, Any]]) -> dict[str, Float[np.ndarray, " r"]]:
    """Metrics on resampled real examples, means over seeds."""
    return {
        name: np.mean([run["resampled"][name] for run in runs], axis=0)
        for name in runs[0]["resampled"]
    }


class Entries:
    """The results of rows as JSON: (row, metrics of its runs) -> entry.

    Args:
      generator: draws the samples.
      real: examples on whose noised states the weights are averaged.
      per_condition: samples of every condition in a run.
    """

    def __init__(self, generator: Generator, real: Split, per_condition: int) -> None:
        self._generator, self._count = generator, per_condition
        self._gap, self._c = squared_gap(generator, real), jax.tree.map(jnp.asarray, real.c)

    def __call__(self, row: Row, metrics: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """The row with summaries of its metrics over seeds, its cost and its mean weight."""
        return {
            "method": row.method,
            "family": row.family,
            "params": row.params,
            "metrics": {name: summary([run[name] for run in metrics]) for name in metrics[0]},
            "num_samples": self._count * self._generator.num_conditions,
            "num_steps": len(self._generator.times) - 1,
            "nfe": self._generator.nfe_of(row.guidance, self._count),
            "validation": row.validation,
            "omega": guided_weight(row.guidance, self._generator, self._c, self._gap),
        }


def results(
    rows: Sequence[Row],
    runs: Mapping[str, Sequence[Measurement]],
    draws: Draws,
    settings: CompareSettings,
) -> tuple[dict[str, Any], ...]:
    """The rows as JSON."""
    full, _ = settings.per_stratum(draws.num_strata)
    generator = draws.generator(full)
    at_once = full if settings.batch == 0 else max(1, settings.batch // draws.num_strata)
    real = taken(draws.real, np.unique(draws.index(min(full, at_once))))
    entry = Entries(generator, real, per_condition=1)
    return tuple(entry(row, [run["metrics"] for run in runs[row.method]]) for row in rows)


def curves(rows: Sequence[Row], draws: Draws, settings: CompareSettings) -> Curves:
    """The weights of all rows but the unguided one, where they are known before sampling."""
    generator = draws.generator(settings.per_stratum(draws.num_strata)[0])
    schedule, times = generator.denoiser.schedule, generator.times[:-1]
    known = Curves(
        logsnr=_listed(schedules.clipped_logsnr(schedule, times)),
        t=_listed(times),
        sigma=_listed(schedule.sigma(times)),
        given={},
        hand_made={},
    )
    names, c = direction_names(generator.denoiser), generator.repeated(1)
    for row in rows[1:]:
        omega = weights_on_grid(row.guidance, generator, c)
        if omega is None:
            continue
        grouped = np.asarray(omega).reshape(len(times), draws.num_strata, -1, *omega.shape[2:])
        means = np.moveaxis(grouped.mean(axis=2), 0, 1)  # (g, k, *d)
        of_kind = known.given if row.family == GIVEN else known.hand_made
        if means.ndim == 2:
            of_kind[row.method] = means.tolist()
            continue
        for j, name in enumerate(names):
            of_kind[f"{row.method} ({name})"] = means[..., j].tolist()
    return known


def _listed(x: Float[Array, " k"]) -> list[float]:
    return np.asarray(x, np.float64).tolist()
