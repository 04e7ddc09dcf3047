"""Guidance away from the class that a sample is taken for, in the style of GFCG."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import encoders
from lgd.guidance.mixing import mix
from lgd.guidance.of_pair import B, OfPair, X
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, PyTree, Rule, Step


@rule
class GfcgStyle(OfPair):
    """``x0_hat = cond + w (cond - other)``, other the prediction of the likeliest wrong class.

    In the style of GFCG (arXiv 2411.15393),
    whose own scale is not known here: with q the probabilities that a classifier gives cond,
    ``w = omega (1 - q_c)``, 0 once class c is the likeliest. Two calls, one after the other.
    Conditions are integer labels. omega = 0: no guidance.

    classifier: x0 (b, *dims) to logits (b, n) of the labels 0 to n - 1.

    Raises:
      ValueError: for what is no function, or conditions that are no labels.
    """

    classifier: Callable[..., Float[Array, "b n"]]

    def _check(self) -> None:
        if isinstance(self.classifier, type) or not callable(self.classifier):
            raise arguments.wrong("classifier", "a function of x0 to logits", self.classifier)

    def prepare(
        self, denoiser: Denoiser, times: Float[Array, " n"], c: Condition
    ) -> tuple[Rule, PyTree]:
        """The rule without its weights, and these for every step."""
        encoders.check_labels(c, None)
        return super().prepare(denoiser, times, c)

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
        q = jax.nn.softmax(self.classifier(cond), axis=-1).astype(x_t.dtype)
        is_own = jax.nn.one_hot(c, q.shape[1], dtype=jnp.bool_)
        likeliest = jnp.argmax(jnp.where(is_own, -1.0, q), axis=-1).astype(c.dtype)
        other = denoiser.apply(params, x_t, t=t, c=likeliest).astype(x_t.dtype)
        of_own = jnp.sum(jnp.where(is_own, q, 0.0), axis=-1)
        wrong = jnp.argmax(q, axis=-1).astype(c.dtype) != c
        weight = step.inputs.astype(x_t.dtype) * (1.0 - of_own)
        return Prediction(mix(cond, other, jnp.where(wrong, weight, 0.0))), None
