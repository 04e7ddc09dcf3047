"""A weight that fades as a sample shows its condition: guidance that stays a gradient."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from lgd.diffusion import denoise_pair
from lgd.guidance.mixing import mix
from lgd.guidance.of_pair import B, OfPair, X
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, Step


@rule
class EvidenceScale(OfPair):
    """`Cfg` of ``omega (1 - q(c | x_t))``, q the posterior probability of the condition.

    With L = log q the guided score is ``score_c + grad omega (L - exp L)``: a gradient, as that of
    any weight which is a function of L and t alone, where one of |Delta| is none. omega = 0: no
    guidance.

    posterior: ``(params, x_t, t, c) -> (b,)``, with the parameters of the denoiser; None: that of
    the denoiser, which has a method ``posterior(params, x_t, *, t, c)`` (`GaussianMixture` does).

    Raises:
      ValueError: for what is no function, and for a denoiser without a posterior if None.
    """

    posterior: Callable[..., Float[Array, " b"]] | None = None

    def _check(self) -> None:
        if self.posterior is not None and not callable(self.posterior):
            raise arguments.wrong("posterior", "a function of (params, x_t, t, c)", self.posterior)

    def _ready(self, denoiser: Denoiser, times: Float[Array, " n"]) -> Any:
        if self.posterior is None:
            what = "one with a method posterior, or posterior= of the rule"
            arguments.having("denoiser", denoiser, ("posterior",), what)
        return super()._ready(denoiser, times)

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
        if self.posterior is None:
            shown = denoiser.posterior(params, x_t, t=t, c=c)  # type: ignore[attr-defined]
        else:
            shown = self.posterior(params, x_t, t, c)
        weight = step.inputs.astype(x_t.dtype) * (1.0 - shown.astype(x_t.dtype))
        return Prediction(mix(*denoise_pair(denoiser, params, x_t, t=t, c=c), weight)), None
