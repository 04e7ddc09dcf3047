"""Rules around a rule that keep the guided prediction in the range of the data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.diffusion import expand
from lgd.guidance.hand_made import checked_bound
from lgd.guidance.rules import as_rule, rule, skipping_of
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, PyTree, Rule, Scalar, Step

_SMALLEST = 1e-6  # of a range and of a quantile


@rule
class Clipped:
    """A rule whose guided x0_hat is clipped to [low, high] (static thresholding).

    inner: a rule, or anything that samplers take as guidance. Samplers of pixel models clip to the
    range of images, -1 to 1.
    """

    inner: Any
    low: Scalar = -1.0
    high: Scalar = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for what is no guidance, or unless low < high."""
        as_rule(self.inner)
        self._check_range()

    def _check_range(self) -> None:
        low, high = checked_bound("low", self.low), checked_bound("high", self.high)
        is_traced = any(isinstance(bound, jax.core.Tracer) for bound in (low, high))
        if not is_traced and not low < high:
            raise ValueError(f"expected low < high, got low {low} and high {high}")

    def calls(self, num_directions: int) -> int:
        """Network rows for each sample and call of the rule inside."""
        return as_rule(self.inner).calls(num_directions)

    def prepare(
        self, denoiser: Denoiser, times: Float[Array, " n"], c: Condition
    ) -> tuple[Rule, PyTree]:
        """The rule around the prepared one, and its inputs."""
        inner, inputs = as_rule(self.inner).prepare(denoiser, times, c)
        return self._around(inner), inputs

    def init(self, x: Float[Array, "b *dims"], c: Condition) -> PyTree:
        """State of the rule inside."""
        return as_rule(self.inner).init(x, c)

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: PyTree,
        x_t: Float[Array, "b *dims"],
        *,
        step: Step,
        t: Float[Array, " b"],
        c: Condition,
    ) -> tuple[Prediction, PyTree]:
        """The clipped prediction at x_t."""
        prediction, state = self.inner.apply(denoiser, params, state, x_t, step=step, t=t, c=c)
        return prediction._replace(x0=self.limited(prediction.x0)), state

    def skipping(self, inputs: PyTree, calls: np.ndarray) -> tuple[Rule, PyTree, float]:
        """The rule around one that leaves out calls where omega is 0."""
        inner, inputs, rows = skipping_of(self.inner, inputs, calls)
        return self._around(inner), inputs, rows

    def limited(self, x0: Float[Array, "b *dims"]) -> Float[Array, "b *dims"]:
        """``clip(x0, low, high)``."""
        return jnp.clip(x0, jnp.asarray(self.low, x0.dtype), jnp.asarray(self.high, x0.dtype))

    def _around(self, inner: Rule) -> "Clipped":
        return Clipped(inner, self.low, self.high)


@rule
class DynamicThreshold(Clipped):
    """A rule whose guided x0_hat is scaled back where its largest values leave [-1, 1].

    With q the given quantile of |x0_hat| over the data's axes and r = max(q, high), x0_hat becomes
    ``clip(x0_hat, -r, r) high / r`` (dynamic thresholding; Saharia et al., 2022, arXiv 2205.11487,
    section 2.3). low is not used.
    """

    quantile: Scalar = 0.995

    def _check_range(self) -> None:
        arguments.finite("high", self.high, low=_SMALLEST)
        arguments.finite("quantile", self.quantile, low=_SMALLEST, high=1.0)

    def limited(self, x0: Float[Array, "b *dims"]) -> Float[Array, "b *dims"]:
        """The scaled prediction."""
        sizes = jnp.abs(x0.reshape(len(x0), -1)).astype(jnp.float32)
        quantile, high = (jnp.asarray(v, sizes.dtype) for v in (self.quantile, self.high))
        reach = jnp.maximum(jnp.quantile(sizes, quantile, axis=1), high)
        bound = expand(jax.lax.stop_gradient(reach).astype(x0.dtype), x0)
        return jnp.clip(x0, -bound, bound) * (high.astype(x0.dtype) / bound)

    def _around(self, inner: Rule) -> "DynamicThreshold":
        return DynamicThreshold(inner, self.low, self.high, self.quantile)
