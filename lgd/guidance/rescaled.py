"""Rescaled classifier-free guidance (Lin et al., 2023, arXiv 2305.08891, section 3.4)."""

import jax.numpy as jnp

from lgd.diffusion import expand
from lgd.guidance.of_pair import B, Combined, X, inner, like, share
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Scalar


@rule
class Rescaled(Combined):
    """`Cfg` whose standard deviation is drawn to that of the conditional prediction.

    ``P = f P_cfg`` with ``f = phi std(P_c) / std(P_cfg) + 1 - phi`` over the entries of a sample.
    phi: 0: `Cfg`; 1: the deviation of P_c; the paper has 0.7. omega = 0: no guidance. kind: the
    space, None: that of the network, as in the paper. A sample of one entry has no deviation, and
    is guided as by `Cfg`.
    """

    phi: Scalar = 0.7

    def _check(self) -> None:
        arguments.finite("phi", self.phi, low=0.0, high=1.0)

    def coefficients(self, cond: X, uncond: X, omega: B) -> tuple[B, B]:
        """``(f (1 + omega) - 1, f - 1)``."""
        (phi,) = like(cond, self.phi)
        base, moved = _centred(cond), _centred(cond - uncond)
        along = share(moved, base)
        rest, variance = moved - expand(along, base) * base, inner(base, base)
        across = inner(rest, rest) / jnp.maximum(variance, 1e-24)
        ratio = jnp.square(1.0 + omega * along) + jnp.square(omega) * across  # of the variances
        factor = phi * (1.0 / jnp.sqrt(jnp.maximum(ratio, 1e-12)) - 1.0)  # f - 1
        factor = jnp.where(variance > 1e-24, factor, 0.0)
        return (1.0 + factor) * omega + factor, factor


def _centred(x: X) -> X:
    """x without the mean of its entries."""
    return x - expand(jnp.mean(x.reshape(len(x), -1), axis=-1), x)
