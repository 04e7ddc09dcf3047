"""Adaptive Guidance (arXiv 2312.12487): none once the predictions agree."""

import dataclasses

import jax.numpy as jnp

from lgd.diffusion import Kind, denoise_pair
from lgd.guidance.mixing import mix
from lgd.guidance.of_pair import B, InSpace, X, inner, like, size
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, Scalar, Step


@rule
class AdaptiveCfg(InSpace):
    """`Cfg` until the cosine of P_c and P_u is above a threshold, and no guidance from then on.

    As reviews state the paper, which has 0.991; a sample whose predictions agree once is guided no
    more, from that step on. omega = 0: no guidance; threshold = 1: `Cfg`. kind: the space; in that
    of eps predictions agree from the start. Both halves are computed all the same.
    """

    threshold: Scalar = 0.991
    kind: Kind | None = dataclasses.field(default="x0", kw_only=True)

    def _check(self) -> None:
        arguments.finite("threshold", self.threshold, low=-1.0, high=1.0)

    def init(self, x: X, c: Condition) -> B:
        """1: every sample is guided."""
        return jnp.ones(len(x), x.dtype)

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: B,
        x_t: X,
        *,
        step: Step,
        t: B,
        c: Condition,
    ) -> tuple[Prediction, B]:
        """The prediction at x_t, and whether each sample is guided further, 1 or 0."""
        pair = denoise_pair(denoiser, params, x_t, t=t, c=c)
        cond, uncond = self._own(denoiser, x_t, t, *pair)
        (threshold,) = like(cond, self.threshold)
        cosine = jnp.clip(inner(cond, uncond) / (size(cond) * size(uncond)), -1.0, 1.0)
        agrees = (cosine > threshold) & (t == step.t)  # asked at the first stage of a step
        guided = jnp.where(agrees, 0.0, state).astype(state.dtype)
        return Prediction(mix(*pair, guided * step.inputs.astype(x_t.dtype))), guided
