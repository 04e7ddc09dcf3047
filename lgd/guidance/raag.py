"""RAAG (arXiv 2508.03442; MAMBO-G in diffusers): less weight where Delta is large beside P_u."""

import jax.numpy as jnp

from lgd.guidance.of_pair import B, Weighted, X, like, size
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Scalar


@rule
class Raag(Weighted):
    """`Cfg` of ``omega exp(-rate |P_c - P_u| / |P_u|)``.

    omega: 0: no guidance; a scale of 10 in diffusers is 9, of 18 in the paper 17. rate: 8 there, 12
    in the paper; 0: `Cfg`. kind: the space, None: that of the network, as in the paper.
    """

    rate: Scalar = 8.0

    def _check(self) -> None:
        arguments.finite("rate", self.rate, low=0.0)

    def weight(self, cond: X, uncond: X, omega: B) -> B:
        """``omega exp(-rate |P_c - P_u| / |P_u|)``."""
        (rate,) = like(cond, self.rate)
        return omega * jnp.exp(-rate * size(cond - uncond) / size(uncond))
