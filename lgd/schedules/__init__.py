"""Noise schedules ``alpha(t), sigma(t), logsnr(t)`` and the time grids that samplers walk.

A schedule is the forward process ``x_t = alpha(t) x0 + sigma(t) eps`` on t in [0, 1], where 0 is
data. Values and derivatives of alpha and sigma are finite on the closed interval; logsnr is
infinite where alpha or sigma vanishes. Networks therefore take `clipped_logsnr`, whose gradient is
finite everywhere.
"""

from lgd.schedules.continuous import (
    BY_NAME,
    EDM,
    LOGSNR_LIMIT,
    Cosine,
    LinearVP,
    RectifiedFlow,
    clipped_logsnr,
    cosine,
    edm,
    linear_vp,
    rates,
    rectified_flow,
)
from lgd.schedules.discrete import Discrete, discrete, from_alphas_cumprod, time_of, timestep
from lgd.schedules.grids import edm_times, logsnr_times, uniform_times

__all__ = [
    "BY_NAME",
    "EDM",
    "LOGSNR_LIMIT",
    "Cosine",
    "Discrete",
    "LinearVP",
    "RectifiedFlow",
    "clipped_logsnr",
    "cosine",
    "discrete",
    "edm",
    "edm_times",
    "from_alphas_cumprod",
    "linear_vp",
    "logsnr_times",
    "rates",
    "rectified_flow",
    "time_of",
    "timestep",
    "uniform_times",
]
