"""The Gram form: every distance of a one-step objective as a quadratic form of a small matrix.

The frozen denoiser enters a one-step objective only through ``r = cond - x0`` and
``Delta = cond - uncond`` at time t. With the noises as further rows, every proposal and every
target is a combination of rows with coefficients known from the schedule, and every squared
distance is ``u^T G u`` with ``G = rows rows^T`` and u a difference of coefficients. G is tiny
whatever the size of the data, and cancellation between a particle and its own target happens in the
coefficients, exactly, rather than in the data.

omega enters a proposal linearly, so a squared distance is a polynomial of degree 2 in the weights,
whose coefficients (`DistanceForms`) serve every omega. And rows need not exist: given the Gram
matrix of some, fresh normal rows beside them can be drawn in a space of few dimensions (`redraw`).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.stats import chi2, norm

from lgd.types import PRNGKey

_LARGEST_Z = 6.5  # beyond which a normal variable in float32 does not go
_PRECISION = jax.lax.Precision.HIGHEST  # TF32 and bf16 products are not enough
_FEW = 64  # matrices whose eigenvectors cost less than a search for those that need them


def gram_matrix(rows: Float[Array, "g q d"]) -> Float[Array, "g q q"]:
    """``G = rows rows^T`` of every group, accumulated in float32."""
    return jnp.einsum(
        "gpd,gqd->gpq", rows, rows, precision=_PRECISION, preferred_element_type=jnp.float32
    )


class DistanceForms(NamedTuple):
    """Squared distances of ``x_i(omega) = p_i + sum_k omega_ik q_ik`` as polynomials of omega.

    ``|x_i - y_j|^2`` is `cross`, ``|x_i - x_j|^2`` is `within`, for weights (g, m, k) of k
    directions. Nothing here depends on omega.
    """

    cross_constant: Float[Array, "g m n"]  # |p_i - y_j|^2
    cross_linear: Float[Array, "g m n k"]  # 2 <p_i - y_j, q_i>
    within_constant: Float[Array, "g m m"]  # |p_i - p_j|^2
    within_linear: Float[Array, "g m m k"]  # 2 <p_i - p_j, q_i>
    quadratic: Float[Array, "g m k m k"]  # <q_i, q_j>

    def cross(self, omega: Float[Array, "g m k"]) -> Float[Array, "g m n"]:
        """``|x_i(omega) - y_j|^2``."""
        linear = jnp.sum(self.cross_linear * omega[:, :, None, :], axis=-1)
        own = jnp.diagonal(self._products(omega), axis1=1, axis2=2)
        return self.cross_constant + linear + own[:, :, None]

    def within(self, omega: Float[Array, "g m k"]) -> Float[Array, "g m m"]:
        """``|x_i(omega) - x_j(omega)|^2``."""
        linear = jnp.sum(self.within_linear * omega[:, :, None, :], axis=-1)
        products = self._products(omega)
        own = jnp.diagonal(products, axis1=1, axis2=2)
        moved = own[:, :, None] + own[:, None, :] - 2.0 * products
        return self.within_constant + linear + jnp.swapaxes(linear, 1, 2) + moved

    def _products(self, omega: Float[Array, "g m k"]) -> Float[Array, "g m m"]:
        """``<omega_i q_i, omega_j q_j>``, summed over directions."""
        weighted = self.quadratic * omega[:, :, :, None, None] * omega[:, None, None, :, :]
        return jnp.sum(weighted, axis=(2, 4))


class SharedForms(NamedTuple):
    """The same for one weight w (g,), which all particles share: coefficients of 1, w and w^2."""

    cross_terms: tuple[Float[Array, "g m n"], ...]
    within_terms: tuple[Float[Array, "g m m"], ...]

    def cross(self, omega: Float[Array, " g"]) -> Float[Array, "g m n"]:
        """``|x_i(omega) - y_j|^2``."""
        return _polynomial(self.cross_terms, omega)

    def within(self, omega: Float[Array, " g"]) -> Float[Array, "g m m"]:
        """``|x_i(omega) - x_j(omega)|^2``."""
        return _polynomial(self.within_terms, omega)


def shared(forms: DistanceForms) -> SharedForms:
    """The forms of one direction, for a weight that all particles of a group share."""
    linear = forms.within_linear[..., 0]
    quadratic = forms.quadratic[:, :, 0, :, 0]
    own = jnp.diagonal(quadratic, axis1=1, axis2=2)
    cross_quadratic = jnp.broadcast_to(own[:, :, None], forms.cross_constant.shape)
    within_quadratic = own[:, :, None] + own[:, None, :] - 2.0 * quadratic
    return SharedForms(
        (forms.cross_constant, forms.cross_linear[..., 0], cross_quadratic),
        (forms.within_constant, linear + jnp.swapaxes(linear, 1, 2), within_quadratic),
    )


def _polynomial(terms: tuple[Float[Array, "g m n"], ...], w: Float[Array, " g"]) -> Array:
    constant, linear, quadratic = terms
    w = w[:, None, None]
    return constant + w * (linear + w * quadratic)


def distance_forms(
    gram: Float[Array, "g q q"],
    proposal: Float[Array, "g b"],
    target: Float[Array, "g b"],
    direction: Float[Array, "g k"],
    *,
    directions: tuple[int, ...],
) -> DistanceForms:
    """The polynomials, from coefficients on the rows of a Gram matrix.

    The q = b m rows are b blocks of m, one row of each block for every particle; all particles have
    the same coefficients, each on its own rows. Direction k is ``direction[:, k]`` times the block
    ``directions[k]``. Particle i and target i may have most of their rows in common, so their
    difference is taken in the coefficients.
    """
    g, b = proposal.shape
    m = gram.shape[-1] // b
    blocks = gram.reshape(g, b, m, b, m)
    own = jnp.diagonal(blocks, axis1=2, axis2=4)  # (g, b, b, m): products of a particle's own rows
    apart = proposal - target
    by_proposal = _combined(proposal, blocks)  # (g, m, b, m): of every particle with every row
    between = _combined(proposal, jnp.moveaxis(by_proposal, 2, 1))
    squares = jnp.diagonal(between, axis1=1, axis2=2)
    to_target = _combined(target, jnp.moveaxis(by_proposal, 2, 1))
    target_squares = _combined(target, _combined(target, own))
    along, met, along_own = [], [], []
    for k, block in enumerate(directions):
        scale = direction[:, k, None]
        along.append(scale[:, :, None] * by_proposal[:, :, block])
        met.append(scale[:, :, None] * _combined(target, blocks[:, :, :, block]))
        along_own.append(scale * _combined(apart, own[:, :, block]))
    proposal_along, target_along = jnp.stack(along, axis=-1), jnp.stack(met, axis=-1)
    own_along = jnp.diagonal(proposal_along, axis1=1, axis2=2).transpose(0, 2, 1)[:, :, None]
    chosen = blocks[:, jnp.asarray(directions)][:, :, :, jnp.asarray(directions)]
    weighted = chosen * direction[:, :, None, None, None] * direction[:, None, None, :, None]
    return DistanceForms(
        cross_constant=_with_diagonal(
            squares[:, :, None] + target_squares[:, None, :] - 2.0 * to_target,
            _combined(apart, _combined(apart, own)),
        ),
        cross_linear=_with_diagonal(
            2.0 * (own_along - jnp.swapaxes(target_along, 1, 2)),
            2.0 * jnp.stack(along_own, axis=-1),
        ),
        within_constant=_with_diagonal(
            squares[:, :, None] + squares[:, None, :] - 2.0 * between, jnp.zeros_like(squares)
        ),
        within_linear=_with_diagonal(
            2.0 * (own_along - jnp.swapaxes(proposal_along, 1, 2)),
            jnp.zeros((g, m, len(directions))),
        ),
        quadratic=weighted.transpose(0, 2, 1, 4, 3),
    )


def _combined(coefficients: Float[Array, "g b"], blocks: Float[Array, "g b ..."]) -> Array:
    """``sum_b coefficients_b blocks_b``: few terms, summed one by one in full precision."""
    shape = (len(blocks),) + (1,) * (blocks.ndim - 2)
    terms = [coefficients[:, i].reshape(shape) * blocks[:, i] for i in range(blocks.shape[1])]
    return functools.reduce(jnp.add, terms)


def _with_diagonal(
    matrix: Float[Array, "g m m *k"], diagonal: Float[Array, "g m *k"]
) -> Float[Array, "g m m *k"]:
    m = matrix.shape[1]
    on = jnp.eye(m, dtype=bool).reshape(1, m, m, *(1,) * (matrix.ndim - 3))
    return jnp.where(on, diagonal[:, :, None], matrix)


def factor(gram: Float[np.ndarray, "n q q"], dim: int) -> Float[np.ndarray, "n q q"]:
    """Lower triangular L with ``L L^T = G``, computed in float64; for G of rows in R^dim.

    At most min(q, dim) columns are not 0. Where G is singular, or has eigenvalues below 0 by
    rounding, the nearest matrix that is not stands in for it.
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
    factor (Bartlett, 1933).
    """
    g, q, _ = lower.shape
    inside, outside = min(q, dim), max(dim - q, 0)
    drawn = jax.random.normal(key, (g, count, inside + count + 1))  # one draw compiles fastest
    along, below, chi = drawn[:, :, :inside], drawn[:, :, inside:-1], drawn[:, :, -1]
    freedom = np.maximum(outside - np.arange(count), 0)  # of the diagonal; what has none is 0
    strictly = jnp.asarray(np.tri(count, k=-1) * (freedom > 0), jnp.float32)
    rest = below * strictly[None] + _chi(chi, freedom)[:, :, None] * jnp.eye(count)[None]
    gap = jnp.zeros((g, count, q - inside))
    fresh = jnp.concatenate([along, gap, rest], axis=-1)
    return jnp.pad(lower, ((0, 0), (0, 0), (0, count))), fresh


def _chi(z: Float[Array, "g n"], freedom: Int[np.ndarray, " n"]) -> Float[Array, "g n"]:
    """Chi variables with these degrees of freedom from normal ones, by their quantiles.

    Interpolated between 4,097 knots: within 1e-6 of the true quantile. A rejection sampler would
    take seconds to compile.
    """
    knots = np.linspace(-_LARGEST_Z, _LARGEST_Z, 4097)
    table = np.zeros((len(freedom), len(knots)), np.float32)
    for row, degrees in zip(table, freedom, strict=True):
        if degrees:
            lower, upper = (chi2.ppf(norm.cdf(knots), degrees), chi2.isf(norm.sf(knots), degrees))
            row[:] = np.sqrt(np.where(knots < 0.0, lower, upper))
    position = (jnp.clip(z, -_LARGEST_Z, _LARGEST_Z) + _LARGEST_Z) / (knots[1] - knots[0])
    low = jnp.minimum(position.astype(jnp.int32), len(knots) - 2)
    column = jnp.arange(len(freedom))[None]
    at_low, at_high = (jnp.asarray(table)[column, index] for index in (low, low + 1))
    return at_low + (position - low) * (at_high - at_low)
