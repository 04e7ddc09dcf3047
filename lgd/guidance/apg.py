"""Adaptive projected guidance (APG; Sadat et al., 2024, arXiv 2410.02416), on x0-predictions."""

import jax
import jax.numpy as jnp

from lgd.diffusion import denoise_pair, expand
from lgd.guidance.hand_made import checked_bound
from lgd.guidance.of_pair import B, OfPair, X, inner, like, size
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, Scalar, Step


@rule
class Apg(OfPair):
    """Guidance with momentum, a bounded norm, and less of its part along the prediction.

    With the formulas ::

        m = Delta + beta m_last               momentum of Delta = cond - uncond, from 0
        g = min(1, radius / |m|) m
        x0_hat = cond + omega (g - (1 - eta) <g, cond> cond / |cond|^2)

    omega: as in `Cfg`, of one direction and known before sampling; 0: cond. eta: what is kept of
    the part along cond. radius: largest |g|. momentum: beta, below 0 as in the paper. eta = 1,
    momentum = 0 and an infinite radius: `Cfg`. The paper has eta 0, beta -0.5, radius 2.5 to 15.
    """

    eta: Scalar = 0.0
    radius: Scalar = jnp.inf
    momentum: Scalar = -0.5

    def _check(self) -> None:
        arguments.finite("eta", self.eta)
        arguments.finite("momentum", self.momentum)
        radius = checked_bound("radius", self.radius)
        if not isinstance(radius, jax.core.Tracer) and not radius > 0.0:
            raise arguments.wrong("radius", "a number above 0", radius)

    def init(self, x: X, c: Condition) -> X:
        """No momentum yet."""
        return jnp.zeros_like(x)

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: X,
        x_t: X,
        *,
        step: Step,
        t: B,
        c: Condition,
    ) -> tuple[Prediction, X]:
        """The guided prediction at x_t, and the momentum after it."""
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
        eta, radius, momentum = like(cond, self.eta, self.radius, self.momentum)
        moved = cond - uncond + momentum * state
        bounded = expand(jnp.minimum(1.0, radius / size(moved)), moved) * moved
        along = inner(bounded, cond) / jnp.maximum(inner(cond, cond), 1e-12)
        guided = bounded - (1.0 - eta) * expand(along, cond) * cond
        return Prediction(cond + expand(step.inputs.astype(cond.dtype), cond) * guided), moved
