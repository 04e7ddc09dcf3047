"""Where a fit starts: the best constant under the objective itself."""

from typing import TypeVar

import jax
import numpy as np

from lgd import guidance, omega
from lgd.gram.layout import Statistics
from lgd.gram.loss import example_conditions
from lgd.gram.score import score
from lgd.objectives import OneStep
from lgd.starts import START_WEIGHTS
from lgd.types import Params, Schedule

_EXAMPLES = 4096  # that constants are compared on

Model = TypeVar("Model", bound=omega.LearnedModel)


def started(
    model: Model, statistics: Statistics, objective: OneStep, *, schedule: Schedule, seed: int = 0
) -> tuple[Model, Params]:
    """A model, and parameters that equal the constant of least loss; for `fit` to start from.

    Args:
      model: what is to be learned.
      statistics: what it is to be learned from; constants are compared on some of the examples.
      objective: whose loss is compared.
      schedule: the forward process of the denoiser.
      seed: of the parameters, as in `fit`.

    Raises:
      StatisticsError: for statistics that do not fit the objective or the schedule.
    """
    some = statistics.take(np.arange(min(_EXAMPLES, statistics.size)))
    constants = {f"{weight:g}": guidance.constant(weight) for weight in START_WEIGHTS}
    scores = score(some, constants, objective=objective, schedule=schedule, num_draws=2)
    best = min(constants, key=scores.mean)
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return model.started(key, constants[best], example_conditions(statistics))
