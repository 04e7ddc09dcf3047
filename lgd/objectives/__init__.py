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
    TimeLaw,
    l2,
)
from lgd.objectives.rows import (
    Rows,
    draw_rows,
    gram_loss,
    particle_coefficients,
    repeat,
)
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
    "GuidedScoreMatching",
    "MarginalConsistency",
    "Objective",
    "Rows",
    "SelfConsistency",
    "TimeLaw",
    "Trajectory",
    "draw_rows",
    "gram_loss",
    "l2",
    "particle_coefficients",
    "repeat",
]
