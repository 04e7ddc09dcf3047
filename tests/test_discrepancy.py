import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import foldnorm, norm

from lgd import discrepancy

SETS, SIZE = 1000, 32


@jax.jit
def energy(x, y, beta, lam):
    return discrepancy.energy_distance(x, y, beta=beta, lam=lam)


def folded_normal_mean(mean, std):
    """E|N(mean, std^2)|."""
    return foldnorm.mean(abs(mean) / std, scale=std)


def absolute_moment(mean, std, beta):
    """E|N(mean, std^2)|^beta, by quadrature."""
    spread = abs(mean) + 12.0 * std
    return norm.expect(
        lambda x: abs(x) ** beta, loc=mean, scale=std, lb=-spread, ub=spread, points=[0.0]
    )


def exact_distance(mean, std, beta, lam):
    """Between N(0, 1) and N(mean, std^2): differences of independent normals are normal."""
    cross = absolute_moment(mean, np.hypot(1.0, std), beta)
    within = absolute_moment(0.0, np.sqrt(2.0), beta)
    within += absolute_moment(0.0, np.sqrt(2.0) * std, beta)
    return cross - 0.5 * lam * within


@pytest.fixture(scope="module")
def many_distances():
    """Distances between sets of normals, with the sets drawn anew: (SETS,)."""
    x_key, y_key = jax.random.split(jax.random.key(0))
    x, y = (jax.random.normal(key, (SETS, SIZE, 1)) for key in (x_key, y_key))

    @jax.jit
    def distances(mean, std, beta, lam):
        return jax.vmap(energy, in_axes=(0, 0, None, None))(x, mean + std * y, beta, lam)

    return distances


@pytest.fixture
def two_sets():
    return jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [5.0]])


def test_textbook_value_of_two_gaussians():
    """2E|x-y| - E|x-x'| - E|y-y'| = 0.534 for N(0, 1) and N(1, variance 4): twice Eq. 9."""
    cross = folded_normal_mean(1.0, np.sqrt(5.0))
    within = folded_normal_mean(0.0, np.sqrt(2.0)) + folded_normal_mean(0.0, np.sqrt(8.0))
    assert 2.0 * cross - within == pytest.approx(0.534, abs=5e-4)
    assert exact_distance(1.0, 2.0, 1.0, 1.0) == pytest.approx(0.267, abs=3e-4)


@pytest.mark.parametrize(
    ("mean", "std", "beta", "lam"),
    [
        (1.0, 2.0, 1.0, 1.0),
        (1.0, 2.0, 0.5, 1.0),
        (-0.5, 0.7, 1.75, 1.0),
        (2.0, 1.0, 1.0, 0.5),
        (2.0, 0.5, 1.5, 0.0),
        (1.0, 2.0, 2.0, 1.0),
        (0.0, 1.0, 1.0, 1.0),
        (0.0, 1.0, 1.75, 1.0),
    ],
)
def test_expectation_between_gaussians(many_distances, mean, std, beta, lam):
    """Equal laws, the last rows, have mean 0."""
    found = np.asarray(many_distances(mean, std, beta, lam), np.float64)
    exact = exact_distance(mean, std, beta, lam)
    if (mean, std) == (0.0, 1.0):
        assert exact == pytest.approx(0.0, abs=1e-6)
    standard_error = np.std(found, ddof=1) / np.sqrt(SETS)
    assert standard_error < 0.03 * max(exact, 0.3)
    assert abs(np.mean(found) - exact) < 4.0 * standard_error


@pytest.mark.parametrize(
    ("beta", "lam", "expected"),
    [(1.0, 1.0, 2.0), (1.0, 0.5, 2.75), (1.0, 0.0, 3.5), (2.0, 1.0, 11.0), (2.0, 0.0, 13.5)],
)
def test_two_pairs_by_hand(two_sets, beta, lam, expected):
    """{0, 1} and {3, 5}: distances 3, 5, 2, 4 across, 1 and 2 within."""
    assert energy(*two_sets, beta, lam) == pytest.approx(expected)


def test_for_beta_2_it_is_the_distance_of_means_less_its_bias():
    x, y = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    y = 2.0 * y[:4] + 1.0
    bias = sum(np.var(z, axis=0, ddof=1).sum() / len(z) for z in (x, y))
    expected = np.square(x.mean(0) - y.mean(0)).sum() - bias
    found = jax.jit(functools.partial(discrepancy.energy_distance, beta=2.0))(x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


energy_slope = jax.jit(jax.grad(lambda x, y, beta: energy(x, y, beta, 1.0)))


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.75, 2.0])
def test_gradients_are_finite_with_duplicates_and_right_elsewhere(beta):
    x = np.float32([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
    y = np.float32([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0], [-1.0, 0.5]])
    assert np.isfinite(energy_slope(x, y, beta)).all()
    direction = np.float32([[0.3, -1.0], [0.3, -1.0], [0.2, 0.5]])  # the duplicates move as one
    slope = np.sum(direction * energy_slope(x, y + 0.3, beta))
    ahead, behind = (energy(x + h * direction, y + 0.3, beta, 1.0) for h in (0.01, -0.01))
    np.testing.assert_allclose(slope, (ahead - behind) / 0.02, rtol=2e-3, atol=1e-3)


def test_power_is_flat_at_zero_and_below():
    squares = jnp.array([4.0, 1.0, 0.0, -1e-7, 1e-12])
    value_and_slope = jax.value_and_grad(lambda q: discrepancy.power(q, 1.0))
    value, slope = jax.jit(jax.vmap(value_and_slope))(squares)
    np.testing.assert_allclose(value, [2.0, 1.0, 0.0, 0.0, 1e-6], rtol=1e-6)
    np.testing.assert_allclose(slope, [0.25, 0.5, 0.0, 0.0, 5e5], rtol=1e-6)


def test_squared_distances_are_scipys():
    x, y = np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32)
    found = discrepancy.squared_distances(jnp.asarray(x), jnp.asarray(y[:2]))
    np.testing.assert_allclose(found, cdist(x, y[:2], "sqeuclidean"), rtol=1e-5)


def test_squared_distances_of_close_far_away_points_are_exact():
    x = jnp.array([[1000.0, 2000.0]])
    assert discrepancy.squared_distances(x, x + 0.25)[0, 0] == 0.125


def test_off_diagonal_mean_leaves_self_pairs_out():
    square = jnp.array([[[100.0, 1.0], [2.0, 100.0]], [[7.0, 3.0], [5.0, 9.0]]])
    np.testing.assert_array_equal(discrepancy.off_diagonal_mean(square), [1.5, 4.0])
    assert discrepancy.off_diagonal_mean(square[0, :1, :1]) == 0.0


def test_settings_may_be_arrays_that_a_jitted_function_closes_over(two_sets):
    beta, lam = jnp.asarray(1.0), jnp.asarray(0.5)
    found = jax.jit(lambda x, y: discrepancy.energy_distance(x, y, beta=beta, lam=lam))(*two_sets)
    assert found == pytest.approx(2.75)


def test_one_particle_a_side_is_enough_without_within_terms(two_sets):
    x, y = (z[:1] for z in two_sets)
    assert jax.jit(functools.partial(discrepancy.energy_distance, lam=0.0))(x, y) == 3.0


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"beta": 0.0}, (2, 2)),
        ({"beta": 2.1}, (2, 2)),
        ({"beta": float("nan")}, (2, 2)),
        ({"beta": np.float32(3.0)}, (2, 2)),
        ({"beta": jnp.asarray(-1.0)}, (2, 2)),
        ({"lam": -0.1}, (2, 2)),
        ({"lam": 1.1}, (2, 2)),
        ({"lam": np.float32(2.0)}, (2, 2)),
        ({"lam": 0.5}, (1, 2)),
        ({"lam": np.float32(0.5)}, (2, 1)),
        ({}, (2, 1)),
    ],
)
def test_bad_settings_raise(two_sets, settings, sizes):
    x, y = (z[:n] for z, n in zip(two_sets, sizes, strict=True))
    with pytest.raises(ValueError, match="expected"):
        discrepancy.energy_distance(x, y, **settings)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_particles_that_are_not_finite_are_at_no_distance_of_anything(bad):
    x, y = jnp.ones((3, 2)).at[1, 0].set(bad), jnp.zeros((4, 2))
    assert not jnp.isfinite(discrepancy.energy_distance(x, y, lam=0.0))
    assert not jnp.isfinite(discrepancy.energy_distance(y, x, lam=0.0))


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e-10, 1e10, 1e19, 1e30])
def test_energy_distance_scales_with_the_numbers(scale):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), 1.0 + rng.normal(size=(30, 3))
    whole = discrepancy.energy_distance(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    scaled = (jnp.asarray(scale * each, jnp.float32) for each in (x, y))
    np.testing.assert_allclose(discrepancy.energy_distance(*scaled) / scale, whole, rtol=1e-4)


def test_energy_distance_of_infinite_numbers_is_not_finite():
    x, y = jnp.zeros((2, 1)), jnp.asarray([[0.0], [np.inf]])
    assert not np.isfinite(discrepancy.energy_distance(x, y))
