"""Energy distances between two sets of particles, and the pieces that they are made of.

``beta`` in (0, 2] is the power of the distance, ``lam`` in [0, 1] the weight of the within-set
terms: lam = 1 is the energy distance (strictly proper for beta < 2; Gneiting & Raftery, 2007,
doi 10.1198/016214506000001437), lam = 0 a plain mean of distances.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from lgd.types import Scalar

_SMALLEST_SQUARE = 1e-20  # squared distances below this count as zero, with zero gradient


def power(squares: Float[Array, "*s"], beta: Scalar) -> Float[Array, "*s"]:
    """Return ``|x|^beta`` given ``|x|^2``, of any shape.

    Squares up to 1e-20, negative ones by rounding included, give 0 with zero gradient. NaN stays
    NaN: samples that are not finite must not be at distance 0 of anything.
    """
    positive = ~(squares <= _SMALLEST_SQUARE)
    return jnp.where(positive, jnp.where(positive, squares, 1.0) ** (0.5 * beta), 0.0)


def squared_distances(x: Float[Array, "m d"], y: Float[Array, "n d"]) -> Float[Array, "m n"]:
    """Return the matrix ``|x_i - y_j|^2``, (m, n).

    It is computed from differences, in m n d operations, so that close pairs keep their digits.
    """
    return jnp.sum(jnp.square(x[:, None, :] - y[None, :, :]), axis=-1)


def magnitude(*sets: Float[Array, "..."]) -> Float[Array, ""]:
    """Return a power of two about as large as the numbers of the sets, to divide them by.

    Dividing by it is exact. It is 1 where squares of float32 hold: if the largest number is between
    1e-6 and 1e6, or 0, or not finite.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in sets])))
    ordinary = (largest >= 1e-6) & (largest <= 1e6) | (largest == 0.0) | ~jnp.isfinite(largest)
    exponent = jnp.frexp(jnp.where(ordinary, 1.0, largest))[1] - 1  # largest / 2 may be the largest
    return jnp.where(ordinary, 1.0, jnp.ldexp(jnp.ones_like(largest), exponent))


def off_diagonal_mean(a: Float[Array, "*s m m"]) -> Float[Array, "*s"]:
    """Return the mean of the entries j != k of square matrices (m, m), 0 for m = 1.

    This is the U-statistic of a within-set term.
    """
    m = a.shape[-1]
    total = jnp.sum(a, axis=(-2, -1)) - jnp.trace(a, axis1=-2, axis2=-1)
    return total / max(m * (m - 1), 1)


def energy_distance(
    x: Float[Array, "m d"],
    y: Float[Array, "n d"],
    *,
    beta: Scalar = 1.0,
    lam: Scalar = 1.0,
    any_scale: bool = True,
) -> Float[Array, ""]:
    """Return ``E|x - y|^beta - lam/2 (E|x - x'|^beta + E|y - y'|^beta)`` of two sets of particles.

    Galashov et al., 2025, arXiv 2510.00815, Eq. 9; for lam = 1 half of the energy distance of
    Szekely & Rizzo (2013, doi 10.1016/j.jspi.2013.03.018). Within-set terms are means over pairs
    of different particles (U-statistics), so that equal laws have mean 0 and values may be
    negative.

    Args:
      x: particles (m, d).
      y: particles (n, d).
      beta: power of the distance, in (0, 2].
      lam: weight of the within-set terms, in [0, 1].
      any_scale: whether numbers are divided by their `magnitude` first; without, distances
        below 1e-10 count as zero, and numbers above 1e19 overflow.

    >>> import jax.numpy as jnp
    >>> from lgd import discrepancy
    >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [4.0]])
    >>> discrepancy.energy_distance(x, y).item()  # 3 - (1 + 1) / 2
    2.0
    >>> discrepancy.energy_distance(x, y, lam=0.0).item()
    3.0

    Raises:
      ValueError: for beta outside (0, 2], lam outside [0, 1], sets of one particle at lam > 0, or
        empty ones.
    """
    check_settings(beta, lam)
    least = 2 if _is_concrete(lam) and float(lam) > 0.0 else 1
    if min(len(x), len(y)) < least:
        raise ValueError(f"expected at least {least} particles a side, got {len(x)} and {len(y)}")
    if not any_scale:
        return _energy_distance(x, y, beta, lam)
    return _scaled(x, y, beta, lam, magnitude(x, y))


def _energy_distance(
    x: Float[Array, "m d"], y: Float[Array, "n d"], beta: Scalar, lam: Scalar
) -> Float[Array, ""]:
    cross = jnp.mean(power(squared_distances(x, y), beta))
    within = off_diagonal_mean(power(squared_distances(x, x), beta))
    within += off_diagonal_mean(power(squared_distances(y, y), beta))
    return cross - 0.5 * lam * within


@jax.custom_jvp
def _scaled(
    x: Float[Array, "m d"],
    y: Float[Array, "n d"],
    beta: Scalar,
    lam: Scalar,
    scale: Float[Array, ""],
) -> Float[Array, ""]:
    """``scale^beta`` times the distance of x / scale and y / scale."""
    return scale**beta * _energy_distance(x / scale, y / scale, beta, lam)


@functools.partial(_scaled.defjvp, symbolic_zeros=True)
def _scaled_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    """The slope in x, y is that of ``scale^(beta - 1)``: scale^beta may be below all floats."""
    x, y, beta, lam, scale = primals
    pairs = zip(primals, tangents, strict=True)
    dx, dy, *dsettings, _ = [
        jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent
        for primal, tangent in pairs
    ]
    at = (x / scale, y / scale)
    distance, slope = jax.jvp(lambda u, v: _energy_distance(u, v, beta, lam), at, (dx, dy))
    slope = scale ** (beta - 1.0) * slope
    if not all(isinstance(tangent, SymbolicZero) for tangent in tangents[2:4]):
        by_settings = functools.partial(_scaled.fun, x, y, scale=scale)
        slope += jax.jvp(by_settings, (beta, lam), tuple(dsettings))[1]
    return scale**beta * distance, slope


def check_settings(beta: Scalar, lam: Scalar) -> None:
    """Raise ValueError for a beta outside (0, 2] or a lam outside [0, 1]; traced values pass."""
    if _is_concrete(beta) and not 0.0 < float(beta) <= 2.0:
        raise ValueError(f"expected 0 < beta <= 2, got {beta}")
    if _is_concrete(lam) and not 0.0 <= float(lam) <= 1.0:
        raise ValueError(f"expected 0 <= lam <= 1, got {lam}")


def _is_concrete(value: Scalar) -> bool:
    return not isinstance(value, jax.core.Tracer)
