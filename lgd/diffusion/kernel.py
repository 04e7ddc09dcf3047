"""Noising, and the churned bridge kernel."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.diffusion.kinds import expand
from lgd.types import PRNGKey, Scalar, Schedule


def add_noise(
    key: PRNGKey, x0: Float[Array, "b *dims"], *, t: Float[Array, " b"], schedule: Schedule
) -> Float[Array, "b *dims"]:
    """Draw ``x_t ~ N(alpha(t) x0, sigma(t)^2 I)``."""
    eps = jax.random.normal(key, x0.shape, x0.dtype)
    return noised(x0, eps, t=t, schedule=schedule)


def noised(
    x0: Float[Array, "b *dims"],
    eps: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    schedule: Schedule,
) -> Float[Array, "b *dims"]:
    """``x_t = alpha(t) x0 + sigma(t) eps``."""
    return expand(schedule.alpha(t), x0) * x0 + expand(schedule.sigma(t), x0) * eps


class BridgeCoefficients(NamedTuple):
    """``x_s = x0 * x0_hat + x_t * x_t + noise * z``; each (b,)."""

    x0: Float[Array, " b"]
    x_t: Float[Array, " b"]
    noise: Float[Array, " b"]


def bridge_coefficients(
    t: Float[Array, " b"], s: Float[Array, " b"], *, schedule: Schedule, churn: Scalar
) -> BridgeCoefficients:
    """Coefficients of p(x_s | x_t, x0_hat) at churn e in [0, 1] (paper, Eq. 2 and 23, corrected).

    With ``r = alpha_t sigma_s / (alpha_s sigma_t)`` and ``k = 1 - e^2 (1 - r)``::

        x_s = alpha_s x0_hat + (sigma_s/sigma_t) k (x_t - alpha_t x0_hat) + sigma_s sqrt(1 - k^2) z

    e = 0 is deterministic DDIM, e = 1 the DDPM posterior. Everything is written in 1 - r, so that
    small steps keep their digits and the derivative in e is finite at e = 0::

        x0: alpha_s (1 - r) (1 + e^2 r)     noise: sigma_s e sqrt((1 - r) (1 + k))
    """
    alpha_t, sigma_t = schedule.alpha(t), schedule.sigma(t)
    alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
    one_minus_r = (alpha_s * sigma_t - alpha_t * sigma_s) / (alpha_s * sigma_t)
    churn_sq = jnp.square(jnp.asarray(churn, t.dtype))
    k = 1.0 - churn_sq * one_minus_r
    return BridgeCoefficients(
        x0=alpha_s * one_minus_r * (1.0 + churn_sq * (1.0 - one_minus_r)),
        x_t=sigma_s / sigma_t * k,
        noise=sigma_s * jnp.asarray(churn, t.dtype) * jnp.sqrt(one_minus_r * (1.0 + k)),
    )


def bridge_mean(
    scale: BridgeCoefficients, x_t: Float[Array, "b *dims"], x0_hat: Float[Array, "b *dims"]
) -> Float[Array, "b *dims"]:
    """Mean of p(x_s | x_t, x0_hat): ``scale.x0 x0_hat + scale.x_t x_t``."""
    return expand(scale.x0, x_t) * x0_hat + expand(scale.x_t, x_t) * x_t


def bridge_step(
    key: PRNGKey,
    x_t: Float[Array, "b *dims"],
    x0_hat: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    s: Float[Array, " b"],
    schedule: Schedule,
    churn: Scalar,
) -> Float[Array, "b *dims"]:
    """Draw x_s from the bridge kernel p(x_s | x_t, x0_hat) of `bridge_coefficients`.

    Args:
      key: source of the noise.
      x_t: where the step starts (b, *dims).
      x0_hat: the guided prediction (b, *dims).
      t: times (b,) that the step comes from.
      s: times (b,) that it goes to, 0 <= s < t <= 1.
      schedule: the forward process.
      churn: 0 deterministic (DDIM), 1 the posterior of DDPM.
    """
    z = jax.random.normal(key, x_t.shape, x_t.dtype)
    scale = bridge_coefficients(t, s, schedule=schedule, churn=churn)
    return bridge_mean(scale, x_t, x0_hat) + expand(scale.noise, x_t) * z
