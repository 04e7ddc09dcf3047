"""CFG-Zero* (arXiv 2503.18886): the unconditional velocity at its best scale, and a still start."""

import dataclasses

import jax.numpy as jnp

from lgd.diffusion import Kind
from lgd.guidance.of_pair import B, Combined, X, share
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, Step


@rule
class CfgZero(Combined):
    """``v = v_c + omega (v_c - scale v_u)`` with ``scale = <v_c, v_u> / |v_u|^2``.

    In x0, for rectified flow, ``cond + omega (cond - scale uncond - (1 - scale) x_t)``. In the
    first ``zero_steps`` steps v = 0, which there is x0_hat = x_t; the paper has the first, or 4% of
    them. omega = 0 and zero_steps = 0: no guidance. kind: the space, that of the paper.
    """

    zero_steps: int = 1
    kind: Kind | None = dataclasses.field(default="velocity", kw_only=True)

    def _check(self) -> None:
        arguments.whole("zero_steps", self.zero_steps, low=0)

    def coefficients(self, cond: X, uncond: X, omega: B) -> tuple[B, B]:
        """``(omega, omega (1 - scale))``."""
        return omega, omega * (1.0 - share(cond, uncond))

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: None,
        x_t: X,
        *,
        step: Step,
        t: B,
        c: Condition,
    ) -> tuple[Prediction, None]:
        """The guided prediction at x_t, or the x0 of velocity 0."""
        prediction, _ = super().apply(denoiser, params, state, x_t, step=step, t=t, c=c)
        if not self.zero_steps:
            return prediction, None
        still = step.index < self.zero_steps
        return Prediction(jnp.where(still, self._origin(denoiser, x_t, t), prediction.x0)), None
