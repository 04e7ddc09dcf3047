import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import guidance, schedules
from lgd.exchange import schedules as exchange

T = np.array([0.0, 0.25, 0.5, 0.75, 1.0], np.float32)
INF, NAN = float("inf"), float("nan")
FLOW = schedules.rectified_flow()
LABELS = np.asarray([0, 1, 1, 2, 2], np.int32)
PER_CLASS = guidance.limited_interval_per_class([1.0, 2.0, 3.0], [0.5, 0.25, 0.0], [1.0, 0.5, 1.0])


@pytest.fixture(scope="module")
def predictions():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 2, 3)), jnp.float32)


def evaluate(omega_fn, t=T, c=None):
    t = jnp.asarray(t)
    c = jnp.zeros(len(t), jnp.int32) if c is None else jnp.asarray(c)
    values = omega_fn(s=0.5 * t, t=t, c=c)
    assert (values.shape[0], values.dtype) == (len(t), t.dtype)
    return np.asarray(values)


@pytest.mark.parametrize("omega", [0.0, 0, jnp.zeros(5)])
def test_no_guidance_is_the_conditional_prediction_to_the_bit(predictions, omega):
    cond, uncond = predictions
    np.testing.assert_array_equal(guidance.mix(cond, uncond, omega), cond)


@pytest.mark.parametrize("omega", [-1.0, -1, -jnp.ones(5)])
def test_minus_one_is_the_unconditional_prediction_to_the_bit(predictions, omega):
    cond, uncond = predictions
    np.testing.assert_array_equal(guidance.mix(cond, uncond, omega), uncond)


@pytest.mark.parametrize("omega", [2.5, jnp.array([-2.0, -0.5, 0.25, 1.0, 7.0])])
def test_mix_extrapolates_from_uncond_through_cond(predictions, omega):
    cond, uncond = np.float64(predictions)
    weight = np.broadcast_to(np.float64(omega), 5)[:, None, None]
    expected = (1.0 + weight) * cond - weight * uncond
    np.testing.assert_allclose(guidance.mix(*predictions, omega), expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_mix_is_the_difference_of_the_predictions(predictions):
    cond, uncond = predictions
    omega = jnp.array([-1.0, -0.5, 0.0, 0.3, 4.0])
    probe = jnp.cos(jnp.arange(30.0)).reshape(cond.shape)
    slopes = jax.grad(lambda w: jnp.sum(probe * guidance.mix(cond, uncond, w)))(omega)
    expected = np.sum(probe * (cond - uncond), axis=(1, 2))
    np.testing.assert_allclose(slopes, expected, rtol=1e-5, atol=1e-5)


# With s = t / 2, r is 3/7, 1/3, 1/5, and 0 at both ends; 1 - k r = (1 - r) (1 + r / 4)
CHURNED = [-0.4, *(0.6 / ((1.0 - r) * (1.0 + r / 4.0)) - 1.0 for r in (3 / 7, 1 / 3, 1 / 5)), -0.4]
FORMULAS = [  # of every family, computed by hand
    (guidance.constant(0.7), [0.7, 0.7, 0.7, 0.7, 0.7]),
    (guidance.limited_interval(0.7, 0.25, 0.75), [0.0, 0.7, 0.7, 0.7, 0.0]),
    (guidance.sigma_interval(0.7, 0.4, 1.5, schedule=FLOW), [0.0, 0.0, 0.7, 0.0, 0.0]),
    (PER_CLASS, [0.0, 2.0, 2.0, 3.0, 3.0]),  # of labels 0, 1, 1, 2, 2
    (guidance.logsnr_interval(0.7, -3.0, 1.0, schedule=FLOW), [0.0, 0.0, 0.7, 0.7, 0.0]),
    (guidance.linear(2.0), [3.0, 2.0, 1.0, 0.0, -1.0]),
    (guidance.clamp_linear(2.0), [3.0, 2.0, 1.0, 0.0, 0.0]),
    (guidance.clamp_linear(2.0, 2.5), [3.0, 2.0, 1.5, 1.5, 1.5]),
    (guidance.clamp_linear(0.0), [0.0, 0.0, 0.0, 0.0, 0.0]),
    (guidance.cosine(2.0), [3.0, 2.414214, 1.0, -0.414214, -1.0]),
    (guidance.clamp_cosine(2.0), [3.0, 2.414214, 1.0, 0.0, 0.0]),
    (guidance.clamp_cosine(2.0, 1.5), [3.0, 2.414214, 1.0, 0.5, 0.5]),
    (guidance.clamp_cosine(0.0, 1.0), [0.0, 0.0, 0.0, 0.0, 0.0]),
    (guidance.power_cosine(4.0, 1.0), [3.0, 2.414214, 1.0, -0.414214, -1.0]),
    (guidance.power_cosine(4.0, 2.0), [3.0, 1.390181, -0.414214, -0.961571, -1.0]),
    (guidance.power_cosine(4.0, 0.5), [3.0, 2.825449, 2.211400, 1.0, -1.0]),
    (guidance.exponential(2.0, np.log(4.0)), [7.0, 4.656854, 3.0, 1.828427, 1.0]),
    (guidance.stagewise_triangle(1.0), [0.0, 1.0, 2.0, 1.0, 0.0]),
    (guidance.stagewise_triangle(3.0, 0.25), [0.0, 2.0, 4.0, 6.0, 0.0]),
    (guidance.beta_density(2.0), [-1.0, 1.25, 2.0, 1.25, -1.0]),  # 12 p (1 - p) - 1
    (guidance.beta_density(1.0, 1.0, 1.0), [0.0] * 5),
    (guidance.cfg_plus_plus(0.6, schedule=FLOW), [-0.4, 0.05, -0.1, -0.25, -0.4]),
    (guidance.cfg_plus_plus(0.6, 0.5, schedule=FLOW), CHURNED),
    (guidance.fitted_cfg(0.0, schedule=FLOW), [0.0] * 5),
    (guidance.fitted_cfg(1.0, schedule=FLOW), [0.0, 3.0 / 7.0, 1.0 / 3.0, 0.2, 0.0]),
    (guidance.fitted_cfg(-1.0, schedule=FLOW), [-1.0] * 5),
    (guidance.constant_directions(0.7, -0.2), [[0.7, -0.2]] * 5),
]
SHAPES = {schedule.family: np.shape(expected) for schedule, expected in FORMULAS}


@pytest.mark.parametrize(("schedule", "expected"), FORMULAS, ids=lambda value: str(value)[:30])
def test_schedules_have_the_values_computed_by_hand(schedule, expected):
    np.testing.assert_allclose(evaluate(schedule, c=LABELS), expected, atol=2e-6)


def smallest(family, **changes):
    """The schedule of a family at the smallest values of its grid."""
    values = {name: min(field.grid) for name, field in family.fields.items() if field.grid}
    values |= changes
    if family.is_per_stratum:
        values = {name: [value] * 3 for name, value in values.items()}
    if family.takes_schedule:
        values["schedule"] = FLOW
    return family.make(**values)


@pytest.mark.parametrize("name", guidance.FAMILIES)
def test_every_family_keeps_what_schedules_promise(name, tmp_path):
    """A row of the table without a formula above fails here."""
    family = guidance.FAMILIES[name]
    schedule = smallest(family)
    assert (schedule.family, schedule.num_features) == (name, 0)
    assert not guidance.takes_features(schedule)
    values = evaluate(schedule, c=LABELS)
    assert values.shape == SHAPES[name]
    assert np.isfinite(values).all()
    compiled = jax.jit(lambda s, t, c: schedule(s=s, t=t, c=c))
    in_jit = compiled(0.5 * jnp.asarray(T), jnp.asarray(T), jnp.asarray(LABELS))
    np.testing.assert_allclose(in_jit, values, rtol=1e-6, atol=1e-6)

    same, file = smallest(family), tmp_path / "a.json"
    other = smallest(family, **{next(iter(family.fields)): 0.75})
    assert same == schedule != other
    assert hash(same) == hash(schedule)
    assert len({schedule, same, other}) == 2
    exchange.write(file, [exchange.entry(schedule, name="a")])
    assert exchange.read([str(file)], num_strata=3, schedule=FLOW) == {"a": schedule}


@pytest.mark.parametrize("name", guidance.FAMILIES)
def test_grids_of_families_increase_within_what_their_fields_hold(name):
    for field in guidance.FAMILIES[name].fields.values():
        assert list(field.grid) == sorted(set(field.grid))
        bounds = (field.low, field.high, *field.growth)
        assert all(field.low <= value <= field.high for value in field.grid), bounds
        assert all(field.growth[0] <= value <= field.growth[1] for value in field.grid), bounds


def test_schedules_are_equal_where_family_and_values_are():
    assert guidance.constant(0.1 + 0.2) != guidance.constant(0.3)
    assert guidance.linear(1.0) != guidance.cosine(1.0)
    assert guidance.clamp_linear(2.0) == guidance.clamp_linear(2.0, 1.0)
    in_flow, in_edm = (
        guidance.logsnr_interval(1.0, 0.0, 1.0, schedule=schedule)
        for schedule in (FLOW, schedules.edm())
    )
    assert in_flow != in_edm


@pytest.mark.parametrize(
    ("schedule", "text", "params"),
    [
        (guidance.constant(0.1 + 0.2), "constant(0.3)", {"w": 0.1 + 0.2}),
        (guidance.limited_interval(2.0, 0.0, 0.5), "limited_interval(2, 0, 0.5)",
         {"w": 2.0, "lo": 0.0, "hi": 0.5}),
        (guidance.clamp_linear(0.7), "clamp_linear(0.7)", {"cfg_scale": 0.7}),
        (guidance.clamp_linear(0.7, 1.5), "clamp_linear(0.7, 1.5)",
         {"cfg_scale": 0.7, "cfg_floor": 1.5}),
        (guidance.limited_interval_per_class([1.0, 2.0], [0.0, 0.5], [0.5, 1.0]),
         "limited_interval_per_class(..., ..., ...)",
         {"w": [1.0, 2.0], "lo": [0.0, 0.5], "hi": [0.5, 1.0]}),
    ],
)  # fmt: skip
def test_a_schedule_shows_its_values(schedule, text, params):
    assert str(schedule) == text
    assert schedule.params == params


@pytest.mark.parametrize(
    "omega_fn",
    [
        guidance.limited_interval(3.0, 0.2, 0.8),
        guidance.limited_interval_per_class([3.0], [0.2], [0.8]),
    ],
)
def test_interval_is_closed(omega_fn):
    t = np.float32([0.2 - 1e-5, 0.2, 0.8, 0.8 + 1e-5])
    np.testing.assert_array_equal(evaluate(omega_fn, t), [0.0, 3.0, 3.0, 0.0])


INTERVALS = {
    "limited_interval": lambda lo, hi: guidance.limited_interval(1.0, lo, hi),
    "limited_interval_per_class": lambda lo, hi: guidance.limited_interval_per_class(
        [1.0], [lo], [hi]
    ),
    "logsnr_interval": lambda lo, hi: guidance.logsnr_interval(
        1.0, *(2.0 * np.log((1.0 - t) / t) for t in (hi, lo)), schedule=FLOW
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("num_steps", [10, 20, 25, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", INTERVALS)
def test_an_interval_whose_ends_are_times_of_the_grid_guides_both(family, num_steps):
    """The ends are written as users write them, ``lo = 3 / 20``, and so miss the grid's float32."""
    t = schedules.uniform_times(num_steps)[:-1]
    for first, last in itertools.combinations(range(1, num_steps), 2):
        omega = evaluate(INTERVALS[family](first / num_steps, last / num_steps), t, c=[0] * len(t))
        assert np.sum(omega == 1.0) == last - first + 1, (first, last)


def test_an_interval_in_sigma_leaves_out_its_lower_end_alone():
    """Sigmas of EDM's grid, written with the digits that users see."""
    edm = schedules.edm()
    t = schedules.uniform_times(18)[:-1]
    sigma = np.float64(edm.sigma(t))
    for first, last in itertools.combinations(range(18), 2):
        lo, hi = (float(f"{sigma[index]:.7g}") for index in (last, first))
        omega = evaluate(guidance.sigma_interval(1.0, lo, hi, schedule=edm), t)
        assert np.sum(omega == 1.0) == last - first, (first, last)


@pytest.mark.parametrize(
    ("lo", "hi", "expected"),
    [
        (-1.0, 3.0, [0.0, 2.0, 2.0, 0.0, 0.0]),
        (-INF, 0.0, [0.0, 0.0, 2.0, 2.0, 2.0]),
        (0.0, INF, [2.0, 2.0, 2.0, 0.0, 0.0]),
    ],
)
def test_interval_in_logsnr(lo, hi, expected):
    """Rectified flow has logsnr 2 log 3 = 2.197 at t = 1/4, 0 at 1/2 and -2.197 at 3/4."""
    omega_fn = guidance.logsnr_interval(2.0, lo, hi, schedule=FLOW)
    np.testing.assert_array_equal(evaluate(omega_fn), expected)


def test_interval_of_every_label():
    omega_fn = guidance.limited_interval_per_class([1.0, 2.0], [0.0, 0.5], [0.25, 1.0])
    np.testing.assert_array_equal(evaluate(omega_fn, c=[0] * 5), [1.0, 1.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(evaluate(omega_fn, c=[1] * 5), [0.0, 0.0, 2.0, 2.0, 2.0])
    np.testing.assert_array_equal(evaluate(omega_fn, c=[0, 0, 1, 0, 1]), [1.0, 1.0, 2.0, 0.0, 2.0])


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1, -(2**31)])
def test_a_label_without_an_interval_has_no_weight_and_not_that_of_a_neighbour(label):
    """NaN inside and outside of its neighbours' intervals; an error where values are known."""
    c = jnp.asarray([0, label, 1, label, 2], jnp.int32)
    np.testing.assert_array_equal(evaluate(PER_CLASS, c=c), [0.0, NAN, 2.0, NAN, 3.0])
    times = jnp.asarray([1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="expected conditions that limited_interval_per_class"):
        guidance.on_grid(PER_CLASS, times, c)
    in_jit = jax.jit(lambda c: guidance.on_grid(PER_CLASS, times, c))(c)
    np.testing.assert_array_equal(
        np.isnan(in_jit), np.tile([False, True, False, True, False], (2, 1))
    )


@pytest.mark.parametrize("structure", ["labels", "dict"])
def test_on_grid_holds_omega_of_every_step_and_example(structure):
    labels = jnp.array([1, 2, 3, 4])
    c = labels if structure == "labels" else {"label": labels, "vector": jnp.zeros((4, 7))}

    def digits(*, s, t, c):
        return 100.0 * t + 10.0 * s + (c if structure == "labels" else c["label"])

    table = guidance.on_grid(digits, jnp.array([4.0, 2.0, 1.0]), c)
    np.testing.assert_array_equal(table, [[421.0, 422, 423, 424], [211.0, 212, 213, 214]])


def test_pair_features_are_log_sizes_and_the_angle():
    """Of 3 e_1 and 4 e_2 in two dimensions, shaped (2, 1): sizes 3, 4 and 5 over sqrt 2."""
    cond, uncond = jnp.zeros((2, 2, 1)).at[0, 0].set(3.0), jnp.zeros((2, 2, 1)).at[0, 1].set(4.0)
    found = guidance.pair_features(cond, uncond)
    assert found.shape == (2, len(guidance.PAIR_FEATURES))
    expected = [*np.log(np.asarray([3.0, 4.0, 5.0]) / np.sqrt(2.0)), 0.0]
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found[1], [np.log(1e-6)] * 3 + [0.0], rtol=1e-6)
    opposite = guidance.pair_features(cond, -cond)
    np.testing.assert_allclose(opposite[0, 3], -1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: guidance.constant(NAN),
        lambda: guidance.limited_interval(INF, 0.2, 0.8),
        lambda: guidance.limited_interval(1.0, 0.8, 0.8),
        lambda: guidance.limited_interval(1.0, -0.1, 0.8),
        lambda: guidance.limited_interval(1.0, 0.2, 1.1),
        lambda: guidance.limited_interval(1.0, NAN, 0.8),
        lambda: guidance.logsnr_interval(1.0, 3.0, 2.0, schedule=schedules.cosine()),
        lambda: guidance.logsnr_interval(1.0, NAN, 2.0, schedule=schedules.cosine()),
        lambda: guidance.constant_directions(1.0, INF),
        lambda: guidance.limited_interval_per_class([1.0], [0.1], [0.5, 0.6]),
        lambda: guidance.limited_interval_per_class([1.0, 1.0], [0.1, 0.7], [0.5, 0.6]),
        lambda: guidance.limited_interval_per_class([1.0, NAN], [0.1, 0.2], [0.5, 0.6]),
        lambda: guidance.linear(INF),
        lambda: guidance.clamp_linear(1.0, NAN),
        lambda: guidance.cosine(NAN),
        lambda: guidance.clamp_cosine(INF),
        lambda: guidance.power_cosine(NAN, 1.0),
        lambda: guidance.power_cosine(1.0, 0.0),
        lambda: guidance.exponential(1.0, INF),
        *(lambda peak=peak: guidance.stagewise_triangle(1.0, peak) for peak in (0.0, 1.0, NAN)),
        lambda: guidance.beta_density(1.0, 0.5),
        lambda: guidance.beta_density(1.0, 2.0, 0.9),
        lambda: guidance.cfg_plus_plus(0.6, 1.5, schedule=FLOW),
        lambda: guidance.cfg_plus_plus(NAN, schedule=FLOW),
        lambda: guidance.fitted_cfg(-1.5, schedule=FLOW),
        lambda: guidance.fitted_cfg(1.0, -0.1, schedule=FLOW),
    ],
)
def test_bad_arguments_raise(call):
    with pytest.raises(ValueError, match="expected"):
        call()
