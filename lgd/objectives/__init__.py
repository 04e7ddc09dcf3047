"""The objectives that teach omega. Only this folder knows the algorithms of the paper.

Every objective is a frozen dataclass of settings, called as::

    loss, info = objective(key, omega_fn, denoiser, denoiser_params, batch)

and differentiable in whatever omega_fn closes over; the denoiser is frozen. An objective answers
for itself: the support of (s, t), the groups it needs, the model it suits, what it prepares once.
The one-step objectives (`OneStep`) go rows -> Gram matrix -> loss and call the denoiser without
gradients; the trajectory objective differentiates through K unrolled steps.
"""

from lgd.objectives.consistency import (
    ConditionalMarginalConsistency,
    MarginalConsistency,
    SelfConsistency,
    l2,
)
from lgd.objectives.objective import Objective
from lgd.objectives.one_step import Energy, Members, OneStep, StepConsistency
from lgd.objectives.rows import (
    FrozenRows,
    Rows,
    draw_frozen_rows,
    draw_rows,
    error_forms,
    gram_loss,
    step_coefficients,
    step_forms,
)
from lgd.objectives.score_matching import GuidedScoreMatching
from lgd.objectives.times import GridLaw, StepLaw, TimeLaw, UniformTimes
from lgd.objectives.trajectory import Trajectory
from lgd.objectives.weights import member_weights
from lgd.types import Batch

__all__ = [
    "Batch",
    "ConditionalMarginalConsistency",
    "Energy",
    "FrozenRows",
    "GridLaw",
    "GuidedScoreMatching",
    "MarginalConsistency",
    "Members",
    "Objective",
    "OneStep",
    "Rows",
    "SelfConsistency",
    "StepConsistency",
    "StepLaw",
    "TimeLaw",
    "Trajectory",
    "UniformTimes",
    "draw_frozen_rows",
    "draw_rows",
    "error_forms",
    "gram_loss",
    "l2",
    "member_weights",
    "step_coefficients",
    "step_forms",
]
