"""Rectified-CFG++ (arXiv 2510.07631): guidance asked for part of a conditional step ahead."""

import dataclasses

import jax.numpy as jnp

from lgd.diffusion import Kind, bridge_coefficients, bridge_mean, denoise_pair, expand
from lgd.guidance.of_pair import B, InSpace, X, like
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, Scalar, Step


@rule
class RectifiedCfgPlusPlus(InSpace):
    """``v = v_c(x_t, t) + omega (v_c - v_u)(x', t')``, x' a conditional step from x_t to t'.

    ``t' = t - fraction (t - s)``; three calls of the network. omega: of the paper, as reviews state
    it, ``lam (1 - t)^gamma``; 0: no guidance. fraction: 0.5 in the paper; 0: `Cfg` in one more
    call. kind: the space, that of the paper.

    Raises:
      ValueError: unless fraction is in [0, 1).
    """

    fraction: Scalar = 0.5
    _moves_predictions = True
    kind: Kind | None = dataclasses.field(default="velocity", kw_only=True)

    def _check(self) -> None:
        arguments.finite("fraction", self.fraction, low=0.0, high=0.999)

    def calls(self, num_directions: int) -> int:
        """Three network rows for each sample and call."""
        return 3

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
        """The guided prediction at x_t."""
        cond = denoiser.apply(params, x_t, t=t, c=c).astype(x_t.dtype)
        (fraction,) = like(x_t, self.fraction)
        ahead = t - fraction * jnp.minimum(step.t - step.s, t)
        is_step = ahead < t  # the kernel has none of length 0 from pure noise
        end = jnp.where(is_step, ahead, 0.5 * t)
        scale = bridge_coefficients(t, end, schedule=denoiser.schedule, churn=0.0)
        moved = bridge_mean(scale, x_t, cond)
        x = jnp.where(expand(t - ahead, x_t) > 0.0, moved, x_t)
        pair = self._own(denoiser, x, ahead, *denoise_pair(denoiser, params, x, t=ahead, c=c))
        omega = expand(step.inputs.astype(x_t.dtype), x_t)
        return Prediction(cond + omega * self._shift(denoiser, pair[0] - pair[1], x_t, t)), None
