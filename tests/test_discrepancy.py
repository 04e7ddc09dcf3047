import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import foldnorm, norm

from lgd import discrepancy

SETS, SIZE = 1000, 32
RNG = np.random.default_rng(0)


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
    assert energy(*two_sets, beta, lam) == pytest.approx(expected, abs=1e-6 * 5.0**beta)


def test_for_beta_2_it_is_the_distance_of_means_less_its_bias():
    x, y = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    y = 2.0 * y[:4] + 1.0
    bias = sum(np.var(z, axis=0, ddof=1).sum() / len(z) for z in (x, y))
    expected = np.square(x.mean(0) - y.mean(0)).sum() - bias
    found = jax.jit(functools.partial(discrepancy.energy_distance, beta=2.0))(x, y)
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-6 * cdist(x, y).max() ** 2)


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
    found = jax.jit(functools.partial(discrepancy.energy_distance, lam=0.0))(x, y)
    assert found == pytest.approx(3.0)


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


CLOUDS = (RNG.normal(size=(20, 3)), 1.0 + RNG.normal(size=(30, 3)))
value_and_slopes = jax.jit(
    jax.value_and_grad(
        lambda x, y, beta: discrepancy.energy_distance(x, y, beta=beta), argnums=(0, 1)
    )
)


def plain_energy(x, y, beta, lam=1.0):
    return discrepancy.energy_distance(x, y, beta=beta, lam=lam, any_scale=False)


plain_value_and_slopes = jax.jit(jax.value_and_grad(plain_energy, argnums=(0, 1)))


def clouds(scale=1.0):
    return [jnp.asarray(scale * each, jnp.float32) for each in CLOUDS]


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.75, 2.0])
@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e-10, 1e-7, 1.0, 1e7, 1e10, 1e19, 1e30])
def test_energy_distance_and_its_slopes_scale_with_the_numbers(beta, scale):
    """``scale^beta`` and ``scale^(beta - 1)``, up to rounding, where floats hold it."""
    (value, slopes), (got, got_slopes) = (
        plain_value_and_slopes(*clouds(), beta),
        value_and_slopes(*clouds(scale), beta),
    )
    if 1e-36 < scale**beta < 1e36:
        assert float(got) / scale**beta == pytest.approx(float(value), abs=1e-6 * 3.0**beta)
    for found, slope in zip(got_slopes, slopes, strict=True):
        found = np.asarray(found, np.float64) / scale ** (beta - 1.0)
        np.testing.assert_allclose(found, slope, atol=1e-6 * np.abs(slope).max())


@pytest.mark.parametrize("exponent", [-100, -40, 63, 100])
def test_powers_of_two_are_scales_without_rounding(exponent):
    assert discrepancy.magnitude(*clouds(2.0**exponent)) == 2.0 ** (exponent + 1)  # numbers to 3.7
    value, slopes = value_and_slopes(*clouds(2.0**exponent), 1.0)
    expected, expected_slopes = value_and_slopes(*clouds(2.0**30), 1.0)
    assert value / 2.0**exponent == expected / 2.0**30
    jax.tree.map(np.testing.assert_array_equal, slopes, expected_slopes)


def test_ordinary_numbers_are_not_scaled():
    assert discrepancy.magnitude(*clouds()) == 1.0
    plain = plain_value_and_slopes(*clouds(), 1.75)
    jax.tree.map(np.testing.assert_array_equal, value_and_slopes(*clouds(), 1.75), plain)


@pytest.mark.parametrize("largest", [2.0**127, 3e38, 1e-37])
def test_the_largest_and_smallest_of_floats_have_a_scale(largest):
    """Distances .5, 1, .25 and .75 across, .25 and .5 within."""
    x, y = (jnp.float32(largest * np.array(z)[:, None]) for z in ([0.0, 0.25], [0.5, 1.0]))
    got, slopes = value_and_slopes(x, y, 1.0)
    assert float(got) / largest == pytest.approx(0.25, rel=1e-6)
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_settings_have_slopes_too():
    found, expected = (
        jax.jit(jax.grad(function, argnums=(0, 2, 3)))(*clouds(), 1.3, 0.5)
        for function in (energy, plain_energy)
    )
    for slope, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(slope, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_second_derivatives_scale_with_the_numbers():
    x, y = (each[:3] for each in clouds())
    found = jax.jit(jax.hessian(energy))(1e10 * x, 1e10 * y, 1.5, 1.0) * 1e10**0.5
    np.testing.assert_allclose(found, jax.jit(jax.hessian(plain_energy))(x, y, 1.5), atol=1e-6)


def test_sets_without_particles_have_no_distance(two_sets):
    for x, y in (two_sets, two_sets[::-1]):
        with pytest.raises(ValueError, match="at least 1 particles a side, got"):
            discrepancy.energy_distance(x[:0], y, lam=0.0)


def test_energy_distance_of_infinite_numbers_is_not_finite():
    x, y = jnp.zeros((2, 1)), jnp.asarray([[0.0], [np.inf]])
    assert not np.isfinite(discrepancy.energy_distance(x, y))
