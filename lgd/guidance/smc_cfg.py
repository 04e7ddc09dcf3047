"""SMC-CFG (arXiv 2603.03281): sliding-mode control of the difference of the predictions."""

import jax.numpy as jnp

from lgd.diffusion import denoise_pair, expand
from lgd.guidance.of_pair import B, InSpace, X, like
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, Scalar, Step


@rule
class SmcCfg(InSpace):
    """``P = P_u + (1 + omega) e'``, with the difference corrected entry by entry.

    With the formulas, e = P_c - P_u ::

        s = (e - q) + lam q        q: e' of the last step; at the first step e
        e' = e - gain sign(s)

    omega = 0 and gain = 0: no guidance; gain = 0: `Cfg`; omega = -1: unconditional. lam: 5 in the
    paper. gain: K of the paper, in units of P; 0.2 for flows, near 0.01 for models of eps. kind:
    the space, None: that of the network, as in the paper.
    """

    lam: Scalar = 5.0
    gain: Scalar = 0.2
    _moves_predictions = True

    def _check(self) -> None:
        arguments.finite("lam", self.lam)
        arguments.finite("gain", self.gain, low=0.0)

    def init(self, x: X, c: Condition) -> X:
        """No difference yet."""
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
        """The guided prediction at x_t, and the corrected difference."""
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
        own_cond, own_uncond = self._own(denoiser, x_t, t, cond, uncond)
        lam, gain = like(cond, self.lam, self.gain)
        error = own_cond - own_uncond
        last = jnp.where(step.is_first & (t == step.t)[0], error, state)
        correction = gain * jnp.sign(error - last + lam * last)
        omega = expand(step.inputs.astype(cond.dtype), cond)
        moved = self._shift(denoiser, -correction, x_t, t)
        x0 = cond + omega * (cond - uncond) + (1.0 + omega) * moved
        return Prediction(x0), error - correction
