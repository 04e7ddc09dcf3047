"""Every kind of condition and of unconditional input through every part of the library.

A kind is one row of `KINDS`; what it goes through is the same for all.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd import conditions, encoders, gram, guidance, objectives, omega, sampling, schedules
from lgd.data import Split
from lgd.denoisers import from_function
from lgd.evaluation import Generator, Journal, ValidationScore, tune
from lgd.metrics.energy import ClassEnergyDistance
from lgd.training import Optimizer, Trainer

pytestmark = pytest.mark.usefixtures("quick_compilation")

FLOW, VARIANCE, COUNT = schedules.rectified_flow(), 0.25, 32
TIMES = (1.0, 0.6, 0.3, 0.0)
LABELS = np.arange(COUNT) % 2
CENTRES = np.array([[1.0, 0.5], [-1.0, -0.5]], np.float32)
X0 = CENTRES[LABELS] + VARIANCE**0.5 * np.random.default_rng(0).normal(size=(COUNT, 2))


def posterior(x_t, t, centre, variance):
    """Exact x0_hat of data N(centre, variance)."""
    alpha, sigma = 1.0 - t[:, None], t[:, None]
    gain = variance * alpha / (alpha**2 * variance + sigma**2)
    return centre + gain * (x_t - alpha * centre)


def of_centre(centre_of):
    def function(params, x_t, t, c):
        return posterior(x_t, t, params * centre_of(c), VARIANCE)

    return function


def by_label(c):
    return jnp.concatenate([jnp.asarray(CENTRES), jnp.zeros((1, 2))])[c]


def by_tokens(c):
    weights = c["mask"][:, :, None]
    return (c["tokens"] * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1)


def by_tokens_or_none(c):
    return jnp.zeros((1, 2)) if c is None else by_tokens(c)


def halves(params, x_t, t, c):
    cond = posterior(x_t, t, params * by_tokens(c), VARIANCE)
    return cond, posterior(x_t, t, jnp.zeros((1, 2)), VARIANCE + 1.0)


TOKENS = {
    "tokens": np.repeat(CENTRES[LABELS][:, None], 3, axis=1),
    "mask": np.arange(3)[None] < 1 + (np.arange(COUNT) % 3)[:, None],
}
SHARED = {"schedule": FLOW, "kind": "x0"}
KINDS = {
    "labels, null a label": (LABELS, from_function(of_centre(by_label), null=2, **SHARED)),
    "vectors, null a vector": (
        CENTRES[LABELS],
        from_function(of_centre(lambda c: c), null=np.zeros(2, np.float32), **SHARED),
    ),
    "dict of vectors, null a function": (
        {"first": CENTRES[LABELS][:, :1], "second": CENTRES[LABELS][:, 1:]},
        from_function(
            of_centre(lambda c: jnp.concatenate([c["first"], c["second"]], axis=1)),
            null=lambda c: jax.tree.map(jnp.zeros_like, c),
            **SHARED,
        ),
    ),
    "tokens with a mask, null of another structure": (
        TOKENS,
        from_function(of_centre(by_tokens_or_none), null=lambda c: None, **SHARED),
    ),
    "tokens with a mask, null by pair": (
        TOKENS,
        from_function(of_centre(by_tokens), pair=halves, **SHARED),
    ),
}
TRAJECTORY = objectives.Trajectory(times=TIMES, num_particles=4, num_targets=4)
LAW = objectives.TimeLaw(s_min=0.1, delta=0.1, zeta=0.1)
OBJECTIVES = {
    "self-consistency": (objectives.SelfConsistency(num_particles=2, time_law=LAW), False),
    "l2": (
        objectives.SelfConsistency(num_particles=2, time_law=LAW, beta=2.0, lam=0.0),
        False,
    ),
    "marginal": (objectives.MarginalConsistency(num_particles=4, time_law=LAW), False),
    "trajectory with strata": (TRAJECTORY, True),
    "trajectory without strata": (TRAJECTORY, False),
}
PARAMS = jnp.float32(0.8)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def learned(kind, objective, stratum):
    c, denoiser = kind
    return lgd.learn_guidance(
        jax.random.key(0),
        denoiser,
        PARAMS,
        X0,
        c,
        stratum=stratum,
        objective=objective,
        start={"some": guidance.constant(0.3)},
        trainer=Trainer(
            optimizer=Optimizer(num_steps=2, learning_rate=0.01, max_skipped=1),
            batch_size=8,
            progress=False,
        ),
    )


def example(c):
    return jax.tree.map(jnp.asarray, conditions.take(conditions.checked(c), slice(4)))


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    "name",
    [
        each if each == "trajectory with strata" else pytest.param(each, marks=pytest.mark.slow)
        for each in OBJECTIVES
    ],
)
def test_guidance_is_learned_saved_and_sampled_with(kind, name, tmp_path):
    objective, with_strata = OBJECTIVES[name]
    found = learned(kind, objective, LABELS if with_strata else None)
    values = found.table(jnp.asarray(TIMES), example(kind[0]))
    assert values.shape == (3, 4)
    assert np.abs(np.asarray(values) - 0.3).max() < 0.5
    lgd.save(found, tmp_path / "guidance.safetensors")
    again = lgd.load(tmp_path / "guidance.safetensors")
    np.testing.assert_array_equal(again.table(jnp.asarray(TIMES), example(kind[0])), values)
    c, denoiser = example(kind[0]), kind[1]
    drawn = lgd.sample(
        jax.random.key(1), denoiser, PARAMS, c, shape=(2,), guidance=again, times=np.array(TIMES)
    )
    key = jax.random.split(jax.random.key(1))
    start = jax.random.normal(key[0], (4, 2))
    walked = sampling.unroll(
        key[1], denoiser, PARAMS, c, start, guidance=values, times=np.array(TIMES)
    )
    np.testing.assert_allclose(drawn.x0, walked, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_omega_is_fitted_from_statistics(kind, tmp_path):
    c, denoiser = kind
    split = Split(np.asarray(X0, np.float32), conditions.checked(c))
    gram.collect(
        tmp_path, denoiser, PARAMS, split,
        num_examples=32, particles=gram.Particles(num_particles=2), shard_examples=32,
        trainer=Trainer(batch_size=16, progress=False),
    )  # fmt: skip
    statistics = gram.read(tmp_path, progress=False)
    objective = objectives.SelfConsistency(num_particles=2, time_law=LAW)
    model = objective.default_model(FLOW, example(c))
    fitted = gram.fit(
        statistics, objective, model, schedule=FLOW, trainer=Trainer(
            optimizer=Optimizer(num_steps=2, learning_rate=1e-3), batch_size=8, progress=False
        ),
    )  # fmt: skip
    scores = gram.score(
        statistics,
        {"fitted": fitted.guidance.omega_fn, "none": guidance.constant(0.0)},
        objective=objective,
        schedule=FLOW,
        num_draws=1,
    )
    assert np.isfinite([scores.mean("fitted"), scores.mean("none")]).all()


def refusing(x):
    raise AssertionError("expected a measurement of the journal, got another")


@pytest.mark.sampled(6)
def test_hand_made_schedules_are_tuned_and_measured(kind, tmp_path):
    c, denoiser = kind
    strata = LABELS.astype(np.int32)
    split = Split(np.asarray(X0, np.float32), conditions.checked(c), strata)
    generator = Generator(
        denoiser=denoiser,
        params=PARAMS,
        shape=(2,),
        conditions=conditions.representatives(split.c, strata),
        times=jnp.asarray(TIMES),
    )
    distance = ClassEnergyDistance(split, 2)
    score = ValidationScore(
        generator=generator, journal=Journal(tmp_path / "j.jsonl"), distance=distance, full=8
    )
    selected, _ = tune(
        ("constant", "limited_interval"),
        score,
        schedule=FLOW,
        axes={"limited_interval": {"w": (0.5,), "lo": (0.2,), "hi": (0.8,)}},
        finalists=1,
    )
    assert selected["constant"].score <= float(score(guidance.constant(0.0), 8).mean())
    unasked = dataclasses.replace(score, journal=Journal(tmp_path / "j.jsonl"), distance=refusing)
    assert float(unasked(selected["constant"].guidance, 8).mean()) == selected["constant"].score


# What does not fit


def test_labels_outside_a_table_are_refused_and_nan_inside_jit():
    table = omega.StepTable(times=TIMES, rows=omega.ByLabel(2))
    bound = omega.bind(table, table.init(jax.random.key(0), jnp.arange(2)))
    times = jnp.asarray(TIMES)
    for label in (2, -1):
        c = jnp.asarray([0, label])
        with pytest.raises(ValueError, match=f"expected .*got .*{label}"):
            lgd.sample(
                jax.random.key(0), KINDS["labels, null a label"][1], PARAMS, c, shape=(2,),
                guidance=bound, times=times,
            )  # fmt: skip
        values = jax.jit(lambda c: guidance.on_grid(bound, times, c))(c)
        assert np.isnan(values[:, 1]).all()
        assert not np.isnan(values[:, 0]).any()


@pytest.mark.parametrize(
    ("null", "c", "got"),
    [
        (2, np.zeros((4, 2), np.float32), "expected a vector of floats or a function .*got 2"),
        (1000, np.zeros(4, np.uint8), "expected a label that uint8 holds, got 1000"),
        (np.zeros(3, np.float32), np.zeros((4, 2), np.float32), r"expected shape \(2,\), got \(3,"),
    ],
)
def test_nulls_that_do_not_fit_are_refused(null, c, got):
    denoiser = from_function(of_centre(lambda c: c), null=null, **SHARED)
    with pytest.raises(ValueError, match=got):
        lgd.sample(jax.random.key(0), denoiser, PARAMS, jnp.asarray(c), shape=(2,), guidance=1.0)


def test_nan_of_the_unconditional_half_is_named():
    denoiser = from_function(of_centre(lambda c: c), null=np.full(2, np.nan, np.float32), **SHARED)
    with pytest.raises(lgd.machinery.failures.NonFiniteError, match="unconditional"):
        learned((CENTRES[LABELS], denoiser), TRAJECTORY, LABELS)


def test_networks_refuse_conditions_of_another_kind():
    network = omega.Network(schedule=FLOW, encoder=encoders.Vectors(2))
    with pytest.raises(ValueError, match="expected"):
        network.init(jax.random.key(0), example(TOKENS))
