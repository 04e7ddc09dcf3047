"""Conversions between kinds of prediction, through one hub: every conversion goes through x0."""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import schedules
from lgd.types import Schedule

Kind = Literal["x0", "eps", "v", "velocity", "score"]


KINDS: tuple[str, ...] = get_args(Kind)


_SMALLEST_SIGMA = 1e-6  # floor of sigma where a conversion divides by it


def expand(
    per_example: Float[Array, " b"], like: Float[Array, "b *dims"]
) -> Float[Array, "b *ones"]:
    """Append axes of length 1, so that a value per example broadcasts over the data axes."""
    return per_example.reshape(per_example.shape + (1,) * (like.ndim - 1))


def to_x0(
    prediction: Float[Array, "b *dims"],
    x_t: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    schedule: Schedule,
    kind: Kind,
) -> Float[Array, "b *dims"]:
    """The x0 that a prediction of the given kind means.

    ``eps``: noise; ``score = -eps / sigma``; ``v = alpha eps - sigma x0`` (Salimans & Ho, 2022);
    ``velocity = alpha' x0 + sigma' eps`` (flow matching). eps and score say nothing of x0 where
    alpha = 0, which is NaN there; see `latest_time`.

    Args:
      prediction: output of a model (b, *dims).
      x_t: the noised data (b, *dims).
      t: times (b,) in [0, 1].
      schedule: the forward process.
      kind: "x0", "eps", "v", "velocity" or "score".

    Raises:
      ValueError: for another kind.
    """
    alpha, sigma = (expand(f(t), x_t) for f in (schedule.alpha, schedule.sigma))
    if kind == "x0":
        return prediction
    if kind == "eps":
        return (x_t - sigma * prediction) / jnp.where(alpha == 0.0, jnp.nan, alpha)
    if kind == "score":
        return (x_t + sigma**2 * prediction) / jnp.where(alpha == 0.0, jnp.nan, alpha)
    if kind == "v":
        return (alpha * x_t - sigma * prediction) / (alpha**2 + sigma**2)
    if kind == "velocity":
        alpha_rate, sigma_rate = (expand(r, x_t) for r in schedules.rates(schedule, t))
        wronskian = sigma_rate * alpha - sigma * alpha_rate
        at_data = wronskian == 0.0  # linear VP at t = 0, where x_t is alpha x0
        numerator = jnp.where(at_data, x_t, sigma_rate * x_t - sigma * prediction)
        return numerator / jnp.where(at_data, alpha, wronskian)
    raise ValueError(f"expected kind in {KINDS}, got {kind!r}")


def from_x0(
    x0: Float[Array, "b *dims"],
    x_t: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    schedule: Schedule,
    kind: Kind,
) -> Float[Array, "b *dims"]:
    """The prediction of the given kind that means x0; the inverse of `to_x0`.

    ``eps = (x_t - alpha x0) / sigma``, with sigma floored at 1e-6.

    Args:
      x0: clean data, or an estimate (b, *dims).
      x_t: the noised data (b, *dims).
      t: times (b,) in [0, 1].
      schedule: the forward process.
      kind: "x0", "eps", "v", "velocity" or "score".

    Raises:
      ValueError: for another kind.
    """
    if kind == "x0":
        return x0
    alpha, sigma = (expand(f(t), x_t) for f in (schedule.alpha, schedule.sigma))
    safe_sigma = jnp.maximum(sigma, _SMALLEST_SIGMA)
    eps = (x_t - alpha * x0) / safe_sigma
    if kind == "eps":
        return eps
    if kind == "score":
        return -eps / safe_sigma
    if kind == "v":
        return alpha * eps - sigma * x0
    if kind == "velocity":
        alpha_rate, sigma_rate = (expand(r, x_t) for r in schedules.rates(schedule, t))
        return alpha_rate * x0 + sigma_rate * eps
    raise ValueError(f"expected kind in {KINDS}, got {kind!r}")
