from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from lgd import schedules
from lgd.types import Schedule

ALL = {name: make() for name, make in schedules.BY_NAME.items()} | {
    "linear_vp_steep": schedules.linear_vp(1.0, 180.0),
    "edm_narrow": schedules.edm(0.1, 10.0, 3.0),
}
GRID = np.concatenate(
    [
        [0.0, 1e-30, 1e-12],
        np.geomspace(1e-6, 0.1, 20),
        np.linspace(0.12, 0.88, 24),
        1.0 - np.geomspace(0.1, 1e-6, 20),
        [1.0 - 2.0**-24, 1.0],
    ]
).astype(np.float32)
CLOSE = (GRID >= 1e-6) & (GRID <= 1.0 - 1e-6)  # where neighbours on the grid differ in logsnr
INTERIOR = (GRID > 0.02) & (GRID < 0.98)


def vp_definition(beta_min, beta_max):
    """From the rate, by quadrature."""

    def integral(t):
        return quad(lambda u: beta_min + u * (beta_max - beta_min), 0.0, t)[0]

    return (
        np.vectorize(lambda t: np.exp(-0.5 * integral(t))),
        np.vectorize(lambda t: np.sqrt(-np.expm1(-integral(t)))),
    )


def edm_definition(sigma_min, sigma_max, rho):
    """Karras et al. (2022), Eq. 5, where their i / (N - 1) is 1 - t."""

    def sigma(t):
        hi, lo = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
        return (hi + (1.0 - t) * (lo - hi)) ** rho

    return np.ones_like, sigma


DEFINITIONS = {  # (alpha, sigma) in float64
    "rectified_flow": (lambda t: 1.0 - t, lambda t: t),
    "cosine": (lambda t: np.sin(np.pi * (1.0 - t) / 2), lambda t: np.sin(np.pi * t / 2)),
    "linear_vp": vp_definition(0.1, 20.0),
    "linear_vp_steep": vp_definition(1.0, 180.0),
    "edm": edm_definition(0.002, 80.0, 7.0),
    "edm_narrow": edm_definition(0.1, 10.0, 3.0),
}
END_VALUES = {  # (alpha, sigma) at 0, then at 1
    "rectified_flow": ((1.0, 0.0), (0.0, 1.0)),
    "cosine": ((1.0, 0.0), (0.0, 1.0)),
    "linear_vp": ((1.0, 0.0), (np.exp(-5.025), np.sqrt(1.0 - np.exp(-10.05)))),
    "linear_vp_steep": ((1.0, 0.0), (np.exp(-45.25), 1.0)),
    "edm": ((1.0, 0.002), (1.0, 80.0)),
    "edm_narrow": ((1.0, 0.1), (1.0, 10.0)),
}


@pytest.fixture(params=ALL, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def schedule(name):
    return ALL[name]


@pytest.fixture(scope="module")
def exact(name):
    """Values and slopes of the definition on the grid, in float64."""
    t, h = GRID.astype(np.float64), 1e-6
    alpha, sigma = DEFINITIONS[name]
    with np.errstate(divide="ignore"):
        logsnr = 2 * (np.log(alpha(t)) - np.log(sigma(t)))
    inside = np.clip(t, 0.01, 0.99)
    rates = [(f(inside + h) - f(inside - h)) / (2 * h) for f in (alpha, sigma)]
    return SimpleNamespace(alpha=alpha(t), sigma=sigma(t), logsnr=logsnr, rates=rates)


@pytest.fixture(scope="module")
def measured(schedule):
    """Values and slopes of the schedule on the grid, and its slopes along the way back."""

    @jax.jit
    def evaluate(t):
        maps = {
            "alpha": schedule.alpha,
            "sigma": schedule.sigma,
            "logsnr": schedule.logsnr,
            "clipped": lambda u: schedules.clipped_logsnr(schedule, u),
            "inverted": lambda u: schedule.t_from_logsnr(schedule.logsnr(u)),
        }
        values = {name: f(t) for name, f in maps.items()}
        slopes = {name: jax.vmap(jax.grad(f))(t) for name, f in maps.items()}
        return values, slopes, schedules.rates(schedule, t)

    values, slopes, rates = jax.tree.map(np.asarray, evaluate(GRID))
    return SimpleNamespace(**values, slopes=SimpleNamespace(**slopes), rates=rates)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("part", ["alpha", "sigma", "logsnr"])
def test_values_follow_the_definition_to_the_very_ends(exact, measured, part):
    np.testing.assert_allclose(
        getattr(measured, part), getattr(exact, part), rtol=2e-5, atol=1e-5 * (part == "logsnr")
    )


def test_end_values_vanish_exactly_where_they_should(name, measured):
    both = np.stack([measured.alpha, measured.sigma], axis=-1)[[0, -1]]
    expected = np.asarray(END_VALUES[name])
    np.testing.assert_allclose(both, expected, rtol=2e-5)
    assert ((both == 0.0) == (expected == 0.0)).all()


@pytest.mark.parametrize("part", ["alpha", "sigma", "clipped"])
def test_values_and_derivatives_are_finite_on_the_closed_interval(measured, part):
    assert np.isfinite(getattr(measured, part)).all()
    assert np.isfinite(getattr(measured.slopes, part)).all()


def test_logsnr_and_its_derivative_are_finite_close_to_the_ends(measured):
    assert np.isfinite(measured.logsnr[1:-1]).all()
    assert np.isfinite(measured.slopes.logsnr[CLOSE]).all()


def test_logsnr_is_strictly_decreasing(measured):
    with_ends = np.concatenate([measured.logsnr[:1], measured.logsnr[CLOSE], measured.logsnr[-1:]])
    assert (np.diff(with_ends) < 0).all()


def test_t_from_logsnr_inverts_logsnr_infinite_ends_included(measured):
    np.testing.assert_allclose(measured.inverted, GRID, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(measured.slopes.inverted[INTERIOR], 1.0, rtol=1e-3)


def test_rates_are_the_slopes_of_the_definition(exact, measured):
    for rate, expected in zip(measured.rates, exact.rates, strict=True):
        np.testing.assert_allclose(rate[INTERIOR], expected[INTERIOR], rtol=1e-4, atol=1e-6)


def test_clipped_logsnr_is_logsnr_within_the_limit(exact, measured):
    np.testing.assert_allclose(
        measured.clipped, np.clip(exact.logsnr, -20.0, 20.0), rtol=1e-3, atol=1e-5
    )
    assert (np.abs(measured.clipped) <= 20.0).all()
    inside = np.abs(exact.logsnr) < 19.9
    np.testing.assert_array_equal(measured.clipped[inside], measured.logsnr[inside])
    np.testing.assert_allclose(
        measured.slopes.clipped[inside & CLOSE], measured.slopes.logsnr[inside & CLOSE], rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(), (2, 3)])
@pytest.mark.parametrize("part", ["alpha", "sigma", "logsnr", "t_from_logsnr"])
def test_maps_keep_any_shape(schedule, part, shape):
    t = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert jax.eval_shape(getattr(schedule, part), t) == t


def test_schedules_are_contracts_equal_by_value(name, schedule):
    assert isinstance(schedule, Schedule)
    twin = type(schedule)(**vars(schedule))
    assert (twin, hash(twin)) == (schedule, hash(schedule))
    assert schedule not in [other for key, other in ALL.items() if key != name]


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.9, 0.2)])
def test_uniform_times_are_equally_spaced(start, end):
    times = np.asarray(schedules.uniform_times(8, start=start, end=end))
    np.testing.assert_allclose(np.diff(times), (end - start) / 8, rtol=1e-5)
    assert (times[0], times[-1]) == (np.float32(start), np.float32(end))


@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.9, 0.2)])
def test_logsnr_times_are_equally_spaced_in_logsnr(schedule, start, end):
    @jax.jit
    def grid():
        times = schedules.logsnr_times(8, schedule, start=start, end=end)
        ends = schedule.logsnr(jnp.asarray([start, end]))
        return times, schedule.logsnr(times[1:-1]), jnp.clip(ends, -20.0, 20.0)

    times, inner, ends = jax.tree.map(np.asarray, grid())
    assert times.shape == (9,)
    assert (times[0], times[-1]) == (np.float32(start), np.float32(end))
    assert (np.diff(times) < 0).all()
    np.testing.assert_allclose(inner, np.linspace(*ends, 9)[1:-1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "lowest"),
    [("rectified_flow", 0.002), ("cosine", 0.002), ("linear_vp", 0.002), ("edm", 0.02)],
)
def test_edm_times_walk_the_published_grid(name, lowest):
    num_steps = 18

    @jax.jit
    def grid():
        times = schedules.edm_times(num_steps, ALL[name], sigma_min=lowest)
        return times, ALL[name].sigma(times) / ALL[name].alpha(times)

    times, ratios = jax.tree.map(np.asarray, grid())
    i = np.arange(num_steps)
    published = (80 ** (1 / 7) + i / (num_steps - 1) * (lowest ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(ratios[:-1], published, rtol=2e-4)
    assert times.shape == (num_steps + 1,)
    assert times[0] <= 1.0
    assert times[-1] == 0.0
    assert (np.diff(times) < 0).all()


def test_edm_times_on_edm_start_at_1_in_spite_of_rounding():
    assert schedules.edm_times(18, schedules.edm(), sigma_min=0.02)[0] <= 1.0


@pytest.mark.parametrize("num_steps", [4, 9])
def test_uniform_times_on_edm_are_its_rho_grid(num_steps):
    sigmas = schedules.edm().sigma(schedules.uniform_times(num_steps))
    i = np.arange(num_steps + 1)
    published = (80 ** (1 / 7) + i / num_steps * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(sigmas, published, rtol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: schedules.linear_vp(0.0, 1.0),
        lambda: schedules.linear_vp(2.0, 1.0),
        lambda: schedules.edm(0.0, 1.0),
        lambda: schedules.edm(2.0, 1.0),
        lambda: schedules.edm(rho=0.0),
        lambda: schedules.uniform_times(0),
        lambda: schedules.uniform_times(4, start=0.2, end=0.2),
        lambda: schedules.uniform_times(4, start=1.1),
        lambda: schedules.uniform_times(4, end=-0.1),
        lambda: schedules.uniform_times(4, start=float("nan")),
        lambda: schedules.logsnr_times(0, schedules.cosine()),
        lambda: schedules.logsnr_times(4, schedules.cosine(), start=0.1, end=0.2),
        lambda: schedules.edm_times(1, schedules.cosine()),
        lambda: schedules.edm_times(4, schedules.cosine(), sigma_min=1.0, sigma_max=0.5),
        lambda: schedules.edm_times(4, schedules.edm()),
        lambda: schedules.edm_times(4, schedules.edm(), sigma_min=0.01, sigma_max=90.0),
        lambda: schedules.edm_times(4, schedules.linear_vp(), sigma_max=200.0),
    ],
)
def test_bad_arguments_raise(call):
    with pytest.raises(ValueError, match=r"expected .*, got"):
        call()
