"""Polynomials of distances against float64 particles, and fresh rows against the law they have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from lgd.gram.redraw import factor, redraw
from lgd.objectives.forms import distance_forms, gram_matrix, shared

pytestmark = pytest.mark.usefixtures("quick_compilation")

GROUPS, BLOCKS, PARTICLES, DIM = 3, 5, 4, 12_288
DIRECTIONS = (1, 3)  # blocks that omega multiplies


@pytest.fixture(scope="module")
def rows():
    shape = (GROUPS, BLOCKS * PARTICLES, DIM)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def matrix(rows):
    return jax.jit(gram_matrix)(rows)


@pytest.fixture(scope="module")
def coefficients():
    """Proposal and target (g, b), direction (g, k), and weights (g, m, k)."""
    rng = np.random.default_rng(1)
    shapes = [(GROUPS, BLOCKS)] * 2 + [(GROUPS, 2), (GROUPS, PARTICLES, 2)]
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def particles(rows, proposal, target, direction, omega):
    """x_i(omega) and y_i, in float64: (g, m, d)."""
    blocks = np.float64(rows).reshape(GROUPS, BLOCKS, PARTICLES, -1)
    x, y = (np.einsum("gb,gbmd->gmd", np.float64(c), blocks) for c in (proposal, target))
    for k, block in enumerate(DIRECTIONS):
        weight = np.float64(direction)[:, None, k] * np.float64(omega)[:, :, k]
        x = x + weight[:, :, None] * blocks[:, block]
    return x, y


def squares(x, y):
    return np.square(x[:, :, None] - y[:, None]).sum(-1)


@jax.jit
def forms_at(matrix, proposal, target, direction, omega):
    forms = distance_forms(matrix, proposal, target, direction, directions=DIRECTIONS)
    return forms.cross(omega), forms.within(omega)


def test_gram_matrix_holds_the_inner_products(rows, matrix):
    exact = np.float64(rows)
    np.testing.assert_allclose(matrix, exact @ exact.swapaxes(1, 2), rtol=1e-5, atol=1e-2)
    np.testing.assert_array_equal(matrix, np.swapaxes(matrix, 1, 2))


def test_gram_matrix_of_half_precision_is_accumulated_in_float32(rows):
    half = rows.astype(jnp.bfloat16)
    found = gram_matrix(half)
    assert found.dtype == jnp.float32
    exact = np.asarray(half.astype(jnp.float32), np.float64)
    np.testing.assert_allclose(found, exact @ exact.swapaxes(1, 2), rtol=1e-5, atol=1e-2)


def test_forms_are_the_squared_distances_of_the_particles(rows, matrix, coefficients):
    cross, within = forms_at(matrix, *coefficients)
    x, y = particles(rows, *coefficients)
    near = 2e-6 * squares(x, y).max()
    np.testing.assert_allclose(cross, squares(x, y), rtol=0.0, atol=near)
    np.testing.assert_allclose(within, squares(x, x), rtol=2e-6, atol=0.1)
    np.testing.assert_allclose(np.diagonal(within, axis1=1, axis2=2), 0.0, atol=0.1)


@pytest.mark.slow
def test_forms_of_a_shared_weight_are_those_of_equal_weights(matrix, coefficients):
    proposal, target, direction, _ = coefficients
    forms = distance_forms(matrix, proposal, target, direction[:, :1], directions=(3,))
    w = jnp.asarray([-0.5, 0.0, 2.0])
    each = jnp.broadcast_to(w[:, None, None], (GROUPS, PARTICLES, 1))
    ours = shared(forms)
    near = 1e-5 * np.abs(forms.cross(each)).max()
    np.testing.assert_allclose(ours.cross(w), forms.cross(each), rtol=0.0, atol=near)
    np.testing.assert_allclose(ours.within(w), forms.within(each), rtol=1e-5, atol=0.1)


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-5])
def test_a_particle_close_to_its_own_target_keeps_its_distance(rows, matrix, coefficients, gap):
    proposal, _, direction, _ = coefficients
    target = proposal + gap * jnp.roll(proposal, 1, axis=1)
    omega = jnp.zeros((GROUPS, PARTICLES, 2))
    cross, _ = forms_at(matrix, proposal, target, direction, omega)
    x, y = particles(rows, proposal, target, direction, omega)
    found, exact = (np.diagonal(each, axis1=1, axis2=2) for each in (cross, squares(x, y)))
    np.testing.assert_allclose(found, exact, rtol=5e-6)


def test_gradients_in_omega_are_those_of_the_particles(rows, matrix, coefficients):
    omega = coefficients[3]

    @jax.jit
    @jax.grad
    def gradient(omega):
        cross, within = forms_at(matrix, *coefficients[:3], omega)
        apart = jnp.where(jnp.eye(PARTICLES, dtype=bool), 1.0, within)
        return jnp.sum(jnp.sqrt(cross)) + jnp.sum(jnp.sqrt(apart))

    def value(omega):
        x, y = particles(rows, *coefficients[:3], omega)
        return np.sqrt(squares(x, y)).sum() + np.sqrt(squares(x, x)).sum()

    found, omega, step = np.asarray(gradient(omega)), np.float64(omega), 1e-4
    for index in ((0, 0, 0), (1, 2, 1), (2, 3, 0)):
        moved = np.zeros(omega.shape)
        moved[index] = step
        slope = (value(omega + moved) - value(omega - moved)) / (2 * step)
        near = 1e-5 * np.abs(found).max()
        np.testing.assert_allclose(found[index], slope, rtol=0.0, atol=near)


@pytest.mark.parametrize(("rows_of", "dim"), [(6, 40), (6, 4), (1, 1)])
def test_factors_are_triangular_and_give_the_matrix_back(rows_of, dim):
    each = np.random.default_rng(0).normal(size=(7, rows_of, dim))
    each[3, -1] = each[3, 0]  # one that is singular
    matrix = each @ each.swapaxes(1, 2)
    lower = factor(matrix, dim)
    np.testing.assert_allclose(lower @ lower.swapaxes(1, 2), matrix, atol=1e-9)
    np.testing.assert_array_equal(lower, np.tril(lower))
    np.testing.assert_array_equal(lower[:, :, dim:], 0.0)


def test_factors_of_matrices_with_rounding_are_of_the_nearest_that_is_one():
    matrix = np.diag([4.0, 1.0, -1e-9])[None]
    lower = factor(matrix, 5)
    np.testing.assert_allclose(lower[0], np.diag([2.0, 1.0, 0.0]), atol=1e-12)


@pytest.mark.parametrize("dim", [2, 7, 9, 300])
def test_redrawn_rows_have_the_inner_products_of_normal_rows(dim):
    """6 known rows and 3 fresh ones, by 20,000 draws: means within 5 standard errors.

    <x, z> is N(0, |x|^2), |z|^2 is chi-square with dim degrees of freedom, <z, z'> has mean 0 and
    variance dim; and the known rows keep theirs.
    """
    known, count, draws = 6, 3, 20_000
    each = np.random.default_rng(dim).normal(size=(known, dim))
    lower = factor((each @ each.T)[None], dim)
    lower = jnp.broadcast_to(jnp.asarray(lower, jnp.float32), (draws, known, known))
    both = jax.jit(lambda key: redraw(key, lower, count=count, dim=dim))(jax.random.key(0))
    old, new = (np.asarray(part, np.float64) for part in both)
    np.testing.assert_allclose(old[0] @ old[0].T, each @ each.T, rtol=1e-4, atol=1e-4)
    with_known = np.einsum("gqe,gne->gqn", old, new)
    among = np.einsum("gme,gne->gmn", new, new)
    close(with_known, 0.0)
    close(np.square(with_known), np.sum(each**2, axis=1)[:, None])
    squared = np.diagonal(among, axis1=1, axis2=2)
    close(squared, float(dim))
    close(np.square(squared - dim), 2.0 * dim)
    close(squared <= chi2.ppf(0.1, dim), 0.1)
    apart = np.stack([among[:, i, j] for i, j in ((0, 1), (0, 2), (1, 2))], axis=-1)
    close(apart, 0.0)
    close(np.square(apart), float(dim))


def close(samples, expected):
    """Means over draws within 5 standard errors."""
    error = samples.std(axis=0) / np.sqrt(len(samples))
    gap = np.abs(samples.mean(axis=0) - expected)
    assert (gap <= 5.0 * error + 1e-5).all(), (gap / error).max()
