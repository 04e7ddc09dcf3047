"""Stage-wise guidance by a triangle (TV-CFG, arXiv 2509.22007)."""

import jax.numpy as jnp
from jaxtyping import Array

from lgd.guidance.hand_made import HandMade, check_finite
from lgd.machinery import arguments
from lgd.types import Condition


def stagewise_triangle(w: float, peak: float = 0.5) -> HandMade:
    """``omega = 2 w p / peak`` up to ``p = peak``, then ``2 w (1 - p) / (1 - peak)``.

    p = 1 - t at the start of the step; the mean over p is w (arXiv 2509.22007, as reviews state it;
    peaks of 0.4 to 0.6 are equally good there). w = 0: no guidance. Raises ValueError unless
    0 < peak < 1.
    """
    check_finite(w=w)
    if not 0.0 < arguments.finite("peak", peak) < 1.0:
        raise arguments.wrong("peak", "a number between 0 and 1", peak)

    def formula(s: Array, t: Array, c: Condition) -> Array:
        p = 1.0 - t
        return 2.0 * w * jnp.where(p < peak, p / peak, t / (1.0 - peak))

    return HandMade("stagewise_triangle", (("w", w), ("peak", peak)), formula)
