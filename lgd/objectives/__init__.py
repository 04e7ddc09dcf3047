"""The objectives that teach omega. Only this folder knows the paper's algorithm.

Every objective is a frozen dataclass of settings, called as::

    loss, info = objective(key, omega_fn, denoiser, denoiser_params, batch)

and differentiable in whatever omega_fn closes over; the denoiser is frozen. The one-step
objectives go rows -> Gram matrix -> loss and call the denoiser without gradients; the trajectory
objective differentiates through K unrolled steps.
"""

from lgd.objectives.one_step import (
    ConditionalMarginalConsistency,
    GuidedScoreMatching,
    MarginalConsistency,
    SelfConsistency,
    l2,
)
from lgd.objectives.rows import (
    FrozenRows,
    Rows,
    draw_frozen_rows,
    draw_rows,
    error_forms,
    gram_loss,
    repeat,
    step_coefficients,
    step_forms,
)
from lgd.objectives.times import GridLaw, StepLaw, TimeLaw, UniformTimes
from lgd.objectives.trajectory import Trajectory
from lgd.types import Batch

Objective = (
    SelfConsistency
    | ConditionalMarginalConsistency
    | MarginalConsistency
    | GuidedScoreMatching
    | Trajectory
)

__all__ = [
    "Batch",
    "ConditionalMarginalConsistency",
    "FrozenRows",
    "GridLaw",
    "GuidedScoreMatching",
    "MarginalConsistency",
    "Objective",
    "Rows",
    "SelfConsistency",
    "StepLaw",
    "TimeLaw",
    "Trajectory",
    "UniformTimes",
    "draw_frozen_rows",
    "draw_rows",
    "error_forms",
    "gram_loss",
    "l2",
    "repeat",
    "step_coefficients",
    "step_forms",
]
