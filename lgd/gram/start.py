"""Where a fit starts: the best constant under the objective itself."""

import dataclasses
from typing import TypeVar

import numpy as np

from lgd import guidance, omega
from lgd.gram.layout import Statistics
from lgd.gram.loss import OneStep
from lgd.gram.score import score
from lgd.learn import START_WEIGHTS
from lgd.types import Schedule

_EXAMPLES = 4096  # that constants are compared on


Model = TypeVar("Model", bound=omega.LearnedModel)


def started(
    model: Model, statistics: Statistics, objective: OneStep, *, schedule: Schedule
) -> Model:
    """The model with the constant of least loss as its first value."""
    some = statistics.take(np.arange(min(_EXAMPLES, statistics.size)))
    constants = {f"{weight:g}": guidance.constant(weight) for weight in START_WEIGHTS}
    scores = score(some, constants, objective=objective, schedule=schedule, num_draws=2)
    best = float(min(constants, key=scores.mean))
    return dataclasses.replace(model, init_omega=min(best, 0.99 * model.omega_max))
