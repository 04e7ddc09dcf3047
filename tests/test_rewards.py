"""Rewards: closed forms, gradients, the adapter, tilting, and omega that learns by them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd import guidance, omega, rewards, schedules, training
from lgd.denoisers import GaussianMixture
from lgd.metrics.tilt import TiltedLaws
from lgd.objectives import Batch, SelfConsistency, Trajectory

FLOW = schedules.rectified_flow()
X0 = jnp.asarray([[[3.0, 4.0]], [[0.0, 0.0]], [[-1.0, 2.0]]])  # (3, 1, 2)
C = jnp.asarray([0, 1, 1], jnp.int32)
DIRECTION, CENTRE = (0.6, -0.8), (3.0, 4.0)

CLOSED_FORMS = [  # reward, its values and gradients at X0
    (rewards.Linear(DIRECTION), [-1.4, 0.0, -2.2], [[0.6, -0.8]] * 3),
    (
        rewards.Tanh(DIRECTION, scale=2.0, offset=-1.4),
        [0.0, np.tanh(0.7), np.tanh(-0.4)],
        [[0.3 * slope, -0.4 * slope] for slope in (1.0, 1 / np.cosh(0.7) ** 2, 0.8556390)],
    ),
    (
        rewards.Bump(CENTRE, length=5.0),
        [1.0, np.exp(-0.5), np.exp(-0.4)],
        [[0.0, 0.0], [0.12 * 0.6065307, 0.16 * 0.6065307], [0.16 * 0.67032, 0.08 * 0.67032]],
    ),
    (
        rewards.NegativeDistance(CENTRE),
        [0.0, -5.0, -np.sqrt(20.0)],
        [[0.0, 0.0], [0.6, 0.8], [0.8944272, 0.4472136]],
    ),
]


@pytest.mark.parametrize(("reward", "values", "gradients"), CLOSED_FORMS)
def test_closed_form(reward, values, gradients):
    np.testing.assert_allclose(reward(X0, C), values, rtol=1e-6, atol=1e-6)
    got = jax.grad(lambda x: jnp.sum(reward(x, C)))(X0)
    np.testing.assert_allclose(got[:, 0], gradients, rtol=1e-5, atol=1e-6)


def test_closed_forms_are_equal_and_hash_by_their_settings():
    assert rewards.Tanh(DIRECTION, 2.0) == rewards.Tanh(DIRECTION, scale=2.0)
    assert len({reward for reward, *_ in CLOSED_FORMS} | {rewards.Linear(DIRECTION)}) == 4


@pytest.mark.parametrize(
    "reward",
    [
        *(rewards.Linear((1.0,) * 3), rewards.Tanh((1.0,))),
        *(rewards.Bump((0.0,) * 4), rewards.NegativeDistance(())),
    ],
)
def test_data_of_another_size_are_refused(reward):
    with pytest.raises(ValueError, match=r"expected x0 of \d numbers each, got 2 of \(3, 1, 2\)"):
        reward(X0, C)


@pytest.mark.parametrize("size", [0.0, -1.0, np.inf, np.nan])
def test_widths_must_be_positive(size):
    with pytest.raises(ValueError, match="expected a finite scale > 0, got"):
        rewards.Tanh(DIRECTION, scale=size)
    with pytest.raises(ValueError, match="expected a finite length > 0, got"):
        rewards.Bump(CENTRE, length=size)


def test_class_log_probability_is_that_of_bayes_for_two_gaussians():
    """Classes N(mu_k, I) have logits -|x - mu_k|^2 / 2; with two, a log-sigmoid is left."""
    centres = np.array([[1.0, 0.0], [-1.0, 1.0]])

    def apply(params, x0):
        return -0.5 * jnp.sum(jnp.square(x0 - params[None]), axis=-1)

    reward = rewards.class_log_probability(apply, jnp.asarray(centres, jnp.float32))
    x = np.asarray(X0[:, 0], np.float64)
    margin = 0.5 * np.sum((x - centres[1]) ** 2 - (x - centres[0]) ** 2, axis=-1)  # for class 0
    expected = -np.log1p(np.exp(-np.where(np.asarray(C) == 0, margin, -margin)))
    np.testing.assert_allclose(reward(X0, C), expected, rtol=1e-5)
    assert np.isnan(reward(X0, jnp.asarray([0, 1, 2]))).tolist() == [False, False, True]
    assert np.isnan(reward(X0, jnp.asarray([0, -1, -2]))).tolist() == [False, True, True]


def test_logits_of_another_shape_are_refused():
    reward = rewards.class_log_probability(lambda params, x: x, None)
    with pytest.raises(ValueError, match=r"expected logits \(3, classes\), got \(3, 1, 2\)"):
        reward(X0, C)


# Any function


def by_condition(x0, c):
    return x0[..., 0, 0] + 10.0 * c


@pytest.mark.parametrize("single", [False, True])
def test_function_of_a_batch_or_of_one_example(single):
    reward = rewards.from_function(by_condition, single=single)
    np.testing.assert_allclose(reward(X0, C), [3.0, 10.0, 9.0])
    alone = rewards.from_function(lambda x0: x0[..., 0, 1], single=single, conditional=False)
    np.testing.assert_allclose(jax.jit(alone)(X0, C), [4.0, 0.0, 2.0])


@pytest.mark.parametrize(
    ("function", "single", "expected"),
    [
        (lambda x0, c: jnp.mean(x0), False, r"expected rewards of shape \(3,\), got \(\)"),
        (lambda x0, c: x0[:, 0], False, r"expected rewards of shape \(3,\), got \(3, 2\)"),
        (lambda x0, c: x0[:, 0], True, r"expected rewards of shape \(\), got \(1,\)"),
        (lambda x0, c: 1.0, False, r"expected rewards of shape \(3,\), got 1.0"),
        (lambda x0, c: [1.0, 2.0, 3.0], False, r"of shape \(3,\), got \[1.0, 2.0, 3.0\]"),
        (lambda x0, c: c, False, "expected rewards as floats, got int32"),
    ],
)
def test_function_of_another_form_is_refused(function, single, expected):
    with pytest.raises(ValueError, match=expected):
        rewards.from_function(function, single=single)(X0, C)


# Tilting

MEAN, VARIANCE, A = np.array([0.5, -1.0]), 0.3, np.array([1.0, 2.0])


@functools.cache
def gaussian(size=2000, seed=0):
    z = np.random.default_rng(seed).normal(size=(1, size, 2))
    return (MEAN + VARIANCE**0.5 * z).astype(np.float32)


def test_gaussian_tilted_by_a_linear_reward_is_shifted():
    """N(mu, v I) exp(gamma <a, x>) is N(mu + gamma v a, v I)."""
    x = jnp.asarray(gaussian(100_000)[0])
    values = rewards.Linear(tuple(A.tolist()))(x, None)
    for gamma in (0.0, 0.5, -0.8):
        weights = np.asarray(rewards.tilt_weights(values, gamma), np.float64)
        mean = weights @ x
        np.testing.assert_allclose(mean, MEAN + gamma * VARIANCE * A, atol=0.02)
        spread = weights @ np.square(x - mean[None])
        np.testing.assert_allclose(spread, VARIANCE, atol=0.03)
        size = float(rewards.effective_size(jnp.asarray(weights)))  # n exp(-gamma^2 a' v a)
        assert size == pytest.approx(100_000 * np.exp(-(gamma**2) * VARIANCE * 5.0), rel=0.05)


@pytest.fixture(scope="module")
def laws():
    """Two classes: the Gaussian above, and the same at another place."""
    pool = jnp.asarray(np.concatenate([gaussian(), gaussian(seed=1) + 3.0]))
    linear = rewards.Linear(tuple(A.tolist()))
    values = jnp.stack([linear(each, None) for each in pool])
    return TiltedLaws(pool, values, np.linspace(-1.0, 1.0, 41).tolist())


@pytest.mark.parametrize("gamma", [0.0, 0.6])
def test_samples_of_a_tilted_law_are_nearest_to_it(laws, gamma):
    shift = gamma * VARIANCE * A
    samples = np.concatenate([gaussian(seed=2) + shift, gaussian(seed=3) + 3.0 + shift])
    distance = laws.distance(jnp.asarray(samples, jnp.float32))
    tilt = laws.nearest(distance)
    assert distance.shape == (41, 2)
    assert tilt.gamma == pytest.approx(gamma, abs=0.1)
    assert tilt.distance == pytest.approx(0.0, abs=2e-3)
    at = laws.gammas.index(pytest.approx(gamma))
    mean = np.stack([MEAN, MEAN + 3.0]) @ A + gamma * VARIANCE * A @ A
    np.testing.assert_allclose(laws.mean_reward[at], mean, atol=0.06)
    assert np.asarray(laws.effective_size[20]) == pytest.approx(2000, rel=1e-3)


def test_tilted_laws_part_from_the_untilted_one_as_samples_of_them_do(laws):
    shift = 0.6 * VARIANCE * A
    samples = np.concatenate([gaussian(seed=2) + shift, gaussian(seed=3) + 3.0 + shift])
    at = laws.gammas.index(pytest.approx(0.6))
    expected = laws.distance(jnp.asarray(samples, jnp.float32))[20]
    np.testing.assert_allclose(laws.from_untilted[at], expected, atol=0.01)
    np.testing.assert_allclose(laws.from_untilted[20], 0.0, atol=1e-6)


def test_distance_without_tilt_is_the_plain_energy_distance(laws):
    samples = jnp.asarray(gaussian(seed=5) + 0.4)
    plain = jax.jit(lgd.discrepancy.energy_distance)(samples[0], jnp.asarray(gaussian()[0]))
    both = laws.distance(jnp.concatenate([samples, samples]))
    assert float(both[20, 0]) == pytest.approx(float(plain), abs=1e-4)


def test_tilted_laws_refuse_what_does_not_fit(laws):
    with pytest.raises(ValueError, match=r"expected values \(1, 2000\) and gammas, got \(1, 3\)"):
        TiltedLaws(jnp.asarray(gaussian()), jnp.zeros((1, 3)), (0.0,))
    with pytest.raises(ValueError, match=r"expected 2 strata of >= 2 samples, got \(1, 300\)"):
        laws.distance(jnp.asarray(gaussian(300)))


# Learning with a reward

EXACT = GaussianMixture((0, 1), FLOW)
MEANS = jnp.asarray([[1.0], [-1.0]])
MIXTURE = EXACT.params(MEANS, 0.5)


def test_reward_term_has_the_gradient_minus_gamma_times_reward_along_delta():
    """For R = 2 x0 on data x0 = 1: cond = 1, so R = 2 (1 + omega Delta) is linear in omega.

    The mean of Delta = cond - uncond follows from R, and d/domega (-gamma R) = -2 gamma Delta.
    """
    points = EXACT.params(MEANS, 1e-12)
    batch = Batch(jnp.ones((64, 1)), jnp.zeros(64, jnp.int32))
    objective = SelfConsistency(reward=rewards.Linear((2.0,)), reward_weight=1.5, num_particles=2)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def reward_term(w):
        def omega_fn(*, s, t, c):
            return jnp.full_like(t, w)

        loss, info = objective(jax.random.key(3), omega_fn, EXACT, points, batch)
        return loss - info["distance"], info["reward"]

    (term, reward), gradient = reward_term(0.7)
    mean_delta = (float(reward) / 2.0 - 1.0) / 0.7
    assert 0.05 < mean_delta < 1.0
    assert float(term) == pytest.approx(-1.5 * float(reward), rel=1e-5)
    assert float(gradient) == pytest.approx(-1.5 * 2.0 * mean_delta, rel=1e-4)


@pytest.fixture(scope="module")
def pushed():
    """Omega of two classes at +-1, rewarded for lying to the right, at a large weight."""
    rng = np.random.default_rng(0)
    labels = np.arange(1000) % 2
    x0 = np.where(labels, -1.0, 1.0)[:, None] + 0.5**0.5 * rng.normal(size=(1000, 1))
    times = tuple(np.linspace(1.0, 0.0, 7).tolist())
    return lgd.learn_guidance(
        jax.random.key(0),
        EXACT,
        MIXTURE,
        x0,
        labels,
        objective=Trajectory(
            times=times,
            num_particles=64,
            num_targets=64,
            beta=1.5,
            reward=rewards.Linear((1.0,)),
            reward_weight=5.0,
        ),
        model=omega.StepTable(times=times, rows=omega.ByLabel(2), omega_max=2.0),
        start={"small": guidance.constant(0.3)},
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=40, learning_rate=0.1, ema_decay=0.5),
            progress=False,
        ),
    )


@pytest.mark.slow
def test_omega_rises_where_delta_goes_along_the_reward_and_vanishes_where_it_does_not(pushed):
    """Guidance moves each class away from the other: class 0 along the reward, class 1 against."""
    values = np.asarray(pushed.params["values"])
    assert values[0, 1:].mean() > 1.0
    assert values[1].max() < 0.05


@pytest.mark.slow
def test_large_weight_moves_the_reward_of_the_class_it_can_help(pushed):
    times = jnp.asarray(pushed.model.times)
    c = jnp.repeat(jnp.arange(2, dtype=jnp.int32), 500)

    def mean_reward(omega_fn):
        x0 = lgd.sample(
            jax.random.key(1), EXACT, MIXTURE, c, guidance=omega_fn, shape=(1,), times=times
        ).x0
        return np.asarray(rewards.Linear((1.0,))(x0, c)).reshape(2, 500).mean(axis=1)

    before, after = mean_reward(guidance.constant(0.0)), mean_reward(pushed.omega_fn)
    assert after[0] > before[0] + 0.5
    assert after[1] == pytest.approx(before[1], abs=0.05)


@pytest.mark.slow
def test_warm_training_starts_from_what_was_learned(pushed):
    """Learning rate near 0: the parameters stay where they were."""
    again = lgd.learn_guidance(
        jax.random.key(0),
        EXACT,
        MIXTURE,
        np.zeros((8, 1)),
        np.arange(8) % 2,
        objective=Trajectory(times=pushed.model.times, num_particles=2, num_targets=2),
        start=pushed,
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=1, learning_rate=1e-9), progress=False
        ),
    )
    assert (again.model, again.start) == (pushed.model, pushed.start)
    np.testing.assert_allclose(again.params["values"], pushed.params["values"], atol=1e-6)
    with pytest.raises(ValueError, match="expected no model beside guidance to start from"):
        lgd.learn_guidance(
            jax.random.key(0),
            EXACT,
            MIXTURE,
            np.zeros((8, 1)),
            np.arange(8) % 2,
            model=pushed.model,
            start=pushed,
        )
