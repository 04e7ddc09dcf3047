"""Adaptive projected guidance (APG; Sadat et al., 2024, arXiv 2410.02416), on x0-predictions."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.diffusion import denoise_pair, expand
from lgd.guidance.hand_made import checked_bound
from lgd.guidance.rules import Cfg, rule
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, PyTree, Rule, Scalar, Step

X = Float[Array, "b *dims"]


@rule
class Apg:
    """Guidance with momentum, a bounded norm, and less of its part along the prediction.

    With the formulas ::

        m = Delta + beta m_last               momentum of Delta = cond - uncond, from 0
        g = min(1, radius / |m|) m
        x0_hat = cond + omega (g - (1 - eta) <g, cond> cond / |cond|^2)

    omega: as in `Cfg`, of one direction and known before sampling; 0: cond. eta: what is kept of
    the part along cond. radius: largest |g|. momentum: beta, below 0 as in the paper. eta = 1,
    momentum = 0 and an infinite radius: `Cfg`. The paper has eta 0, beta -0.5, radius 2.5 to 15.
    """

    omega: Any
    eta: Scalar = 0.0
    radius: Scalar = jnp.inf
    momentum: Scalar = -0.5

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        if self.omega is not None:
            Cfg(self.omega)
        arguments.finite("eta", self.eta)
        arguments.finite("momentum", self.momentum)
        radius = checked_bound("radius", self.radius)
        if not isinstance(radius, jax.core.Tracer) and not radius > 0.0:
            raise arguments.wrong("radius", "a number above 0", radius)

    def calls(self, num_directions: int) -> int:
        """Two network rows for each sample and call."""
        return 2

    def prepare(
        self, denoiser: Denoiser, times: Float[Array, " n"], c: Condition
    ) -> tuple[Rule, PyTree]:
        """The rule without its weights, and these for every step."""
        _, omegas = Cfg(self.omega).prepare(denoiser, times, c)
        if omegas is None or omegas.ndim != 2:
            raise ValueError("expected omega of (s, t, c), (b,), for APG, got another")
        return Apg(None, self.eta, self.radius, self.momentum), omegas

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
        t: Float[Array, " b"],
        c: Condition,
    ) -> tuple[Prediction, X]:
        """The guided prediction at x_t, and the momentum after it."""
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
        eta, radius, momentum = (
            jnp.asarray(value, cond.dtype) for value in (self.eta, self.radius, self.momentum)
        )
        moved = cond - uncond + momentum * state
        size = jnp.sqrt(_product(moved, moved))
        bounded = expand(jnp.minimum(1.0, radius / jnp.maximum(size, 1e-12)), moved) * moved
        along = _product(bounded, cond) / jnp.maximum(_product(cond, cond), 1e-12)
        guided = bounded - (1.0 - eta) * expand(along, cond) * cond
        return Prediction(cond + expand(step.inputs.astype(cond.dtype), cond) * guided), moved


def _product(x: X, y: X) -> Float[Array, " b"]:
    """Inner products, in float32, in the dtype of x."""
    flat = [v.reshape(len(v), -1).astype(jnp.float32) for v in (x, y)]
    return jnp.sum(flat[0] * flat[1], axis=-1).astype(x.dtype)
