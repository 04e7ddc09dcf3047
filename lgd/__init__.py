"""Learned guidance for diffusion models, in JAX.

Modules follow the method: `schedules`, `diffusion`, `guidance`, `omega`, `sampler`, `discrepancy`,
`gram`, `objectives`, `rewards`, `training`, `learn`, `evaluation`, `plots`; models in `denoisers`.
"""

from lgd import (
    denoisers,
    diffusion,
    discrepancy,
    gram,
    guidance,
    objectives,
    omega,
    rewards,
    sampler,
    schedules,
    training,
)
from lgd.learn import Guidance, learn_guidance

__version__ = "0.1.0"

__all__ = [
    "Guidance",
    "denoisers",
    "diffusion",
    "discrepancy",
    "gram",
    "guidance",
    "learn_guidance",
    "objectives",
    "omega",
    "rewards",
    "sampler",
    "schedules",
    "training",
]
