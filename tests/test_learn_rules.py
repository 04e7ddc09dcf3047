"""Features of predictions, several directions and clipped predictions can be learned."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd import encoders, guidance, objectives, omega, schedules
from lgd.denoisers import Directions, GaussianMixture, from_function
from lgd.training import Optimizer, Trainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

FLOW = schedules.rectified_flow()
EXACT = GaussianMixture((0, 1), FLOW)
MEANS = np.array([[1.0], [-1.0]], np.float32)
TIMES = tuple(np.linspace(1.0, 0.0, 7).tolist())
LABELS = np.arange(400) % 2
X0 = MEANS[LABELS] + 0.5**0.5 * np.random.default_rng(0).normal(size=(400, 1))
MIXTURE = EXACT.params(jnp.asarray(MEANS), 0.5)
PULL = 0.5


def short_of(params, x_t, t, c):
    """cond' = cond - pull (weak - cond) shifts away from ``weak``: guiding by it mends cond'."""
    mixture, pull = params
    return EXACT.apply(mixture, x_t, t=t, c=c) - pull


def shifted(params, x_t, t, c):
    mixture, pull = params
    return EXACT.apply(mixture, x_t, t=t, c=c) - 2.0 * pull


SHORT = from_function(short_of, schedule=FLOW, kind="x0", null=2)
WEAK = from_function(shifted, schedule=FLOW, kind="x0", null=2)
TWO = Directions(SHORT, {"weak": WEAK})
PARAMS = jax.tree.map(
    np.asarray, ((MIXTURE, np.float32(PULL)), {"weak": (MIXTURE, np.float32(PULL))})
)
NETWORK = functools.partial(
    omega.Network, schedule=FLOW, encoder=encoders.Labels(2), width=8, depth=1
)
TABLE = omega.StepTable(times=TIMES, rows=omega.ByLabel(2))
TRAJECTORY = objectives.Trajectory(times=TIMES, num_particles=32, num_targets=64)


def learn(denoiser, params, model, objective, *, num_steps=2, rate=0.1):
    return lgd.learn_guidance(
        jax.random.key(0),
        denoiser,
        params,
        X0,
        LABELS,
        objective=objective,
        model=model,
        start={"some": guidance.constant(0.2)},
        trainer=Trainer(
            optimizer=Optimizer(num_steps=num_steps, learning_rate=rate, ema_decay=0.9),
            batch_size=64,
            progress=False,
            check=False,  # the weak models of these toys are bad on purpose
        ),
    )


def samples(denoiser, params, found, seed=5):
    c = jnp.arange(200, dtype=jnp.int32) % 2
    return lgd.sample(
        jax.random.key(seed), denoiser, params, c, shape=(1,), guidance=found, times=TIMES
    )


def test_two_directions_find_the_one_that_mends_the_model():
    """The model lies a constant below the truth and the weak one twice that: omega = (0, 1)."""
    model = omega.PerDirection(models=(TABLE, TABLE))
    found = learn(TWO, PARAMS, model, TRAJECTORY, num_steps=60)
    weights = np.asarray(found.table(jnp.asarray(TIMES), jnp.arange(2)))[1:]
    assert weights.shape == (5, 2, 2)
    drawn = samples(TWO, PARAMS, found)
    assert drawn.nfe == 3 * 6
    by_class = np.asarray(drawn.x0).reshape(100, 2).mean(axis=0)
    still = np.asarray(samples(TWO, PARAMS, 0.0).x0).reshape(100, 2).mean(axis=0)
    assert np.abs(still - MEANS[:, 0]).min() > 0.35
    assert np.abs(by_class - MEANS[:, 0]).max() < 0.15


@pytest.mark.parametrize("objective", [objectives.SelfConsistency(), TRAJECTORY])
def test_by_default_every_direction_has_a_weight(objective):
    found = learn(TWO, PARAMS, None, objective)
    assert found.num_directions == 2
    assert found.provenance["objective"] == type(objective).__name__


@pytest.mark.parametrize("objective", [objectives.SelfConsistency(), TRAJECTORY])
@pytest.mark.parametrize(
    "model",
    [
        NETWORK(num_features=4),
        omega.PerDirection(models=(TABLE, NETWORK(num_features=4))),
        omega.PerDirection(models=(TABLE, TABLE)),
    ],
    ids=["features", "features and directions", "directions"],
)
def test_every_model_learns_by_every_objective(model, objective, tmp_path):
    found = learn(TWO, PARAMS, model, objective)
    before = model.started(jax.random.key(0), guidance.constant(0.2), jnp.arange(2))[1]
    moved = [
        float(jnp.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(before), strict=True)
    ]
    assert 0.0 < max(moved) < 10.0
    lgd.save(found, tmp_path / "g.safetensors")
    again = samples(TWO, PARAMS, lgd.load(tmp_path / "g.safetensors")).x0
    np.testing.assert_array_equal(again, samples(TWO, PARAMS, found).x0)


def test_guidance_of_features_and_directions_is_compared():
    features = learn(TWO, PARAMS, NETWORK(num_features=4), TRAJECTORY)
    directions = learn(
        TWO, PARAMS, omega.PerDirection(models=(TABLE, TABLE)), TRAJECTORY, num_steps=60
    )
    named = {"features": features, "directions": directions, "apg": guidance.Apg(0.5)}
    settings = lgd.evaluation.CompareSettings(
        num_samples=200, times=TIMES, families=("constant", "constant_directions"),
        axes={
            "constant": {"w": (0.0, 0.5, 1.0)},
            "constant_directions": {"w": (0.0, 0.5), "v": (0.0, 0.5, 1.0)},
        },
        progress=False, check=False,
    )  # fmt: skip
    table = lgd.compare(jax.random.key(1), TWO, PARAMS, named, X0, LABELS, settings=settings)
    means = {row["method"]: row["metrics"]["energy_distance"]["mean"] for row in table.rows}
    assert {"unguided", "constant", "constant_directions", *named} <= set(means)
    assert means["constant_directions"] < means["constant"]
    assert means["directions"] < 0.5 * means["unguided"]


def clipped(omega_fn):
    return guidance.Clipped(guidance.Cfg(omega_fn), -1.5, 1.5)


def test_guidance_is_learned_for_clipped_predictions():
    objective = objectives.Trajectory(times=TIMES, num_particles=16, num_targets=16, rule=clipped)
    found = learn(SHORT, PARAMS[0], TABLE, objective)
    drawn = samples(SHORT, PARAMS[0], clipped(found)).x0
    assert float(jnp.abs(drawn).max()) <= 1.5
    assert np.isfinite(np.asarray(found.params["values"])).all()
