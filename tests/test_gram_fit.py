"""Fits: lanes of a sweep against fits alone, against online losses, models, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import gram, guidance, omega, schedules
from lgd.denoisers import Directions
from lgd.encoders import Labels
from lgd.gram import Lane, StatisticsError, fit, sweep
from lgd.guidance import PAIR_FEATURES
from lgd.machinery.checkpoint import CheckpointStore
from lgd.machinery.digests import describe
from lgd.objectives import ConditionalMarginalConsistency, SelfConsistency, TimeLaw, l2
from lgd.starts import START_WEIGHTS
from lgd.training import Optimizer, Trainer
from lgd.types import Batch
from tests.gram_cases import DENOISER, FLOW, collected, fresh, taken, true_params, wide_params

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]
LAW = TimeLaw(s_min=0.1, delta=0.2)
OBJECTIVE = SelfConsistency(time_law=LAW)
CONSTANT = omega.StepTable(times=(1.0, 0.0), init_omega=0.3)  # one value
QUERY = {"s": jnp.asarray([0.2, 0.5]), "t": jnp.asarray([0.6, 0.9]), "c": jnp.asarray([0, 1])}


def network(width, **settings):
    defaults = {"schedule": FLOW, "encoder": Labels(2), "depth": 1, "support": LAW.support}
    return omega.Network(width=width, **(defaults | settings))


def quick(num_steps=50, **settings):
    return Optimizer(num_steps=num_steps, learning_rate=0.02, ema_decay=0.9, **settings)


@pytest.fixture(scope="module")
def blurred(tmp_path_factory):
    """2,048 examples of the blurred denoiser, with features and a direction away from a worse."""
    return collected(
        tmp_path_factory.mktemp("blurred"),
        fresh(512),
        data_name="draws",
        num_examples=2048,
        batch_size=512,
        shard_examples=2048,
        features=True,
        denoiser=Directions(DENOISER, {"worse": DENOISER}),
        params=(wide_params(), {"worse": wide_params(1.5, 0.5)}),
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """8,192 examples of the blurred denoiser."""
    return collected(
        tmp_path_factory.mktemp("plain"),
        fresh(2048),
        data_name="draws",
        num_examples=8192,
        batch_size=2048,
        shard_examples=8192,
    )


def trainer(**settings):
    """50 steps of 32 examples, and a report after them."""
    defaults = {"optimizer": quick(), "batch_size": 32, "log_every": 50, "progress": False}
    return Trainer(**(defaults | settings))


def run(statistics, lanes, **settings):
    """A sweep; fields of the trainer are among the settings."""
    trained = trainer(**taken(settings, Trainer))
    return sweep(statistics, lanes, trainer=trained, **({"schedule": FLOW} | settings))


def close(ours, theirs, rtol=2e-3):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-4),
        ours.guidance.params,
        theirs.guidance.params,
    )
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-3)


# Sweeps


def test_every_lane_of_a_sweep_is_the_fit_of_its_own(plain):
    """The narrow one of other beta, lam, churn, width, learning rate and seed than the first."""
    other = dataclasses.replace(OBJECTIVE, beta=1.0, churn=0.0, lam=0.5)
    lanes = [
        Lane(objective=OBJECTIVE, model=network(8)),
        Lane(objective=other, model=network(3), learning_rate=0.02, seed=1),
        Lane(objective=OBJECTIVE, model=network(8), learning_rate=0.02),
    ]
    part = plain.take(slice(256))
    together = run(plain, lanes, held_out=part)
    assert [result.lane for result in together] == lanes
    result = together[1]
    (alone,) = run(plain, lanes[1:2], held_out=part)
    close(result, alone)
    assert result.held_out == pytest.approx(alone.held_out, rel=1e-3)
    values = result.guidance.omega_fn(**QUERY)
    np.testing.assert_allclose(values, alone.guidance.omega_fn(**QUERY), rtol=2e-3)
    started = network(8).init_omega
    assert all(np.abs(f.guidance.omega_fn(**QUERY) - started).max() > 0.01 for f in together)


def reports(**settings):
    """A trainer, and the lists that its reports fill: (step, loss) and (step, values)."""
    logged, seen = [], []
    settings = settings | {
        "on_log": lambda step, info: logged.append((step, info["loss"])),
        "on_step": lambda step, ema: seen.append((step, np.asarray(ema["values"]))),
    }
    return trainer(**settings), logged, seen


def test_a_fit_is_a_sweep_of_one(plain):
    """And tells the mean of its parameters on the way, at the end those that it returns."""
    reporting, logged, seen = reports(optimizer=quick(num_steps=60))
    result = fit(plain, OBJECTIVE, CONSTANT, schedule=FLOW, trainer=reporting)
    lane = Lane(objective=OBJECTIVE, model=CONSTANT, learning_rate=0.02)
    close(result, run(plain, [lane], optimizer=quick(60))[0], rtol=1e-5)
    assert [step for step, _ in logged] == [step for step, _ in seen] == [50, 60]
    np.testing.assert_allclose([loss for _, loss in logged], result.losses)
    np.testing.assert_array_equal(seen[-1][1], result.guidance.params["values"])
    assert result.losses.shape == (2,)
    assert result.held_out is None


def test_a_sweep_reports_the_mean_loss_and_all_parameters(plain):
    """Once, at the end, where it logs never else; and learns the same."""
    lanes = [Lane(objective=OBJECTIVE, model=CONSTANT, learning_rate=rate) for rate in (0.02, 0.05)]
    reporting, logged, seen = reports(optimizer=quick(num_steps=60), log_every=0)
    whole = sweep(plain, lanes, schedule=FLOW, trainer=reporting)
    assert [step for step, _ in logged] == [step for step, _ in seen] == [60]
    assert logged[0][1] == pytest.approx(np.mean([result.losses for result in whole]))
    values = [result.guidance.params["values"] for result in whole]
    np.testing.assert_array_equal(seen[0][1], values)
    parts = run(plain, lanes, optimizer=quick(60), log_every=20)
    for result, part in zip(whole, parts, strict=True):
        np.testing.assert_allclose(result.losses, [part.losses.mean()], rtol=1e-5)
        np.testing.assert_array_equal(
            part.guidance.params["values"], result.guidance.params["values"]
        )


def test_training_starts_from_the_parameters_given(plain):
    params = {"values": jnp.asarray([[2.5]])}
    (result,) = run(
        plain,
        [Lane(objective=OBJECTIVE, model=CONSTANT, learning_rate=1e-6)],
        params=params,
    )
    np.testing.assert_allclose(result.guidance.params["values"], 2.5, atol=1e-3)
    with pytest.raises(StatisticsError, match="params: expected shape"):
        run(plain, [Lane(objective=OBJECTIVE, model=CONSTANT)], params={"values": jnp.ones(1)})


def test_a_started_model_is_the_constant_of_least_loss(plain):
    """Whatever the model is; and a fit that hardly moves ends there."""
    part = plain.take(slice(2048))
    constants = {str(w): guidance.constant(w) for w in START_WEIGHTS}
    scores = gram.score(part, constants, objective=OBJECTIVE, schedule=FLOW, num_draws=2)
    best = float(min(constants, key=scores.mean))
    for model in (network(4, init_omega=5.0), CONSTANT, omega.PerDirection(models=(CONSTANT,))):
        begun, params = gram.started(model, part, OBJECTIVE, schedule=FLOW)
        values = omega.bind(begun, params)(**QUERY)
        np.testing.assert_allclose(np.ravel(values), best, rtol=1e-5)
    begun, params = gram.started(CONSTANT, part, OBJECTIVE, schedule=FLOW)
    slow = Lane(objective=OBJECTIVE, model=begun, learning_rate=1e-6)
    (result,) = run(plain, [slow], params=params)
    np.testing.assert_allclose(result.guidance.params["values"], best, atol=1e-3)


def test_guidance_says_what_it_was_learned_from(plain):
    (result,) = run(plain, [Lane(objective=OBJECTIVE, model=CONSTANT)], optimizer=quick(2))
    guided = result.guidance
    assert guided.schedule == FLOW
    assert guided.provenance["objective"] == describe(OBJECTIVE)
    for name, words in plain.fingerprint.items():
        assert guided.provenance[f"statistics, {name}"] == words
    np.testing.assert_allclose(guided.history["loss"], result.losses)


# Against the particles


def test_a_fit_ends_where_the_online_loss_is_least(plain):
    """The best constant, by a parabola through online losses of 160,000 examples.

    The errors of both are those of 8 parts of the draws.
    """
    objective = l2(time_law=LAW, churn=1.0)
    grid = jnp.asarray([-1.0, 0.0, 1.0])

    @jax.jit
    def losses(key):
        data_key, label_key, loss_key = jax.random.split(key, 3)
        c = jax.random.randint(label_key, (2000,), 0, 2)
        x0 = DENOISER.draw(data_key, true_params(), c)

        def at(w):
            def constant(*, s, t, c):
                return jnp.broadcast_to(w, t.shape)

            return objective(loss_key, constant, DENOISER, wide_params(), Batch(x0, c))[0]

        return jax.vmap(at)(grid)

    draws = np.stack([np.asarray(losses(key)) for key in jax.random.split(jax.random.key(0), 80)])
    parts = draws.reshape(8, 10, 3).mean(axis=1).astype(np.float64)
    low, here, high = parts.T
    minima = -(high - low) / (2 * (high + low - 2 * here))
    lanes = [
        Lane(objective=objective, model=CONSTANT, learning_rate=0.05, seed=seed) for seed in (0, 1)
    ]
    fitted = [
        float(result.guidance.params["values"][0, 0])
        for result in run(plain, lanes, batch_size=256, optimizer=quick(400))
    ]
    error = np.std(minima, ddof=1) / np.sqrt(8)
    assert minima.mean() > 0.2
    assert abs(np.mean(fitted) - minima.mean()) < 0.05 + 4.0 * error


def test_a_table_ends_near_the_closed_form(plain):
    model = omega.BinTable(support=LAW.support, num_bins=2, init_omega=0.3)
    lane = Lane(objective=l2(time_law=LAW), model=model, learning_rate=0.05)
    (result,) = run(plain, [lane], batch_size=256, optimizer=quick(300))
    solved = gram.closed_form(plain, l2(time_law=LAW), schedule=FLOW, num_bins=2, ridge=1e-6)
    mean = [float(np.mean(way.guidance.params["values"])) for way in (result, solved)]
    assert mean[0] == pytest.approx(mean[1], abs=0.25)
    assert (np.asarray(result.guidance.params["values"]) >= 0.0).all()


# Models


def test_features_and_several_directions(blurred):
    """A network of features beside a constant for the worse denoiser; and the loss falls."""
    first = network(4, num_features=len(PAIR_FEATURES))
    model = omega.PerDirection(models=(first, CONSTANT))
    lanes = [
        Lane(objective=OBJECTIVE, model=model),
        Lane(
            objective=OBJECTIVE,
            model=omega.PerDirection(models=(dataclasses.replace(first, width=2), CONSTANT)),
        ),
    ]
    wide, thin = run(blurred, lanes, held_out=blurred)
    assert jax.tree.map(jnp.shape, thin.guidance.params) == jax.tree.map(
        jnp.shape, lanes[1].model.init(jax.random.key(0), QUERY["c"])
    )
    features = jnp.asarray(blurred.features[:2, 0])
    values = wide.guidance.omega_fn(**QUERY, features=features)
    assert values.shape == (2, 2)
    assert np.abs(values[:, 1] - 0.3).max() > 0.05
    changed = wide.guidance.omega_fn(**QUERY, features=features + 1.0)
    assert np.abs(changed - values)[:, 0].max() > 1e-4
    assert np.abs(changed - values)[:, 1].max() == 0.0
    start = gram.score(
        blurred,
        {"start": lambda *, s, t, c: jnp.stack([jnp.ones_like(t), 0.3 + 0.0 * t], axis=-1)},
        objective=OBJECTIVE,
        schedule=FLOW,
    )
    assert wide.held_out < start.mean("start")


def test_a_model_of_times_serves_statistics_with_features_and_directions(blurred):
    """It guides along the first direction, as on statistics that hold nothing else."""
    (result,) = run(blurred, [Lane(objective=OBJECTIVE, model=CONSTANT)])
    assert result.guidance.params["values"].shape == (1, 1)
    assert 0.0 < float(result.guidance.params["values"][0, 0]) != 0.3


# Refusals


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wild(omega.StepTable):
    """A table whose weights are not finite once they have moved."""

    def apply(self, params, *, s, t, c):
        value = params["values"][0, 0]
        return jnp.where(jnp.abs(value - self.init_omega) < 1e-6, value, jnp.nan) + 0.0 * t


def test_a_loss_that_is_not_finite_is_refused_with_its_lane(plain):
    model = Wild(times=(1.0, 0.0))
    lanes = [Lane(objective=OBJECTIVE, model=model, learning_rate=rate) for rate in (1e-20, 0.1)]
    with pytest.raises(FloatingPointError, match=r"step 2: .* got nan of Lane\((.|\n)*rate=0\.1"):
        run(plain, lanes)


@pytest.mark.parametrize(
    ("lanes", "message"),
    [
        ([], "lanes: expected at least one, got none"),
        ([{}, {"model": CONSTANT}], "lanes: expected to differ in beta, lam"),
        ([{}, {"model": network(4, depth=2)}], "lanes: expected to differ in beta, lam"),
        ([{}, {"objective": SelfConsistency()}], "lanes: expected to differ in beta, lam"),
        (
            [{}, {"objective": dataclasses.replace(OBJECTIVE, num_particles=3)}],
            "lanes: expected to differ in beta, lam",
        ),
        ([{"learning_rate": 0.0}], "learning_rate: expected > 0, got 0.0"),
        (
            [{"objective": ConditionalMarginalConsistency(group_size=4)}],
            "members: expected condition",
        ),
        (
            [{"objective": dataclasses.replace(OBJECTIVE, num_particles=5)}],
            "expected at most the 4 particles collected, got 5",
        ),
    ],
)
def test_lanes_that_do_not_fit_are_refused(plain, lanes, message):
    defaults = {"objective": OBJECTIVE, "model": network(4)}
    with pytest.raises(StatisticsError, match=message):
        run(plain, [Lane(**(defaults | settings)) for settings in lanes])


def test_a_fit_refuses_a_store(plain, tmp_path):
    lanes = [Lane(objective=OBJECTIVE, model=CONSTANT)]
    with pytest.raises(StatisticsError, match="trainer: expected no store"):
        run(plain, lanes, store=CheckpointStore(tmp_path))


def test_statistics_that_do_not_fit_are_refused(plain):
    lane = Lane(objective=OBJECTIVE, model=CONSTANT)
    with pytest.raises(StatisticsError, match="schedule: expected RectifiedFlow"):
        run(plain, [lane], schedule=schedules.cosine())
    with pytest.raises(StatisticsError, match="features: expected at most the 0 collected"):
        run(plain, [Lane(objective=OBJECTIVE, model=network(4, num_features=4))])
    model = omega.PerDirection(models=(CONSTANT, CONSTANT))
    with pytest.raises(StatisticsError, match="directions: expected 1 or 1 values of omega, got 2"):
        run(plain, [Lane(objective=OBJECTIVE, model=model)])
