"""Learned guidance for diffusion models, in JAX.

Modules follow the method: `schedules`, `diffusion`, `guidance`, `omega`, `sampler`, `discrepancy`,
`gram`, `objectives`, `rewards`, `training`, `learn`, `evaluation`, `plots`; models in `denoisers`;
many devices in `parallel`, many processes in `processes`.
"""

from lgd import (
    denoisers,
    diffusion,
    discrepancy,
    gram,
    guidance,
    objectives,
    omega,
    parallel,
    processes,
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
    "parallel",
    "processes",
    "rewards",
    "sampler",
    "schedules",
    "training",
]
