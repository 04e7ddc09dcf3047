"""Tangential damping CFG (TCFG, arXiv 2503.18137)."""

import jax.numpy as jnp

from lgd.guidance.of_pair import B, Combined, X, inner
from lgd.guidance.rules import rule


@rule
class Tcfg(Combined):
    """``P = P_c + omega (P_c - u)``, u the part of P_u that it has in common with P_c.

    u is P_u projected on the leading right-singular vector of the two rows [P_c; P_u]. With (a, b)
    the leading unit eigenvector of their Gram matrix, ``u = b (a P_c + b P_u)``, where a and b are
    cosine and sine of ``atan2(2 <c, u>, <c, c> - <u, u>) / 2``. omega = 0: no guidance; parallel
    predictions: `Cfg`. kind: the space, None: that of the network, as in the paper.
    """

    def coefficients(self, cond: X, uncond: X, omega: B) -> tuple[B, B]:
        """``(omega (1 - a b), omega (1 - a b - b^2))``."""
        across = 2.0 * inner(cond, uncond)
        apart = inner(cond, cond) - inner(uncond, uncond)
        known = jnp.square(across) + jnp.square(apart) > 1e-30  # else any vector leads
        angle = 0.5 * jnp.arctan2(jnp.where(known, across, 1.0), jnp.where(known, apart, 1.0))
        a, b = jnp.cos(angle), jnp.sin(angle)
        return omega * (1.0 - a * b), omega * (1.0 - a * b - b * b)
