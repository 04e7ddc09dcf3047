"""Every distance of a one-step objective as a quadratic form of a small Gram matrix.

The frozen denoiser enters a one-step objective only through ``r = cond - x0`` and
``Delta = cond - uncond`` at time t. With the noises as further rows, every proposal and every
target is a combination of rows with coefficients known from the schedule, and every squared
distance is ``u^T G u`` with ``G = rows rows^T`` and u a difference of coefficients. G is tiny
whatever the size of the data, and cancellation between a particle and its own target happens in the
coefficients, exactly, rather than in the data.

omega enters a proposal linearly, so a squared distance is a polynomial of degree 2 in the weights,
whose coefficients (`DistanceForms`) serve every omega.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_PRECISION = jax.lax.Precision.HIGHEST  # TF32 and bf16 products are not enough


def gram_matrix(rows: Float[Array, "g q d"]) -> Float[Array, "g q q"]:
    """The Gram matrix ``G = rows rows^T`` of every group, accumulated in float32."""
    return jnp.einsum(
        "gpd,gqd->gpq", rows, rows, precision=_PRECISION, preferred_element_type=jnp.float32
    )


class DistanceForms(NamedTuple):
    """Squared distances of ``x_i(omega) = p_i + sum_k omega_ik q_ik`` as polynomials of omega.

    The fields are the coefficients, which do not depend on omega; `cross` and `within` evaluate the
    polynomials at weights (g, m, k) of m particles and k directions.
    """

    cross_constant: Float[Array, "g m n"]  # |p_i - y_j|^2
    cross_linear: Float[Array, "g m n k"]  # 2 <p_i - y_j, q_i>
    within_constant: Float[Array, "g m m"]  # |p_i - p_j|^2
    within_linear: Float[Array, "g m m k"]  # 2 <p_i - p_j, q_i>
    quadratic: Float[Array, "g m k m k"]  # <q_i, q_j>

    def cross(self, omega: Float[Array, "g m k"]) -> Float[Array, "g m n"]:
        """Squared distances ``|x_i(omega) - y_j|^2`` of particles and targets."""
        linear = jnp.sum(self.cross_linear * omega[:, :, None, :], axis=-1)
        norms = jnp.diagonal(self._products(omega), axis1=1, axis2=2)
        return self.cross_constant + linear + norms[:, :, None]

    def within(self, omega: Float[Array, "g m k"]) -> Float[Array, "g m m"]:
        """Squared distances ``|x_i(omega) - x_j(omega)|^2`` among particles."""
        linear = jnp.sum(self.within_linear * omega[:, :, None, :], axis=-1)
        products = self._products(omega)
        norms = jnp.diagonal(products, axis1=1, axis2=2)
        moved = norms[:, :, None] + norms[:, None, :] - 2.0 * products
        return self.within_constant + linear + jnp.swapaxes(linear, 1, 2) + moved

    def _products(self, omega: Float[Array, "g m k"]) -> Float[Array, "g m m"]:
        """Inner products of ``sum_k omega_ik q_ik`` for all pairs of particles."""
        weighted = self.quadratic * omega[:, :, :, None, None] * omega[:, None, None, :, :]
        return jnp.sum(weighted, axis=(2, 4))


class SharedForms(NamedTuple):
    """Squared distances as polynomials of one weight w that all particles of a group share.

    Each tuple holds the coefficients of 1, w and w^2.
    """

    cross_terms: tuple[Float[Array, "g m n"], ...]
    within_terms: tuple[Float[Array, "g m m"], ...]

    def cross(self, omega: Float[Array, " g"]) -> Float[Array, "g m n"]:
        """Squared distances ``|x_i(omega) - y_j|^2`` of particles and targets."""
        return _polynomial(self.cross_terms, omega)

    def within(self, omega: Float[Array, " g"]) -> Float[Array, "g m m"]:
        """Squared distances ``|x_i(omega) - x_j(omega)|^2`` among particles."""
        return _polynomial(self.within_terms, omega)


def shared(forms: DistanceForms) -> SharedForms:
    """The forms of one direction, for a weight that all particles of a group share."""
    linear = forms.within_linear[..., 0]
    quadratic = forms.quadratic[:, :, 0, :, 0]
    norms = jnp.diagonal(quadratic, axis1=1, axis2=2)
    cross_quadratic = jnp.broadcast_to(norms[:, :, None], forms.cross_constant.shape)
    within_quadratic = norms[:, :, None] + norms[:, None, :] - 2.0 * quadratic
    return SharedForms(
        (forms.cross_constant, forms.cross_linear[..., 0], cross_quadratic),
        (forms.within_constant, linear + jnp.swapaxes(linear, 1, 2), within_quadratic),
    )


def _polynomial(terms: tuple[Float[Array, "g m n"], ...], w: Float[Array, " g"]) -> Array:
    """The value at w of a polynomial of degree 2."""
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
    """Squared distances as polynomials of omega, from coefficients on the rows of a Gram matrix.

    The q = b m rows are b blocks of m rows, one row of each block for every particle; particle i
    has the coefficients of its group on the rows i. Particle i and target i may have most of their
    rows in common, so their difference is taken in the coefficients.

    Args:
      gram: inner products of all rows of every group.
      proposal: coefficients of a particle at omega = 0, one for each block.
      target: coefficients of a target.
      direction: coefficient of each direction k on its block.
      directions: the block of each direction.
    """
    g, b = proposal.shape
    m = gram.shape[-1] // b
    blocks = gram.reshape(g, b, m, b, m)
    same = jnp.diagonal(blocks, axis1=2, axis2=4)  # (g, b, b, m): of rows of the same particle
    apart = proposal - target
    by_proposal = _combined(proposal, blocks)  # (g, m, b, m): of every particle with every row
    between = _combined(proposal, jnp.moveaxis(by_proposal, 2, 1))
    squares = jnp.diagonal(between, axis1=1, axis2=2)
    to_target = _combined(target, jnp.moveaxis(by_proposal, 2, 1))
    target_squares = _combined(target, _combined(target, same))

    def along(products: list[Array]) -> Array:
        """Inner products with every direction, from those with its block."""
        shape = (g,) + (1,) * (products[0].ndim - 1)
        scaled = [direction[:, k].reshape(shape) * part for k, part in enumerate(products)]
        return jnp.stack(scaled, axis=-1)

    proposal_along = along([by_proposal[:, :, block] for block in directions])
    target_along = along([_combined(target, blocks[:, :, :, block]) for block in directions])
    gap_along = along([_combined(apart, same[:, :, block]) for block in directions])
    same_along = jnp.diagonal(proposal_along, axis1=1, axis2=2).transpose(0, 2, 1)[:, :, None]
    return DistanceForms(
        cross_constant=_with_diagonal(
            squares[:, :, None] + target_squares[:, None, :] - 2.0 * to_target,
            _combined(apart, _combined(apart, same)),
        ),
        cross_linear=_with_diagonal(
            2.0 * (same_along - jnp.swapaxes(target_along, 1, 2)),
            2.0 * gap_along,
        ),
        within_constant=_with_diagonal(
            squares[:, :, None] + squares[:, None, :] - 2.0 * between, jnp.zeros_like(squares)
        ),
        within_linear=_with_diagonal(
            2.0 * (same_along - jnp.swapaxes(proposal_along, 1, 2)),
            jnp.zeros((g, m, len(directions))),
        ),
        quadratic=_among_directions(blocks, direction, directions),
    )


def _among_directions(
    blocks: Float[Array, "g b m b m"], direction: Float[Array, "g k"], directions: tuple[int, ...]
) -> Float[Array, "g m k m k"]:
    """Inner products of the directions of all pairs of particles."""
    index = jnp.asarray(directions)
    among = blocks[:, index][:, :, :, index]
    weighted = among * direction[:, :, None, None, None] * direction[:, None, None, :, None]
    return weighted.transpose(0, 2, 1, 4, 3)


def _combined(coefficients: Float[Array, "g b"], blocks: Float[Array, "g b ..."]) -> Array:
    """The sum ``sum_b coefficients_b blocks_b``: few terms, added one by one in full precision."""
    shape = (len(blocks),) + (1,) * (blocks.ndim - 2)
    terms = [coefficients[:, i].reshape(shape) * blocks[:, i] for i in range(blocks.shape[1])]
    return functools.reduce(jnp.add, terms)


def _with_diagonal(
    matrix: Float[Array, "g m m *k"], diagonal: Float[Array, "g m *k"]
) -> Float[Array, "g m m *k"]:
    """The matrices with other diagonals."""
    m = matrix.shape[1]
    on = jnp.eye(m, dtype=bool).reshape(1, m, m, *(1,) * (matrix.ndim - 3))
    return jnp.where(on, diagonal[:, :, None], matrix)
