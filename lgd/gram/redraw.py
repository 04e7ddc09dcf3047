"""Fresh normal rows beside known ones, drawn in few dimensions from the Gram matrix alone.

A loss in Gram form needs inner products of rows only. So the known rows need not exist: with the
triangular factor L of their Gram matrix in their place, fresh normal rows of R^dim can be drawn
beside them in a space of q + count dimensions, with the law of inner products that they have in
R^dim.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd.types import PRNGKey

_LARGEST_Z = 6.5  # beyond which a normal variable in float32 does not go
_KNOTS = 4097  # of the quantile function of a chi variable
_FEW = 64  # matrices whose eigenvectors cost less than a search for those that need them


def factor(gram: Float[np.ndarray, "n q q"], dim: int) -> Float[np.ndarray, "n q q"]:
    """Lower triangular L with ``L L^T = G``, computed in float64.

    Args:
      gram: Gram matrices G of q rows each. Where one is singular, or has eigenvalues below 0 by
        rounding, the nearest matrix that is positive semidefinite stands in for it.
      dim: dimension of the rows; at most min(q, dim) columns of L are not 0.
    """
    gram = np.asarray(gram, np.float64)
    q = gram.shape[-1]
    if dim >= q:
        try:
            return np.linalg.cholesky(gram)
        except np.linalg.LinAlgError:
            if len(gram) > _FEW:  # where few are singular, find them by halves
                half = len(gram) // 2
                return np.concatenate([factor(gram[:half], dim), factor(gram[half:], dim)])
    values, vectors = np.linalg.eigh(gram)
    rank = min(q, dim)
    roots = np.sqrt(np.maximum(values[:, -rank:], 0.0))
    upper = np.linalg.qr(np.swapaxes(vectors[:, :, -rank:] * roots[:, None, :], 1, 2), mode="r")
    signs = np.where(np.diagonal(upper, axis1=1, axis2=2) < 0.0, -1.0, 1.0)
    lower = np.zeros_like(gram)
    lower[:, :, :rank] = np.swapaxes(upper * signs[:, :, None], 1, 2)
    return lower


def redraw(
    key: PRNGKey, lower: Float[Array, "g q q"], *, count: int, dim: int
) -> tuple[Float[Array, "g q e"], Float[Array, "g n e"]]:
    """Known rows in e = q + count dimensions, and count fresh normal rows of R^dim beside them.

    Inner products have the law that they have in R^dim: along the first min(q, dim) axes, which
    hold the known rows, a standard normal vector has independent coordinates N(0, 1); the Gram
    matrix of what remains is Wishart with dim - q degrees of freedom, drawn by its triangular
    factor (Bartlett, On the theory of statistical regression, Proc. R. Soc. Edinburgh 53, 1933).

    Args:
      key: source of the fresh rows.
      lower: factors of the Gram matrices of the known rows, see `factor`.
      count: fresh rows of every group.
      dim: dimension of all rows.
    """
    g, q, _ = lower.shape
    inside, outside = min(q, dim), max(dim - q, 0)
    normal = jax.random.normal(key, (g, count, inside + count + 1))  # one draw compiles fastest
    along, below, chi = normal[:, :, :inside], normal[:, :, inside:-1], normal[:, :, -1]
    freedom = np.maximum(outside - np.arange(count), 0)  # of the diagonal; what has none is 0
    strictly = jnp.asarray(np.tri(count, k=-1) * (freedom > 0), jnp.float32)
    rest = below * strictly[None] + _chi(chi, freedom)[:, :, None] * jnp.eye(count)[None]
    gap = jnp.zeros((g, count, q - inside))
    fresh = jnp.concatenate([along, gap, rest], axis=-1)
    return jnp.pad(lower, ((0, 0), (0, 0), (0, count))), fresh


def _chi(z: Float[Array, "g n"], freedom: Int[np.ndarray, " n"]) -> Float[Array, "g n"]:
    """Chi variables with these degrees of freedom, by their quantiles from normal variables z.

    Interpolated between `_KNOTS` knots: within 1e-6 of the true quantile. A rejection sampler would
    take seconds to compile.
    """
    from scipy.stats import chi2, norm  # slow to import, and not needed by the rest of the library

    knots = np.linspace(-_LARGEST_Z, _LARGEST_Z, _KNOTS)
    table = np.zeros((len(freedom), len(knots)), np.float32)
    for row, degrees in zip(table, freedom, strict=True):
        if degrees:
            lower, upper = (chi2.ppf(norm.cdf(knots), degrees), chi2.isf(norm.sf(knots), degrees))
            row[:] = np.sqrt(np.where(knots < 0.0, lower, upper))
    position = (jnp.clip(z, -_LARGEST_Z, _LARGEST_Z) + _LARGEST_Z) / (knots[1] - knots[0])
    low = jnp.minimum(position.astype(jnp.int32), len(knots) - 2)
    column = jnp.arange(len(freedom))[None]
    at_low, at_high = (jnp.asarray(table)[column, index] for index in (low, low + 1))
    return at_low + (position - low.astype(position.dtype)) * (at_high - at_low)
