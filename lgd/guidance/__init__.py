"""Score mixing, and guidance schedules written by hand.

A schedule is a function ``omega(*, s, t, c) -> (b,)`` of the times that a step goes to and from,
each (b,), and of the condition. omega = 0 is plain conditional sampling, omega = -1 unconditional
sampling; tools that speak of a "CFG scale" mean ``cfg_scale = 1 + omega``.
"""

from lgd.guidance.families import (
    clamp_cosine,
    clamp_linear,
    constant,
    cosine,
    limited_interval,
    limited_interval_per_class,
    linear,
    power_cosine,
)
from lgd.guidance.mixing import PAIR_FEATURES, mix, on_grid, pair_features, takes_features

__all__ = [
    "PAIR_FEATURES",
    "clamp_cosine",
    "clamp_linear",
    "constant",
    "cosine",
    "limited_interval",
    "limited_interval_per_class",
    "linear",
    "mix",
    "on_grid",
    "pair_features",
    "power_cosine",
    "takes_features",
]
