import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import discrepancy, gram

GROUPS, ROWS, DIM = 3, 7, 12_288


@pytest.fixture(scope="module")
def rows():
    return jnp.asarray(np.random.default_rng(0).normal(size=(GROUPS, ROWS, DIM)), jnp.float32)


@pytest.fixture(scope="module")
def matrix(rows):
    return jax.jit(gram.gram_matrix)(rows)


@pytest.fixture(scope="module")
def coefficients():
    rng = np.random.default_rng(1)
    x, y = (jnp.asarray(rng.normal(size=(GROUPS, n, ROWS)), jnp.float32) for n in (4, 5))
    return x, y


def exact_squares(rows, x, y):
    """|x_i - y_j|^2 of the particles themselves, in float64."""
    rows, x, y = (np.float64(v) for v in (rows, x, y))
    return np.square((x[:, :, None] - y[:, None]) @ rows[:, None]).sum(-1)


def test_gram_matrix_holds_the_inner_products(rows, matrix):
    exact = np.float64(rows)
    np.testing.assert_allclose(matrix, exact @ exact.swapaxes(1, 2), rtol=1e-5, atol=1e-2)
    np.testing.assert_array_equal(matrix, np.swapaxes(matrix, 1, 2))


def test_gram_matrix_of_half_precision_is_accumulated_in_float32(rows):
    half = rows.astype(jnp.bfloat16)
    found = gram.gram_matrix(half)
    assert found.dtype == jnp.float32
    exact = np.asarray(half.astype(jnp.float32), np.float64)
    np.testing.assert_allclose(found, exact @ exact.swapaxes(1, 2), rtol=1e-5, atol=1e-2)


def test_squares_of_coefficients_are_those_of_the_particles(rows, matrix, coefficients):
    x, y = coefficients
    found = gram.squared_distances(matrix, x, y)
    particles = [jnp.einsum("gmq,gqd->gmd", v, rows, precision="highest") for v in (x, y)]
    direct = jax.vmap(discrepancy.squared_distances)(*particles)
    np.testing.assert_allclose(found, direct, rtol=1e-4)
    np.testing.assert_allclose(found, exact_squares(rows, x, y), rtol=1e-5)


def test_squares_to_the_origin_are_the_quadratic_form(matrix, coefficients):
    """|u|^2 = u^T G u."""
    u = coefficients[0]
    found = gram.squared_distances(matrix, u, jnp.zeros((GROUPS, 1, ROWS)))[:, :, 0]
    u, matrix = np.float64(u), np.float64(matrix)
    np.testing.assert_allclose(found, np.sum((u @ matrix) * u, axis=-1), rtol=1e-5)


def test_squares_of_a_set_with_itself_vanish_on_the_diagonal(matrix, coefficients):
    x = coefficients[0]
    squares = gram.squared_distances(matrix, x, x)
    np.testing.assert_array_equal(np.diagonal(squares, axis1=1, axis2=2), 0.0)
    np.testing.assert_allclose(squares, np.swapaxes(squares, 1, 2), rtol=1e-6)


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_nearly_coincident_particles_keep_their_distance(rows, matrix, coefficients, gap):
    x = coefficients[0]
    y = x + gap * coefficients[1][:, :4]
    np.testing.assert_allclose(
        gram.squared_distances(matrix, x, y), exact_squares(rows, x, y), rtol=2e-5
    )


def test_gradients_are_those_of_the_particles(rows, matrix, coefficients):
    x, y = coefficients

    def from_matrix(x):
        return jnp.sum(jnp.sqrt(gram.squared_distances(matrix, x, y)))

    def from_particles(x):
        u = jnp.asarray(x[:, :, None] - y[:, None])
        return jnp.sum(jnp.linalg.norm(jnp.einsum("gmnq,gqd->gmnd", u, rows), axis=-1))

    np.testing.assert_allclose(
        jax.jit(jax.grad(from_matrix))(x), jax.jit(jax.grad(from_particles))(x), rtol=1e-3, atol=0.1
    )
