"""Guidance learned from statistics, with the collection behind it as its provenance."""

from collections.abc import Mapping
from typing import Any

from lgd.gram.layout import Statistics
from lgd.machinery.digests import describe
from lgd.objectives import OneStep
from lgd.omega import Guidance, LearnedModel
from lgd.types import Params, Schedule


def learned_guidance(
    model: LearnedModel,
    params: Params,
    statistics: Statistics,
    objective: OneStep,
    *,
    schedule: Schedule,
    start: str,
    history: Mapping[str, Any],
) -> Guidance:
    """Guidance whose provenance names the objective and the collection.

    Args:
      model: what was learned.
      params: its parameters.
      statistics: what it was learned from.
      objective: what was minimised.
      schedule: the forward process of the denoiser.
      start: where training started from, or how the parameters were computed.
      history: of the training.
    """
    provenance = {"objective": describe(objective), "law of t": describe(statistics.law)}
    provenance |= {f"statistics, {name}": text for name, text in statistics.fingerprint.items()}
    return Guidance(model, params, start, schedule, history, provenance)
