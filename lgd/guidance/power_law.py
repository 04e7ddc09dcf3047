"""Power-law guidance (arXiv 2502.07849): a weight that grows with the size of Delta."""

import dataclasses

from lgd.diffusion import Kind
from lgd.guidance.of_pair import B, Weighted, X, like, size
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Scalar


@rule
class PowerLaw(Weighted):
    """`Cfg` of ``omega |score_c - score_u|^power`` (as reviews state the paper).

    omega: 0: no guidance. power: 0.9 in the paper; 0: `Cfg`. The norm depends on the number of
    entries. kind: the space, that of the paper; others ask for another omega.
    """

    power: Scalar = 0.9
    kind: Kind | None = dataclasses.field(default="score", kw_only=True)

    def _check(self) -> None:
        arguments.finite("power", self.power, low=0.0)

    def weight(self, cond: X, uncond: X, omega: B) -> B:
        """``omega |P_c - P_u|^power``."""
        (power,) = like(cond, self.power)
        return omega * size(cond - uncond) ** power
