"""Guidance: score mixing, schedules written by hand, and rules.

A schedule is a function ``omega(*, s, t, c) -> (b,)`` of the times that a step goes to and from,
each (b,), and of the condition; a rule makes a guided prediction of it, or of more. omega = 0 is
plain conditional sampling, omega = -1 unconditional sampling; tools that speak of a "CFG scale"
mean ``cfg_scale = 1 + omega``.
"""

from typing import Any

from lgd.guidance.apg import Apg
from lgd.guidance.clipping import Clipped, DynamicThreshold
from lgd.guidance.families import FAMILIES, Family, Field
from lgd.guidance.hand_made import (
    HandMade,
    clamp_cosine,
    clamp_linear,
    constant,
    constant_directions,
    cosine,
    limited_interval,
    limited_interval_per_class,
    linear,
    logsnr_interval,
    power_cosine,
)
from lgd.guidance.mixing import PAIR_FEATURES, mix, on_grid, pair_features, takes_features
from lgd.guidance.rules import Cfg, as_rule, mixed, rule

__all__ = [
    "FAMILIES",
    "PAIR_FEATURES",
    "Apg",
    "Cfg",
    "Clipped",
    "DynamicThreshold",
    "Family",
    "Field",
    "HandMade",
    "as_rule",
    "clamp_cosine",
    "clamp_linear",
    "constant",
    "constant_directions",
    "cosine",
    "limited_interval",
    "limited_interval_per_class",
    "linear",
    "logsnr_interval",
    "mix",
    "mixed",
    "on_grid",
    "pair_features",
    "power_cosine",
    "rule",
    "takes_features",
]


def __getattr__(name: str) -> Any:
    """The maker of any hand-made family, by its name in `FAMILIES`."""
    if name in FAMILIES:
        return FAMILIES[name].make
    raise AttributeError(f"module 'lgd.guidance' has no attribute {name!r}")
