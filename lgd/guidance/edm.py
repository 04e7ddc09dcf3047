"""Limited intervals with bounds in sigma, as users of EDM write them."""

import jax.numpy as jnp
from jaxtyping import Array

from lgd.guidance.hand_made import HandMade, check_finite, check_interval, check_schedule_value
from lgd.guidance.times import rounded_up
from lgd.types import Condition, Schedule


def sigma_interval(w: float, lo: float, hi: float, *, schedule: Schedule) -> HandMade:
    """``omega = w`` where lo < sigma <= hi, else 0; w = 0: no guidance.

    sigma is the noise over the signal, ``sigma(t) / alpha(t)``, which for EDM's schedule is its
    sigma(t); as in Kynkäänniemi et al. (2024, arXiv 2404.07724, Eq. 6) the lower end is left out.
    Raises ValueError unless lo < hi.
    """
    check_finite(w=w)
    check_interval(lo, hi, in_times=False)
    check_schedule_value(schedule)

    def formula(s: Array, t: Array, c: Condition) -> Array:
        sigma = jnp.exp(-0.5 * schedule.logsnr(t))
        above, upto = (rounded_up(bound).astype(sigma.dtype) for bound in (lo, hi))
        return jnp.where((sigma > above) & (sigma <= upto), w, 0.0).astype(t.dtype)

    values = (("w", w), ("lo", lo), ("hi", hi), ("schedule", schedule))
    return HandMade("sigma_interval", values, formula)
