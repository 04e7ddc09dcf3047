"""Distances between two sets of particles, from the particles or from their squared distances.

Knows nothing of diffusion. ``beta`` in (0, 2] is the power of the distance, ``lam`` in [0, 1] the
weight of the within-set terms: lam = 1 is the energy distance (strictly proper for beta < 2),
lam = 0 a plain mean of distances.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.types import Scalar

_SMALLEST_SQUARE = 1e-20  # squared distances below this count as zero, with zero gradient


def power(squares: Float[Array, "*s"], beta: Scalar) -> Float[Array, "*s"]:
    """``|x|^beta`` from ``|x|^2``; 0 with zero gradient at (and, by rounding, below) 0.

    NaN stays NaN: samples that are not finite must not be at distance 0 of anything.
    """
    positive = ~(squares <= _SMALLEST_SQUARE)
    return jnp.where(positive, jnp.where(positive, squares, 1.0) ** (0.5 * beta), 0.0)


def squared_distances(x: Float[Array, "m d"], y: Float[Array, "n d"]) -> Float[Array, "m n"]:
    """``|x_i - y_j|^2``, by direct differences: exact for close pairs, m n d operations."""
    return jnp.sum(jnp.square(x[:, None, :] - y[None, :, :]), axis=-1)


def off_diagonal_mean(a: Float[Array, "*s m m"]) -> Float[Array, "*s"]:
    """Mean over j != k of a square matrix: the U-statistic of a within-set term; 0 for m = 1."""
    m = a.shape[-1]
    total = jnp.sum(a, axis=(-2, -1)) - jnp.trace(a, axis1=-2, axis2=-1)
    return total / max(m * (m - 1), 1)


def energy_distance(
    x: Float[Array, "m d"], y: Float[Array, "n d"], *, beta: Scalar = 1.0, lam: Scalar = 1.0
) -> Float[Array, ""]:
    """``E|x - y|^beta - lam/2 (E|x - x'|^beta + E|y - y'|^beta)`` (paper, Eq. 9).

    Half of the textbook's energy distance for lam = 1. Within-set terms are means over pairs of
    different particles (U-statistics), so that equal laws have mean 0. Raises ValueError for beta
    outside (0, 2] or sets of one particle when lam > 0.
    """
    check_settings(beta, lam)
    if _is_concrete(lam) and float(lam) > 0.0 and min(len(x), len(y)) < 2:
        raise ValueError(f"expected at least 2 particles a side, got {len(x)} and {len(y)}")
    cross = jnp.mean(power(squared_distances(x, y), beta))
    within = off_diagonal_mean(power(squared_distances(x, x), beta))
    within += off_diagonal_mean(power(squared_distances(y, y), beta))
    return cross - 0.5 * lam * within


def check_settings(beta: Scalar, lam: Scalar) -> None:
    """Raise ValueError for concrete beta outside (0, 2] or lam outside [0, 1]."""
    if _is_concrete(beta) and not 0.0 < float(beta) <= 2.0:
        raise ValueError(f"expected 0 < beta <= 2, got {beta}")
    if _is_concrete(lam) and not 0.0 <= float(lam) <= 1.0:
        raise ValueError(f"expected 0 <= lam <= 1, got {lam}")


def _is_concrete(value: Scalar) -> bool:
    return not isinstance(value, jax.core.Tracer)
