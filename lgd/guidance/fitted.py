"""Fitted CFG (arXiv 2607.07665): the weight of a step that ends where small steps would."""

import jax.numpy as jnp
from jaxtyping import Array

from lgd.guidance.hand_made import HandMade, check_finite, check_schedule_value
from lgd.guidance.plus_plus import churn_value
from lgd.guidance.times import SMALLEST_LOG_RATIO, log_noise_ratio
from lgd.machinery import arguments
from lgd.types import Condition, Schedule


def fitted_cfg(w: float, churn: float = 0.0, *, schedule: Schedule) -> HandMade:
    """``omega = (k r - r^(1 + w)) / (1 - k r)``; at churn 0 ``(r - r^(1 + w)) / (1 - r)``.

    r is the noise over the signal at s over that at t and ``k = churn^2 r + 1 - churn^2`` that of
    the kernel (arXiv 2607.07665). It goes to w for small steps at churn 0 and is 0 at the last. It
    is the one weight whose step shrinks, by r^(1 + w) as the exact path does, a direction in which
    cond is 0 and uncond is ``x_t / alpha``. w = 0: no guidance at churn 0; w = -1: unconditional.
    Raises ValueError unless w >= -1 and churn is in [0, 1].

    >>> import lgd
    >>> weight = lgd.guidance.fitted_cfg(1.0, schedule=lgd.schedules.rectified_flow())
    >>> times = lgd.schedules.uniform_times(4)
    >>> [round(float(omega), 3) for omega in lgd.guidance.on_grid(weight, times, times[:1])[:, 0]]
    [0.0, 0.333, 0.333, 0.0]
    """
    check_finite(w=w)
    arguments.finite("w", w, low=-1.0)
    arguments.finite("churn", churn, low=0.0, high=1.0)
    check_schedule_value(schedule)

    def formula(s: Array, t: Array, c: Condition) -> Array:
        log_r = jnp.minimum(log_noise_ratio(s, t, schedule), -1e-6)
        r, churn_sq = jnp.exp(log_r), churn**2
        shrunk = jnp.expm1(w * log_r) / jnp.expm1(log_r)  # (1 - r^w) / (1 - r)
        omega = r * (shrunk - churn_sq) / (1.0 + churn_sq * r)
        return jnp.where((log_r > SMALLEST_LOG_RATIO) | (w == -1.0), omega, 0.0).astype(t.dtype)

    values = (("w", w), *churn_value(churn), ("schedule", schedule))
    return HandMade("fitted_cfg", values, formula)
