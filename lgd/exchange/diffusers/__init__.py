"""Diffusers' pipelines as denoisers, and learned guidance in diffusers' pipelines.

Needs the extra ``lgd[diffusers]``. `load` brings a pipeline in, `schedulers` translates noise
schedules and time grids, `export` and `guider` bring learned weights into pipelines.
"""

from typing import Any

from lgd.exchange.diffusers import tiny
from lgd.exchange.diffusers.export import (
    MovingScale,
    Scale,
    cfg_scales,
    guidance_argument,
    guidance_callback,
)
from lgd.exchange.diffusers.load import Model, load
from lgd.exchange.diffusers.schedulers import (
    SchedulerError,
    kind_of,
    schedule_of,
    times_of,
    timestep_of,
)
from lgd.exchange.extras import required

__all__ = [
    "LearnedGuidance",
    "Model",
    "MovingScale",
    "Scale",
    "SchedulerError",
    "cfg_scales",
    "guidance_argument",
    "guidance_callback",
    "kind_of",
    "load",
    "schedule_of",
    "times_of",
    "timestep_of",
    "tiny",
]


def __getattr__(name: str) -> Any:
    """`LearnedGuidance`, a class of diffusers, which is imported with it."""
    if name != "LearnedGuidance":
        raise AttributeError(f"module 'lgd.exchange.diffusers' has no attribute {name!r}")
    required("diffusers", "diffusers")
    from lgd.exchange.diffusers import guider

    return guider.LearnedGuidance
