"""Calls left out where omega is 0: the same samples, fewer rows, few compilations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import guidance, sampling, schedules
from lgd.denoisers import Directions, from_function
from lgd.evaluation import Generator
from lgd.guidance import skipping
from lgd.machinery import parallel

SCHEDULE = schedules.rectified_flow()
SETTINGS = [("ddim", 0.0), ("ddim", 1.0), ("heun", 0.0), ("dpmpp_2m", 0.0)]
CLASSES = jnp.asarray([0, 1, 1, 0, 0, 1, 0], jnp.int32)
TIMES = schedules.uniform_times(6)


EMBEDDING = jnp.asarray([[1.0, 0.2], [-0.8, 0.9], [0.1, -1.2]])


@functools.cache
def small():
    """A denoiser that is quick to compile, and its params; class 2 is the null one."""

    def network(params, x_t, t, c):
        return jnp.tanh(x_t * t[:, None] + params[c])

    return from_function(network, schedule=SCHEDULE, kind="x0", null=2), EMBEDDING


def table(weights=(0.7, 1.5), lower=(0.0, 0.4), upper=(0.5, 0.7)):
    fn = guidance.limited_interval_per_class(list(weights), list(lower), list(upper))
    return guidance.on_grid(fn, TIMES, CLASSES)


PATTERNS = {
    "per class": table(),
    "one sample at one step": jnp.zeros((6, 7)).at[3, 2].set(1.0),
    "negative too": jnp.where(table() > 0.0, -0.5, 0.0).at[0].set(1.0),
    "everywhere": jnp.full((6, 7), 0.4),
}


def run(omegas, *, skip, solver="ddim", churn=0.0, denoiser=None, params=None, **more):
    if denoiser is None:
        denoiser, params = small()
    return sampling.sample(
        jax.random.key(0),
        denoiser,
        params,
        CLASSES,
        shape=(2,),
        guidance=omegas,
        times=TIMES,
        churn=churn,
        solver=solver,
        skip=skip,
        **more,
    )


@pytest.fixture(autouse=True)
def _quickly(quick_compilation):
    return quick_compilation


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("pattern", "solver", "churn"),
    [("per class", *setting) for setting in SETTINGS]
    + [("one sample at one step", "heun", 0.0), ("negative too", "ddim", 1.0)]
    + [("everywhere", "dpmpp_2m", 0.0)],
)
def test_samples_are_those_of_the_plain_sampler(solver, churn, pattern):
    omegas = PATTERNS[pattern]
    plain = run(omegas, skip=False, solver=solver, churn=churn)
    skipped = run(omegas, skip=True, solver=solver, churn=churn)
    np.testing.assert_allclose(skipped.x0, plain.x0, rtol=1e-4, atol=1e-5)
    unguided = run(0.0 * omegas, skip=False, solver=solver, churn=churn)
    assert np.abs(plain.x0 - unguided.x0).max() > 1e-3
    calls = np.array([2, 2, 2, 2, 2, 1]) if solver == "heun" else np.ones(6)
    promised = np.sum(calls * np.sum(np.asarray(omegas) == 0.0, axis=1)) / 7
    saved = plain.nfe - skipped.nfe
    assert promised * (1.0 - 0.05) - 1e-9 <= saved <= promised + 1e-9


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_without_guidance_half_of_the_calls_are_left(solver):
    plain = run(jnp.zeros((6, 7)), skip=False, solver=solver)
    skipped = run(jnp.zeros((6, 7)), skip=True, solver=solver)
    assert skipped.nfe == plain.nfe / 2 == (6 if solver == "ddim" else 11)
    np.testing.assert_allclose(skipped.x0, plain.x0, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_nfe_is_the_number_of_rows_computed_over_the_samples(solver):
    rows = []

    def network(params, x_t, t, c):
        jax.debug.callback(lambda x: rows.append(len(x)), x_t)
        return 0.5 * x_t

    denoiser = from_function(network, schedule=SCHEDULE, kind="x0", null=2)
    samples = run(table(), skip=True, solver=solver, denoiser=denoiser, params=())
    jax.block_until_ready(samples.x0)
    jax.effects_barrier()
    assert sum(rows) == pytest.approx(samples.nfe * 7)
    assert min(rows) == 7
    assert max(rows) <= 14
    assert samples.nfe == sampling.count_skipping_nfe(table(), solver)
    assert samples.nfe < sampling.count_nfe(denoiser, 1.0, 6, solver)


def test_few_sizes_waste_little():
    rng = np.random.default_rng(0)
    for _ in range(20):
        guided = rng.integers(0, 101, size=30)
        calls = rng.integers(1, 3, size=30)
        sizes = np.asarray(skipping.few_sizes(guided, 100, calls))
        taken = sizes[np.searchsorted(sizes, guided)]
        assert (taken >= guided).all()
        wasted, promised = np.sum(calls * (taken - guided)), np.sum(calls * (100 - guided))
        assert wasted <= skipping.WASTE * promised
        assert len(sizes) < len(np.unique(guided))
    ones = np.ones(4, int)
    assert skipping.few_sizes(np.array([9, 9, 9, 9]), 9, ones) == (9,)
    assert skipping.few_sizes(np.array([0, 100, 0, 0]), 100, ones) == (0, 100)
    assert skipping.few_sizes(np.array([0, 1, 2, 0]), 1000, ones) == (2,)


def test_guided_rows_come_first_in_the_order_of_a_step():
    omegas = np.array([[0.0, 1.0, 0.0, -1.0], [0.0, 0.0, -0.0, 0.0], [1.0, 1.0, 1.0, np.nan]])
    plan = skipping.plan(omegas, np.ones(3, int))
    np.testing.assert_array_equal(plan.order.rows[0], [1, 3, 0, 2])
    np.testing.assert_array_equal(plan.rows_of_steps(), [2, 0, 4])


def test_schedules_that_guide_as_many_share_one_compilation():
    traces = []

    def network(params, x_t, t, c):
        traces.append(len(x_t))
        return jnp.tanh(x_t * t[:, None] + params[c])

    denoiser = from_function(network, schedule=SCHEDULE, kind="x0", null=2)

    def traced(omegas):
        before = len(traces)
        run(omegas, skip=True, denoiser=denoiser, params=EMBEDDING)
        return len(traces) - before

    assert traced(table()) > 0
    others = [table(), table(weights=(0.3, 2.0)), jnp.flip(table(), axis=0)]
    assert [traced(omegas) for omegas in others] == [0, 0, 0]
    assert traced(PATTERNS["everywhere"]) > 0


@pytest.mark.slow
def test_devices_that_share_the_samples_change_nothing():
    omegas = jnp.concatenate([table(), table()[:, :1]], axis=1)
    c = jnp.concatenate([CLASSES, CLASSES[:1]])
    found = [
        sampling.sample(
            jax.random.key(0),
            *small(),
            c,
            shape=(2,),
            guidance=omegas,
            times=TIMES,
            mesh=mesh,
            skip=True,
        )
        for mesh in (None, parallel.make_mesh(8))
    ]
    np.testing.assert_allclose(found[1].x0, found[0].x0, rtol=1e-4, atol=1e-5)
    assert found[1].nfe == found[0].nfe


def test_traced_omegas_are_refused():
    with pytest.raises(ValueError, match="expected concrete omegas"):
        jax.jit(lambda omegas: run(omegas, skip=True).x0)(table())


class Unknown:
    """A rule that says nothing of leaving out calls."""

    def calls(self, num_directions):
        return 2

    def prepare(self, denoiser, times, c):
        return self, None

    def init(self, x, c):
        pass

    def apply(self, denoiser, params, state, x_t, *, step, t, c):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda *, s, t, c, features: t, "expected omega of .*, to skip calls, got another"),
        (guidance.Clipped(lambda *, s, t, c, features: t), "expected omega of .* to skip calls"),
        (Unknown(), "expected guidance by weights alone to skip calls, got"),
        (guidance.Clipped(Unknown()), "expected guidance by weights alone to skip calls, got"),
        (skipping.Skipping((7,)), "expected skip=True, got a rule that skips already"),
    ],
)
def test_what_is_not_known_before_sampling_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        run(given, skip=True)


def test_weights_of_several_directions_are_refused():
    denoiser, params = small()
    with pytest.raises(ValueError, match=r"expected omega of .*, to skip calls, got another"):
        run(
            guidance.constant_directions(1.0, 0.0),
            skip=True,
            denoiser=Directions(denoiser, {"weaker": denoiser}),
            params=(params, {"weaker": params}),
        )


def test_conditions_may_be_trees_of_arrays():
    def network(params, x_t, t, c):
        return x_t * 0.1 + c["text"] + c["label"][:, None]

    null = functools.partial(jax.tree.map, jnp.zeros_like)
    denoiser = from_function(network, schedule=SCHEDULE, kind="x0", null=null)
    c = {"label": CLASSES.astype(jnp.float32), "text": jnp.arange(14.0).reshape(7, 2)}
    walk = {"shape": (2,), "guidance": table(), "times": TIMES}
    each = [
        sampling.sample(jax.random.key(0), denoiser, (), c, skip=skip, **walk).x0
        for skip in (False, True)
    ]
    np.testing.assert_allclose(*each, rtol=1e-5, atol=1e-5)


def test_a_generator_that_skips_draws_the_same_samples_and_counts_its_calls():
    denoiser, params = small()
    plain = Generator(
        denoiser=denoiser,
        params=params,
        shape=(2,),
        conditions=np.arange(2, dtype=np.int32),
        times=schedules.uniform_times(4),
    )
    fn = guidance.limited_interval_per_class([1.0, 2.0], [0.6, 0.0], [1.0, 0.4])
    skipping_one = dataclasses.replace(plain, skip=True)
    each = [generator(fn, 3, seed=1) for generator in (plain, skipping_one)]
    np.testing.assert_allclose(*each, rtol=1e-5, atol=1e-5)
    assert plain.nfe_of(fn, 3) == 8
    assert skipping_one.nfe_of(fn, 3) == 4 + 0.5 * 3  # class 0 at t = 1, .75, class 1 at .25


@pytest.mark.slow
def test_nfe_of_a_generator_that_draws_in_parts_is_what_its_parts_compute():
    rows = []

    def network(params, x_t, t, c):
        jax.debug.callback(lambda x: rows.append(len(x)), x_t)
        return 0.5 * x_t

    generator = Generator(
        denoiser=from_function(network, schedule=SCHEDULE, kind="x0", null=2),
        params=(),
        shape=(2,),
        conditions=np.arange(2, dtype=np.int32),
        times=TIMES,
        skip=True,
        batch=4,
    )
    fn = guidance.limited_interval_per_class([1.0, 2.0], [0.6, 0.0], [1.0, 0.2])
    jax.block_until_ready(generator(fn, 5, seed=0))
    jax.effects_barrier()
    drawn = 3 * 4  # of which 2 x 5 are kept
    assert sum(rows) == pytest.approx(generator.nfe_of(fn, 5) * drawn)
    at_once = dataclasses.replace(generator, batch=0)
    assert abs(at_once.nfe_of(fn, 5) - generator.nfe_of(fn, 5)) > 0.05
