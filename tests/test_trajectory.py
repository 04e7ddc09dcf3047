"""The trajectory objective with any condition, rule and number of directions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import guidance, omega
from lgd.data import pipeline
from lgd.data.dataset import Split
from lgd.denoisers import Directions, from_function
from lgd.encoders import for_condition
from lgd.objectives import Trajectory
from lgd.types import Batch
from tests.objective_cases import FLOW, constant, evaluate, per_class
from tests.rule_cases import Momentum

pytestmark = pytest.mark.usefixtures("quick_compilation")
TIMES = (1.0, 0.6, 0.3, 0.0)
TABLE = jnp.asarray([[0.6, 0.2, 0.0], [-0.5, 0.4, 0.1], [0.0, -0.3, 0.2]])  # label 2: none
LABELS = jnp.repeat(jnp.arange(2), 4).reshape(2, 4)  # two groups of one label each
MIXED = jnp.asarray([[0, 1, 1, 0], [1, 1, 0, 1]])  # two groups of examples of both
REAL = jax.random.normal(jax.random.key(0), (2, 4, 3))
SMALL = {"times": TIMES, "num_particles": 4, "num_targets": 4}
KEY = jax.random.key(1)


def of_labels(params, x_t, t, c):
    return jnp.tanh(0.5 * x_t * t[:, None] + params[c])


def of_text(params, x_t, t, c):
    """The same function of what the label stands for, and of a scale."""
    return jnp.tanh(0.5 * x_t * t[:, None] + c["text"] * c["scale"])


def of_condition_alone(params, x_t, t, c):
    return jnp.broadcast_to(c["text"], x_t.shape)


BY_LABEL = from_function(of_labels, schedule=FLOW, kind="x0", null=2)
BY_TEXT = from_function(of_text, schedule=FLOW, kind="x0", null={"text": TABLE[2], "scale": 1.0})
TOLD = from_function(
    of_condition_alone, schedule=FLOW, kind="x0", null={"text": np.zeros(3), "scale": 0.0}
)


def text_of(labels):
    """What labels stand for, twice as large and scaled by a half."""
    return {"text": 2.0 * TABLE[labels], "scale": jnp.full((*labels.shape, 1), 0.5)}


def loss_and_gradient(objective, omega_of, values, denoiser=BY_LABEL, params=TABLE, c=LABELS):
    """Of an omega function that is made from values."""

    @jax.jit
    @jax.value_and_grad
    def loss(values):
        return objective(KEY, omega_of(values), denoiser, params, Batch(REAL, c))[0]

    value, gradient = loss(values)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    return float(value), gradient


# Rules around the weights


def wide(weights):
    return guidance.Clipped(guidance.Cfg(weights), -50.0, 50.0)


def high(weights):
    return guidance.DynamicThreshold(guidance.Cfg(weights), high=50.0)


def narrow(weights):
    return guidance.Clipped(guidance.Cfg(weights), -0.3, 0.5)


def low(weights):
    return guidance.DynamicThreshold(guidance.Cfg(weights), high=0.5, quantile=0.9)


WEIGHTS = jnp.asarray([0.4, 1.0])
NEAR = 1e-5  # of losses, differences of distances of order 1


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("around", "touches", "solver"),
    [
        (wide, False, "ddim"),
        (high, False, "ddim"),
        (low, True, "ddim"),
        (narrow, True, "ddim"),
        (narrow, True, "heun"),
        (narrow, True, "dpmpp_2m"),
    ],
)
def test_clipping_is_seen_by_the_loss_where_it_clips(around, touches, solver):
    plain = Trajectory(solver=solver, **SMALL)
    clipping = Trajectory(solver=solver, rule=around, **SMALL)
    one, slope = loss_and_gradient(plain, per_class, WEIGHTS)
    other, clipped_slope = loss_and_gradient(clipping, per_class, WEIGHTS)
    assert np.abs(slope).min() > 1e-4
    if touches:
        assert abs(one - other) > 1e-3
        assert np.abs(slope - clipped_slope).max() > 1e-3
    else:
        np.testing.assert_allclose(other, one, rtol=0.0, atol=NEAR)
        near = 1e-3 * np.abs(slope).max()
        np.testing.assert_allclose(clipped_slope, slope, rtol=0.0, atol=near)


def test_particles_at_time_0_lie_in_the_range():
    settings = {"rule": narrow, "reward": lambda x, c: jnp.max(x, axis=1), "reward_weight": 1.0}
    info = evaluate(
        Trajectory(**SMALL | settings), KEY, constant(30.0), BY_LABEL, TABLE, Batch(REAL, LABELS)
    )[1]
    np.testing.assert_allclose(info["reward"], 0.5, rtol=1e-6)


def with_momentum(weights):
    return Momentum(weights, -0.5)


def without_momentum(weights):
    return Momentum(weights, 0.0)


@guidance.rule
class Told:
    """Guidance whose inputs are a dict."""

    weights: Any

    def calls(self, num_directions):
        return 2

    def prepare(self, denoiser, times, c):
        omegas = guidance.on_grid(self.weights, times, c)
        return Told(None), {"omega": omegas, "step": jnp.arange(len(omegas))}

    def init(self, x, c):
        pass

    def apply(self, denoiser, params, state, x_t, *, step, t, c):
        step = step._replace(inputs=step.inputs["omega"])
        return guidance.Cfg(None).apply(denoiser, params, state, x_t, step=step, t=t, c=c)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("around", "is_plain"), [(with_momentum, False), (without_momentum, True), (Told, True)]
)
def test_rules_with_a_state_or_inputs_of_their_own_can_be_trained_through(around, is_plain):
    one, slope = loss_and_gradient(Trajectory(rule=around, **SMALL), per_class, WEIGHTS)
    other, plain_slope = loss_and_gradient(Trajectory(**SMALL), per_class, WEIGHTS)
    assert np.abs(slope).min() > 1e-4
    assert np.allclose(one, other, rtol=0.0, atol=NEAR) == is_plain
    near = 1e-3 * np.abs(plain_slope).max()
    assert np.allclose(slope, plain_slope, rtol=0.0, atol=near) == is_plain


def test_objectives_are_equal_by_their_rules():
    assert Trajectory(rule=wide, **SMALL) == Trajectory(rule=wide, **SMALL)
    assert hash(Trajectory(rule=wide, **SMALL)) == hash(Trajectory(rule=wide, **SMALL))
    assert Trajectory(rule=wide, **SMALL) != Trajectory(**SMALL)


# Conditions of groups


@pytest.mark.sampled(3)
@pytest.mark.parametrize("labels", [LABELS, MIXED])
@pytest.mark.parametrize("start", ["noise", "data"])
def test_trees_of_vectors_are_labels_by_another_name(labels, start):
    settings = SMALL | {"num_targets": 3, "num_particles": 1} if start == "data" else SMALL
    settings = settings | {"start": start, "lam": 0.0 if start == "data" else 1.0}
    objective = Trajectory(**settings)

    def of_text(values):
        return lambda *, s, t, c: jnp.where(c["text"][:, 0] > 0.0, values[0], values[1])

    one = loss_and_gradient(objective, per_class, WEIGHTS, c=labels)
    other = loss_and_gradient(
        objective, of_text, WEIGHTS, denoiser=BY_TEXT, params=(), c=text_of(labels)
    )
    np.testing.assert_allclose(one[0], other[0], rtol=0.0, atol=NEAR)
    near = 1e-4 * np.abs(other[1]).max()
    np.testing.assert_allclose(one[1], other[1], rtol=0.0, atol=near)
    assert np.abs(one[1]).min() > 1e-5


def squared_gap(x, c):
    return jnp.sum(jnp.square(x - c["text"]), axis=1)


@pytest.mark.parametrize("num_particles", [2, 4, 11])
def test_particle_i_has_the_condition_of_member_i_modulo_the_group(num_particles):
    """A denoiser that returns its condition takes the particles there, by whatever path."""
    objective = Trajectory(
        times=TIMES, num_particles=num_particles, num_targets=4, reward=squared_gap
    )
    c = {"text": REAL, "scale": jnp.ones((2, 4, 1))}  # every member has its own
    _, info = evaluate(objective, KEY, constant(0.0), TOLD, (), Batch(REAL, c))
    np.testing.assert_allclose(info["reward"], 0.0, atol=1e-10)
    reached = np.asarray(REAL)[:, np.arange(num_particles) % 4]

    def mean_distance(x, y, within=False):
        gaps = np.linalg.norm(x[:, None] - y[None], axis=-1)
        return gaps.sum() / (len(x) * (len(x) - 1)) if within else gaps.mean()

    def distance(x, y):
        apart = mean_distance(x, x, within=True) + mean_distance(y, y, within=True)
        return mean_distance(x, y) - 0.5 * apart

    expected = np.mean([distance(x, y) for x, y in zip(reached, np.asarray(REAL), strict=True)])
    np.testing.assert_allclose(info["distance"], expected, rtol=0.0, atol=NEAR)
    pooled = distance(reached.reshape(-1, 3), np.asarray(REAL).reshape(-1, 3))
    np.testing.assert_allclose(info["marginal_distance"], pooled, rtol=0.0, atol=NEAR)


def test_from_data_particles_have_the_conditions_of_the_members_they_start_at():
    """At a small t a denoiser that returns its input stays there; its condition is that of it."""
    objective = Trajectory(
        times=(0.01, 0.005, 0.0),
        start="data",
        num_particles=2,
        num_targets=2,
        reward=squared_gap,
    )
    still = from_function(
        lambda params, x_t, t, c: x_t, schedule=FLOW, kind="x0", null={"text": np.zeros(3)}
    )
    batch = Batch(REAL, {"text": REAL})
    _, info = evaluate(objective, KEY, constant(0.0), still, (), batch)
    np.testing.assert_allclose(info["reward"], 0.0, atol=0.02)
    _, info = evaluate(objective, KEY, constant(0.0), still, (), Batch(REAL, {"text": REAL[::-1]}))
    assert info["reward"] > 0.5


@pytest.mark.parametrize("stratum", [None, np.tile(np.arange(2, dtype=np.int32), 10)])
def test_groups_of_a_split_are_compared_within_strata_and_pooled(stratum):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3)).astype(np.float32)
    text = x + 0.1 * rng.normal(size=(20, 3)).astype(np.float32)
    split = Split(x, {"text": text, "scale": np.ones((20, 1), np.float32)}, stratum)
    objective = Trajectory(**SMALL)
    batch = pipeline.groups(split, objective.group_size, seed=0)(3)
    assert batch.x0.shape == ((1 if stratum is None else 2), 4, 3)
    assert batch.c["text"].shape == batch.x0.shape
    np.testing.assert_allclose(batch.c["text"], batch.x0, atol=0.6)  # of the same examples
    _, info = evaluate(objective, KEY, constant(0.3), TOLD, (), batch)
    same = np.isclose(info["distance"], info["marginal_distance"], rtol=0.0, atol=NEAR)
    assert same == (stratum is None)


# Omega of features, and of several directions


@pytest.mark.slow
def test_omega_may_look_at_the_features_of_the_predictions():
    objective = Trajectory(**SMALL)

    def deaf(w):
        return lambda *, s, t, c, features: jnp.broadcast_to(w, t.shape)

    half = jnp.asarray(0.5)
    np.testing.assert_allclose(
        loss_and_gradient(objective, deaf, half),
        loss_and_gradient(objective, constant, half),
        rtol=0.0,
        atol=NEAR,
    )
    c = text_of(MIXED)
    model = omega.Network(
        schedule=FLOW,
        encoder=for_condition(jax.tree.map(lambda leaf: np.asarray(leaf[0]), c)),
        width=8,
        depth=1,
        num_features=4,
    )
    params = model.init(jax.random.key(2), jax.tree.map(lambda leaf: leaf[0], c))
    given = {"denoiser": BY_TEXT, "params": (), "c": c}
    _, slope = loss_and_gradient(objective, functools.partial(omega.bind, model), params, **given)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(slope)) > 1e-5
    learned = omega.bind(model, params)
    _, info = evaluate(objective, KEY, learned, BY_TEXT, (), Batch(REAL, c))
    assert set(info) == {"distance", "marginal_distance"}


@pytest.mark.slow
@pytest.mark.parametrize("around", [guidance.Cfg, wide])
def test_several_directions_are_learned_together(around):
    objective = Trajectory(rule=around, **SMALL)
    several = Directions(BY_LABEL, {"weaker": BY_LABEL})

    def both(values):
        return lambda *, s, t, c: jnp.broadcast_to(values[None], (len(t), 2))

    def of(values, weaker):
        given = {"denoiser": several, "params": (TABLE, {"weaker": weaker})}
        return loss_and_gradient(objective, both, jnp.asarray(values), **given)

    plain = loss_and_gradient(objective, constant, jnp.asarray(0.5))
    same, slope = of([0.5, 2.0], TABLE)  # leads nowhere
    np.testing.assert_allclose(same, plain[0], rtol=0.0, atol=NEAR)
    near = 1e-3 * np.abs(plain[1])
    np.testing.assert_allclose(slope, [plain[1], 0.0], rtol=0.0, atol=near)
    _, slope = of([0.5, 0.3], 0.5 * TABLE)
    assert np.abs(slope).min() > 1e-4


# Its default model


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("c", "kind"),
    [
        (np.arange(3, dtype=np.int32), omega.StepTable),
        (np.arange(100, dtype=np.int32), omega.StepTable),
        (np.arange(101, dtype=np.int32), omega.Network),  # 10 labels a step leave rows untrained
        (np.zeros((5, 3), np.float32), omega.Network),
        ({"text": np.zeros((5, 3), np.float32), "label": np.arange(5)}, omega.Network),
    ],
)
def test_the_default_model_is_a_table_for_labels_and_a_network_for_others(c, kind):
    objective = Trajectory(**SMALL)
    model = objective.default_model(FLOW, c)
    assert type(model) is kind
    assert model.support == objective.support
    params = model.init(jax.random.key(0), c)
    weights = guidance.on_grid(omega.bind(model, params), jnp.asarray(TIMES), c)
    assert weights.shape == (3, len(jax.tree.leaves(c)[0]))
