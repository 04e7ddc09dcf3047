"""Selection: every row's parameters on validation data, hand-made and learned by one score.

The score is the primary metric, less the weight of the reward times the reward in a run with one:
then every row is selected once for each weight.
"""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import build, methods
from experiments.stages import guidance as guidance_stage
from experiments.stages import measure
from experiments.stages.guidance import Training
from experiments.workdir import Workdir
from lgd import guidance
from lgd.data import Dataset
from lgd.evaluation import (
    Generator,
    Journal,
    Screened,
    Selected,
    ValidationScore,
    num_candidates,
    strata_rewards,
    tune,
)
from lgd.evaluation.rows import Row as PlainRow
from lgd.guidance import FAMILIES
from lgd.machinery.progress import bar

_ALL, _POOLED, _EACH = slice(None), slice(0, 1), slice(1, None)  # entries of a distance
_GRIDS = {  # that a config has for the first fields of a family
    "constant": ("constant_weights",),
    "limited_interval": ("interval_weights", "interval_lower", "interval_upper"),
    "clamp_linear": ("clamp_linear_scales",),
}


class Row(NamedTuple):
    """A row of results before it is measured on test data.

    family: "unguided", a hand-made family, or "learned:<method>". gamma: the weight of the reward
    that it was selected for; None: for none.
    """

    family: str
    gamma: float | None
    selected: Selected

    @property
    def method(self) -> str:
        """Name of the row, which differs from all others."""
        return self.family if self.gamma is None else f"{self.family}:reward({self.gamma:.9g})"

    @property
    def plain(self) -> PlainRow:
        """The row with the weight of the reward among its parameters."""
        gamma = {} if self.gamma is None else {"gamma": self.gamma}
        params, fn, score = self.selected
        known = score if np.isfinite(score) else None
        return PlainRow(self.method, self.family, gamma | params, fn, known)

    @property
    def is_learned(self) -> bool:
        """Whether the row was learned."""
        return methods.is_learned(self.family)


def unguided() -> Row:
    """The row of sampling without guidance."""
    return Row("unguided", None, Selected({}, guidance.constant(0.0), float("nan")))


class Candidates(NamedTuple):
    """Selected rows in their order, and the first look at constants, which the report draws."""

    rows: list[Row]
    constants: Screened


def gammas(config: ConfigDict) -> list[float | None]:
    """Weights of the reward that rows are selected for; [None] without a reward."""
    return [None] if config.reward.name == "none" else list(config.reward.weights)


def select(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    generator: Generator,
    journal: Journal,
) -> Candidates:
    """Select every row on validation data.

    Args:
      config: settings of the run.
      workdir: folder of the run.
      dataset: real examples.
      generator: the sampler.
      journal: measurements that are there already.
    """
    base, by_stratum = scores_for(config, workdir, dataset, generator, journal)
    rows = [unguided()]
    constants = None
    for gamma in gammas(config):
        selected, screened = _tuned(config, base, by_stratum, gamma)
        constants = screened["constant"] if constants is None else constants
        rows += [Row(name, gamma, each) for name, each in selected.items()]
        score = base.with_gamma(gamma or 0.0)
        for method in config.guidance.methods:
            best = best_snapshot(config, workdir, dataset, Training(method, gamma), score)
            rows.append(Row(f"{methods.LEARNED}{method}", gamma, best))
    assert constants is not None
    return Candidates(rows, constants)


def scores_for(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, generator: Generator, journal: Journal
) -> tuple[ValidationScore, ValidationScore]:
    """The score by the primary metric; and by its part that belongs to each stratum.

    The Frechet distance of all strata at once has none: strata are then told apart by their own
    Frechet distances, or by their energy distances where features are those of Inception.

    Args:
      config: settings of the run.
      workdir: folder of the run.
      dataset: real examples.
      generator: the sampler.
      journal: measurements that are there already.
    """
    distance, has_pooled = measure.validation_distance(config, workdir, dataset)
    reward = guidance_stage.load_reward(config, workdir, dataset)
    settings = config.evaluation
    score = ValidationScore(
        generator=generator,
        journal=journal,
        distance=distance,
        reward=None if reward is None else strata_rewards(reward, dataset.conditions),
        num_seeds=settings.validation_seeds,
        full=generator.share(settings.num_samples),
        screening=max(1, generator.share(settings.num_screening)),
        part=_EACH if has_pooled else _ALL,
    )
    pooled = settings.primary == "frechet_distance"
    return score.with_part(_POOLED) if pooled else score, score


def best_snapshot(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    training: Training,
    score: ValidationScore,
) -> Selected:
    """The best snapshot of a training, by the same score and sample count as its opponents.

    Args:
      config: settings of the run.
      workdir: folder of the run.
      dataset: real examples.
      training: which training.
      score: of guidance on validation data.
    """
    scored = []
    for step in guidance_stage.snapshot_steps(config, training):
        learned = guidance_stage.load(config, workdir, dataset, training, step)
        scored.append(Selected({"step": step}, learned, float(score(learned, score.full).mean())))
    return min(scored, key=lambda snapshot: snapshot.score)


def hand_made(config: ConfigDict, family: str, params: dict) -> guidance.HandMade:
    """A schedule of a family with the parameters of a row."""
    fixed = {"schedule": build.schedule(config)} if FAMILIES[family].takes_schedule else {}
    return FAMILIES[family].make(**params, **fixed)


def _tuned(
    config: ConfigDict, base: ValidationScore, by_stratum: ValidationScore, gamma: float | None
) -> tuple[dict[str, Selected], dict[str, Screened]]:
    """Hand-made families, each tuned for a weight of the reward."""
    note = "" if gamma is None else f", reward {gamma:g}"
    names, values = tuple(config.evaluation.families), config.evaluation
    settings = {
        "schedule": build.schedule(config),
        "axes": {
            family: dict(zip(FAMILIES[family].fields, map(values.get, grids), strict=False))
            for family, grids in _GRIDS.items()
        },
        "finalists": values.num_finalists,
    }
    scores = [score.with_gamma(gamma or 0.0) for score in (base, by_stratum)]
    with bar(f"tune hand-made schedules{note}", num_candidates(names, **settings)) as advance:
        return tune(names, *scores, advance=advance, **settings)
