"""Noising, prediction conversions through one hub, and the churned bridge kernel.

Every conversion goes through x0: ``to_x0`` and ``from_x0`` are the only two maps.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd import conditions, schedules
from lgd.types import Condition, Denoiser, Params, PRNGKey, Scalar, Schedule

Kind = Literal["x0", "eps", "v", "velocity", "score"]
KINDS: tuple[str, ...] = get_args(Kind)

_SMALLEST_SCALE = 1e-6  # floor of alpha and sigma where a conversion divides by them


def expand(
    per_example: Float[Array, " b"], like: Float[Array, "b *dims"]
) -> Float[Array, "b *ones"]:
    """Append axes of length 1, so that a value per example broadcasts over the data axes."""
    return per_example.reshape(per_example.shape + (1,) * (like.ndim - 1))


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
    alpha = 0; alpha is floored at 1e-6 there. Raises ValueError for another kind.
    """
    alpha, sigma = (expand(f(t), x_t) for f in (schedule.alpha, schedule.sigma))
    if kind == "x0":
        return prediction
    if kind == "eps":
        return (x_t - sigma * prediction) / jnp.maximum(alpha, _SMALLEST_SCALE)
    if kind == "score":
        return (x_t + sigma**2 * prediction) / jnp.maximum(alpha, _SMALLEST_SCALE)
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

    ``eps = (x_t - alpha x0) / sigma``, with sigma floored at 1e-6. Raises ValueError for another
    kind.
    """
    if kind == "x0":
        return x0
    alpha, sigma = (expand(f(t), x_t) for f in (schedule.alpha, schedule.sigma))
    safe_sigma = jnp.maximum(sigma, _SMALLEST_SCALE)
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
    """Draw x_s from the bridge kernel of `bridge_coefficients`; times with 0 <= s < t <= 1."""
    z = jax.random.normal(key, x_t.shape, x_t.dtype)
    scale = bridge_coefficients(t, s, schedule=schedule, churn=churn)
    return bridge_mean(scale, x_t, x0_hat) + expand(scale.noise, x_t) * z


def denoise_pair(
    denoiser: Denoiser,
    params: Params,
    x_t: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    c: Condition,
    rows: Int[Array, " r"] | None = None,
) -> tuple[Float[Array, "b *dims"], Float[Array, "r *dims"]]:
    """``(cond, uncond)`` x0-predictions, in one call of b + r examples where the inputs allow it.

    They have the dtype of x_t, whatever that of the network.

    Args:
      denoiser: one with ``pair`` makes both halves itself.
      params: arrays of the denoiser.
      x_t: noised examples (b, *dims).
      t: times (b,) in [0, 1].
      c: conditions, leaves (b, ...).
      rows: the examples of which uncond is wanted, (r,); None: all of them.

    Raises:
      ValueError: for an unconditional input that is like c, but of another number of examples.
    """
    cond, uncond = _pair(denoiser, params, x_t, t=t, c=c, rows=rows)
    return cond.astype(x_t.dtype), uncond.astype(x_t.dtype)


def _pair(
    denoiser: Denoiser,
    params: Params,
    x_t: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    c: Condition,
    rows: Int[Array, " r"] | None,
) -> tuple[Float[Array, "b *dims"], Float[Array, "r *dims"]]:
    """`denoise_pair` in the dtype of the network."""
    pair = getattr(denoiser, "pair", None)
    if pair is not None:
        cond, uncond = pair(params, x_t, t=t, c=c)
        return cond, uncond if rows is None else uncond[rows]
    wanted = c if rows is None else conditions.take(c, rows)
    null = denoiser.null(wanted)
    some = (x_t, t) if rows is None else (x_t[rows], t[rows])
    if not _alike(c, null):
        cond = denoiser.apply(params, x_t, t=t, c=c)
        return cond, denoiser.apply(params, some[0], t=some[1], c=null)
    if conditions.size(null) != conditions.size(wanted):
        expected = f"{conditions.size(wanted)} conditions"
        raise ValueError(f"null: expected {expected}, got {conditions.size(null)}")

    def together(leaf: Array, other: Array) -> Array:
        if rows is None:  # neighbours, which devices that share the examples need not exchange
            return jnp.stack([leaf, other], axis=1).reshape(-1, *leaf.shape[1:])
        return jnp.concatenate([leaf, other])

    both = jax.tree.map(together, c, null)
    x0_hat = denoiser.apply(params, together(x_t, some[0]), t=together(t, some[1]), c=both)
    if rows is None:
        return x0_hat[::2], x0_hat[1::2]
    return x0_hat[: len(x_t)], x0_hat[len(x_t) :]


def _alike(c: Condition, null: Condition) -> bool:
    """Whether two conditions have the same structure, dtypes and shapes but for the batch."""

    def shapes(tree: Condition) -> list:
        return [(leaf.shape[1:], leaf.dtype) for leaf in map(jnp.asarray, jax.tree.leaves(tree))]

    same = bool(jax.tree.structure(c) == jax.tree.structure(null))  # type: ignore[operator]
    return same and shapes(c) == shapes(null)


def predictions(
    denoiser: Denoiser,
    params: Params,
    x_t: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    c: Condition,
) -> tuple[Float[Array, "b *dims"], tuple[Float[Array, "b *dims"], ...]]:
    """The conditional x0-prediction, and the one that each direction of guidance leads away from.

    The first direction is that of the unconditional prediction; a `denoisers.Directions` has
    further ones, of weaker denoisers (autoguidance; Karras et al., 2024, arXiv 2406.02507).
    """
    cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
    return cond, (uncond, *weaker_predictions(denoiser, params, x_t, t=t, c=c))


def weaker_predictions(
    denoiser: Denoiser,
    params: Params,
    x_t: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    c: Condition,
) -> tuple[Float[Array, "b *dims"], ...]:
    """The predictions of the weaker denoisers of a `denoisers.Directions`; () of any other."""
    weaker = getattr(denoiser, "weaker_predictions", None)
    if weaker is None:
        return ()
    return tuple(other.astype(x_t.dtype) for other in weaker(params, x_t, t=t, c=c))


def direction_names(denoiser: Denoiser) -> tuple[str, ...]:
    """Names of the directions of `predictions`, the first of which is "uncond"."""
    return ("uncond", *getattr(denoiser, "weaker_names", ()))
