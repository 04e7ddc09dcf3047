"""Energy distances of a stepped population to targets, as functions of the guidance weight."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import discrepancy
from lgd.objectives.forms import SharedForms

Curve: TypeAlias = Callable[[Float[Array, " g"]], Float[Array, " g"]]

_PRECISION = jax.lax.Precision.HIGHEST
_FINE = 9  # weights between the neighbours of the best coarse one


def between(x: Float[Array, "g n d"], y: Float[Array, "g n d"], *, beta: float) -> Array:
    """The energy distances (g,) of sets x and y, pairs j = k left out of all means.

    Sets may share their noise, example by example: then x_j and y_j are not independent, while all
    other pairs are. Without the term of y with itself, which is the same for all x.
    """
    centre = jnp.mean(y, axis=(0, 1), keepdims=True)
    x, y = x - centre, y - centre
    return _distance(_squares(x, y), _squares(x, x), beta)


def along(
    fixed: Float[Array, "g n d"],
    direction: Float[Array, "g n d"],
    targets: Float[Array, "g n d"],
    *,
    beta: float,
) -> Curve:
    """`between` of ``fixed + w direction`` and targets, as a function of w (g,).

    Squared distances are polynomials of w, so that a value takes no operation in d dimensions.
    """
    centre = jnp.mean(targets, axis=(0, 1), keepdims=True)
    p, q, y = fixed - centre, direction, targets - centre
    own, lengths = jnp.sum(p * q, axis=-1), jnp.sum(q * q, axis=-1)
    to_target = 2.0 * (own[:, :, None] - _products(q, y))
    apart = 2.0 * (own[:, :, None] - jnp.swapaxes(_products(p, q), 1, 2))
    forms = SharedForms(
        (_squares(p, y), to_target, jnp.broadcast_to(lengths[:, :, None], to_target.shape)),
        (_squares(p, p), apart + jnp.swapaxes(apart, 1, 2), _squares(q, q)),
    )
    return lambda w: _distance(forms.cross(w), forms.within(w), beta)


def _pooled(curve: Curve, g: int) -> Curve:
    """The mean over g groups, (1,), as a function of the weight (1,) of all of them."""
    return lambda w: jnp.mean(curve(jnp.broadcast_to(w, (g,))))[None]


def least(
    curve: Curve, weights: Float[Array, " w"], g: int, *, shared: bool = False
) -> Float[Array, " r"]:
    """Where a curve is least, for every group: on a grid, on a finer one, then of a parabola.

    Args:
      curve: values of weights (g,).
      weights: the coarse grid, ascending; no weight is outside.
      g: number of groups.
      shared: one weight (1,) for all groups, by their mean, instead of (g,).
    """
    if shared:
        curve, g = _pooled(curve, g), 1
    coarse = jnp.broadcast_to(weights[:, None], (len(weights), g))
    place = jnp.argmin(jax.lax.map(curve, coarse), axis=0)
    lower = weights[jnp.maximum(place - 1, 0)]
    upper = weights[jnp.minimum(place + 1, len(weights) - 1)]
    width = (upper - lower) / (_FINE - 1)
    places = jnp.arange(_FINE, dtype=weights.dtype)[:, None]
    values = jax.lax.map(curve, lower[None] + width[None] * places)
    best = jnp.clip(jnp.argmin(values, axis=0), 1, _FINE - 2)
    before, at, after = (
        jnp.take_along_axis(values, (best + shift)[None], axis=0)[0] for shift in (-1, 0, 1)
    )
    bend = before - 2.0 * at + after
    vertex = 0.5 * (before - after) / jnp.where(bend > 0.0, bend, 1.0)
    edge = jnp.where(after < before, 1.0, -1.0)
    shift = jnp.where(bend > 0.0, jnp.clip(vertex, -1.0, 1.0), edge)
    return lower + width * (best + shift)


def _distance(
    cross: Float[Array, "g n n"], within: Float[Array, "g n n"], beta: float
) -> Float[Array, " g"]:
    """``mean |x - y|^beta - mean |x - x'|^beta / 2`` from squared distances, without diagonals."""
    to_targets, among = (
        discrepancy.off_diagonal_mean(discrepancy.power(squares, beta))
        for squares in (cross, within)
    )
    return to_targets - 0.5 * among


def _products(x: Float[Array, "g n d"], y: Float[Array, "g m d"]) -> Float[Array, "g n m"]:
    return jnp.einsum("gnd,gmd->gnm", x, y, precision=_PRECISION)


def _squares(x: Float[Array, "g n d"], y: Float[Array, "g m d"]) -> Float[Array, "g n m"]:
    """Squared distances of all pairs: those near 0 lose digits, and weigh little in a mean."""
    lengths = (jnp.sum(x * x, axis=-1)[:, :, None], jnp.sum(y * y, axis=-1)[:, None, :])
    return jnp.maximum(sum(lengths) - 2.0 * _products(x, y), 0.0)
