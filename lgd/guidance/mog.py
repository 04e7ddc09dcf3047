"""MOG and Auto-MOG (arXiv 2603.11509): guidance that damps what is orthogonal to P_u."""

import jax.numpy as jnp

from lgd.diffusion import expand
from lgd.guidance.of_pair import B, Combined, X, like, share, size
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Scalar

_SMALLEST = 1e-3  # of a divisor of a part


@rule
class Mog(Combined):
    """``P = P_u + k n``, n with its parts along and across P_u divided by numbers of their own.

    With the formulas, delta = P_c - P_u ::

        n = delta / across + (1 / along - 1 / across) <P_u, delta> P_u / |P_u|^2
        k = 1 + omega

    omega = -1: unconditional; along = across = 1: `Cfg`. The paper, as its summary states it, has
    along 1 and across 5. kind: the space, None: that of the network.
    """

    along: Scalar = 1.0
    across: Scalar = 5.0

    def _check(self) -> None:
        arguments.finite("along", self.along, low=_SMALLEST)
        arguments.finite("across", self.across, low=_SMALLEST)

    def coefficients(self, cond: X, uncond: X, omega: B) -> tuple[B, B]:
        """``(k / across - 1, k (1 / along - 1 / across) <P_u, delta> / |P_u|^2)``."""
        along, across = like(cond, self.along, self.across)
        turn = (1.0 / along - 1.0 / across) * share(cond - uncond, uncond)
        k = self._strength(cond - uncond, uncond, omega, turn)
        return k / across - 1.0, k * turn

    def _strength(self, delta: X, uncond: X, omega: B, turn: B) -> B:
        return 1.0 + omega


@rule
class AutoMog(Mog):
    """`Mog` of ``k = clip((1 + omega) |P_u| / |n|, low, high)``: steps as long as P_u.

    1 + omega is gamma of the paper, which has 1, low 1 and high 20, or 15 for SD3. Without clipping
    ``|k n| = (1 + omega) |P_u|``.
    """

    low: Scalar = 1.0
    high: Scalar = 20.0

    def _check(self) -> None:
        super()._check()
        arguments.finite("low", self.low, low=0.0)
        arguments.finite("high", self.high, low=0.0)

    def _strength(self, delta: X, uncond: X, omega: B, turn: B) -> B:
        across, low, high = like(delta, self.across, self.low, self.high)
        n = delta / across + expand(turn, uncond) * uncond
        return jnp.clip((1.0 + omega) * size(uncond) / size(n), low, high)
