"""beta-CFG (arXiv 2502.10574): a scale shaped like a Beta density, over the size of Delta."""

import math

import jax.numpy as jnp
from jaxtyping import Array

from lgd.guidance.hand_made import HandMade, check_finite
from lgd.guidance.of_pair import B, Weighted, X, like, size
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Condition, Scalar


def beta_density(cfg_scale: float, a: float = 2.0, b: float = 2.0) -> HandMade:
    """``omega = cfg_scale Beta(p; a, b) - 1``, with the density of the Beta law at p = 1 - t.

    The mean scale is cfg_scale; for a, b > 1 both ends are unconditional (arXiv 2502.10574 with
    gamma 0, as reviews state it; there a = b = 2, or 3 for scales of 5 and more). Raises ValueError
    unless a, b >= 1.
    """
    check_finite(cfg_scale=cfg_scale)
    arguments.finite("a", a, low=1.0)
    arguments.finite("b", b, low=1.0)
    factor = cfg_scale * math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))

    def formula(s: Array, t: Array, c: Condition) -> Array:
        return factor * (1.0 - t) ** (a - 1.0) * jnp.maximum(t, 0.0) ** (b - 1.0) - 1.0

    return HandMade("beta_density", (("cfg_scale", cfg_scale), ("a", a), ("b", b)), formula)


@rule
class BetaCfg(Weighted):
    """`Cfg` of ``(1 + omega) / |P_c - P_u|^power - 1`` (beta-CFG, arXiv 2502.10574).

    omega: of the paper, `beta_density`; -1: unconditional. power: gamma of the paper, 1 there; 0:
    `Cfg`. The scale has the units of the norm to that power, and depends on the number of entries.
    kind: the space, None: that of the network.
    """

    power: Scalar = 1.0

    def _check(self) -> None:
        arguments.finite("power", self.power, low=0.0)

    def weight(self, cond: X, uncond: X, omega: B) -> B:
        """``(1 + omega) / |P_c - P_u|^power - 1``."""
        (power,) = like(cond, self.power)
        return (1.0 + omega) * size(cond - uncond) ** -power - 1.0
