"""The method as a whole: a known remedy is found, and none where none is needed."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd import guidance, objectives, omega, schedules, training
from lgd.denoisers import GaussianMixture, from_function
from lgd.diffusion import denoise_pair, noised
from lgd.starts import START_WEIGHTS, start_schedules

FLOW = schedules.rectified_flow()
EXACT = GaussianMixture((0, 1), FLOW)
MEANS, VARIANCE = np.array([[1.0], [-1.0]], np.float32), 0.5


def pulled(params, x_t, t, c):
    """cond - pull (cond - uncond): mix at omega = pull / (1 - pull) gives back cond exactly."""
    mixture, pull = params
    cond, uncond = (EXACT.apply(mixture, x_t, t=t, c=label) for label in (c, EXACT.null(c)))
    return cond - pull * (cond - uncond)


PULLED = from_function(pulled, schedule=FLOW, kind="x0", null=2)


def draw(size, seed=0):
    labels = np.arange(size) % 2
    noise = np.random.default_rng(seed).normal(size=(size, 1))
    return MEANS[labels] + VARIANCE**0.5 * noise, labels


X0, LABELS = draw(2000)


@pytest.fixture(scope="module")
def mixture():
    return EXACT.params(jnp.asarray(MEANS), VARIANCE)


def weighted(result, denoiser, params, times):
    """omega of each class and step, and its mean weighted by |cond - uncond|^2 on noised data."""
    x0, c = jnp.asarray(X0, jnp.float32), jnp.asarray(LABELS, jnp.int32)
    times = jnp.asarray(times)

    @jax.jit
    def mean(params):
        def gap(t):
            t = jnp.full(len(x0), t)
            x_t = noised(x0, jax.random.normal(jax.random.key(9), x0.shape), t=t, schedule=FLOW)
            cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
            return jnp.sum(jnp.square(cond - uncond), axis=-1)

        gaps = jax.lax.map(gap, times[:-1])
        return jnp.sum(gaps * guidance.on_grid(result.omega_fn, times, c)) / jnp.sum(gaps)

    return float(mean(params))


class Log:
    """What a training reports."""

    def __init__(self):
        self.snapshots, self.lines = {}, {}

    def on_step(self, step, ema):
        self.snapshots[step] = jax.tree.map(np.array, ema)

    def on_log(self, step, info):
        self.lines[step] = info


# The remedy


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("pull", "start", "remedy"), [(1 / 2, 0.1, 1.0), (1 / 3, 2.0, 0.5)])
def test_trajectory_objective_finds_the_remedy(mixture, pull, start, remedy):
    """cond' + omega (cond' - uncond) = cond at omega = pull / (1 - pull), for every s, t and c.

    Heun's method, so that little is left to learn but the pull: with 12 steps of DDIM the optimum
    makes up for errors of the solver as well.
    """
    times = tuple(np.linspace(1.0, 0.0, 13).tolist())
    params = jax.tree.map(np.asarray, (mixture, np.float32(pull)))
    result = lgd.learn_guidance(
        jax.random.key(0),
        PULLED,
        params,
        X0,
        LABELS,
        objective=objectives.Trajectory(
            times=times, num_particles=128, num_targets=128, solver="heun"
        ),
        model=omega.StepTable(times=times),
        start={"far": guidance.constant(9.0), "near": guidance.constant(start)},
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=80, learning_rate=0.1, ema_decay=0.9),
            progress=False,
        ),
    )
    assert result.start == "near"
    assert weighted(result, PULLED, params, times) == pytest.approx(remedy, abs=0.1)


@pytest.fixture(scope="module")
def by_default(mixture):
    """A short training by the default objective on the exact denoiser."""
    log, before = Log(), jax.tree.map(np.array, mixture)
    result = lgd.learn_guidance(
        jax.random.key(1),
        EXACT,
        mixture,
        X0,
        LABELS,
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=45, learning_rate=0.1, ema_decay=0.9),
            on_step=log.on_step,
            on_log=log.on_log,
            log_every=20,
            progress=False,
        ),
    )
    return result, log, before


@pytest.mark.sampled(2)
def test_exact_denoiser_needs_no_guidance(by_default, mixture):
    result, _, _ = by_default
    assert isinstance(result.model, omega.StepTable)
    assert result.params["values"].shape == (2, 25)
    assert weighted(result, EXACT, mixture, result.model.times) < 0.1


def test_frozen_parameters_are_as_they_were(by_default, mixture):
    _, _, before = by_default
    for array, copy in zip(mixture, before, strict=True):
        assert not array.is_deleted()
        assert np.asarray(array).tobytes() == copy.tobytes()


def test_start_is_a_hand_made_schedule_and_is_recorded(by_default):
    result, log, _ = by_default
    schedule = start_schedules()[result.start]
    first = np.asarray(result.model.tabulate(schedule, np.arange(2))["values"])
    assert np.abs(log.snapshots[1]["values"] - first).max() <= 0.1 + 1e-6  # one step of Adam


def test_snapshots_lead_to_the_result(by_default):
    result, log, _ = by_default
    assert list(log.snapshots) == list(range(1, 46))
    np.testing.assert_array_equal(log.snapshots[45]["values"], result.params["values"])
    assert not np.array_equal(log.snapshots[44]["values"], result.params["values"])
    assert list(log.lines) == [20, 40, 45]
    assert {"loss", "grad_norm", "omega"} < set(log.lines[45])


@pytest.mark.slow
def test_features_of_real_examples_are_computed_once_where_that_is_less_work(mixture, monkeypatch):
    counts = []

    def phi(x):
        jax.debug.callback(lambda size: counts.append(int(size)), len(x))
        return jnp.tanh(x)

    def learned(num_steps):
        counts.clear()
        result = lgd.learn_guidance(
            jax.random.key(0),
            PULLED,
            (mixture, 0.5),
            X0[:30],
            LABELS[:30],
            objective=objectives.Trajectory(
                times=(1.0, 0.5, 0.0), num_particles=4, num_targets=5, features=phi
            ),
            start={"none": guidance.constant(0.5)},
            trainer=training.Trainer(
                optimizer=training.Optimizer(num_steps=num_steps, learning_rate=0.1),
                batch_size=10,
                progress=False,
            ),
        )
        jax.effects_barrier()
        return result, list(counts)

    # 2 classes of 4 particles a step; 10 real examples a step, or all 30 once.
    _, few = learned(2)
    assert set(few) == {8, 10}
    once, many = learned(3)
    assert set(many) == {8, 30}
    assert many.count(30) == 1
    monkeypatch.setattr(
        objectives.Trajectory, "prepared", lambda objective, split, *_, **__: (objective, split)
    )
    every_step, _ = learned(3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), once.params, every_step.params
    )


class LastStep:
    """A store in memory."""

    def __init__(self):
        self.saved = None

    def save(self, step, state, metadata=None):
        self.saved = step, jax.tree.map(np.array, state), metadata

    def restore(self, like):
        return self.saved and SimpleNamespace(state=self.saved[1], metadata=self.saved[2])


OTHERS = {
    "learning rate": {"learning_rate": 0.2},
    "averaging": {"ema_decay": 0.5},
    "clipping": {"clip": 2.0},
    "batch": {"batch_size": 12},
    "objective": {"churn": 0.5},
    "model": {"omega_max": 3.0},
    "start": {"start": 0.25},
    "denoiser": {"pull": 0.75},
    "key": {"key": 1},
}


@pytest.mark.slow
def test_a_store_goes_on_with_nothing_but_the_training_it_holds(mixture):
    """Every setting that shapes a training binds its store."""

    def learned(store, key=0, churn=0.0, omega_max=10.0, start=0.5, pull=0.5, batch_size=10, **by):
        times, settings = (1.0, 0.5, 0.0), {"num_steps": 1, "learning_rate": 0.1} | by
        return lgd.learn_guidance(
            jax.random.key(key),
            PULLED,
            (mixture, pull),
            X0[:30],
            LABELS[:30],
            objective=objectives.Trajectory(
                times=times, num_particles=4, num_targets=5, churn=churn
            ),
            model=omega.StepTable(times=times, omega_max=omega_max),
            start={"one": guidance.constant(start)},
            trainer=training.Trainer(
                optimizer=training.Optimizer(**settings),
                batch_size=batch_size,
                store=store,
                progress=False,
            ),
        )

    store = LastStep()
    learned(store)
    learned(store, max_skipped=3)  # changes no result
    for fields in OTHERS.values():
        with pytest.raises(ValueError, match="store: expected checkpoints of a training with the"):
            learned(store, **fields)


@pytest.mark.slow
def test_network_learns_by_the_papers_objective(mixture):
    """With an exact denoiser self-consistency lowers omega, wherever it starts."""
    result = lgd.learn_guidance(
        jax.random.key(0),
        EXACT,
        mixture,
        X0,
        LABELS,
        objective=objectives.SelfConsistency(),
        start={"constant(0.8)": guidance.constant(0.8)},
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=50, learning_rate=3e-3, ema_decay=0.9),
            batch_size=64,
            progress=False,
        ),
    )
    assert isinstance(result.model, omega.Network)
    assert result.model.init_omega == pytest.approx(0.8)
    assert result.model.support == objectives.SelfConsistency().support
    assert 0.0 <= weighted(result, EXACT, mixture, (0.99, 0.7, 0.4, 0.1)) < 0.2


def test_start_schedules_are_named_by_their_settings():
    named = start_schedules()
    t, c = jnp.asarray([0.3]), jnp.zeros(1, jnp.int32)
    assert len(named) > len(START_WEIGHTS)
    for name, schedule in named.items():
        kind, _, settings = name.removesuffix(")").partition("(")
        again = getattr(guidance, kind)(*map(float, settings.split(",")))
        assert float(schedule(s=t, t=t, c=c)[0]) == float(again(s=t, t=t, c=c)[0])


# Bad input


@pytest.mark.parametrize(
    ("x0", "labels", "got"),
    [
        (X0, LABELS[:-1], r"c: expected 2000 rows.*got shape \(1999,\)"),
        (np.where(X0 > 3.0, np.nan, X0), LABELS, "x0: expected finite numbers"),
        (np.where(X0 > 3.0, np.inf, X0), LABELS, "x0: expected finite numbers"),
        (X0, LABELS - 1, "stratum: expected integers >= 0, got -1"),
        (X0, 2 * LABELS, r"expected examples of every stratum, got none of \[1\]"),
        (X0[:0], LABELS[:0], "expected examples x0, got none"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(mixture, x0, labels, got):
    with pytest.raises(ValueError, match="expected") as refusal:
        lgd.learn_guidance(
            jax.random.key(0), EXACT, mixture, x0, labels, trainer=training.Trainer(progress=False)
        )
    refusal.match(got)


@pytest.mark.hour
def test_a_thousand_labels_learn_the_remedy_of_all():
    """Means drawn together by 0.8 in training, which omega = 0.25 undoes; few steps a label."""
    rng, count = np.random.default_rng(0), 1000
    means = 2.0 * rng.normal(size=(count + 1, 8)).astype(np.float32)
    means[count] = 0.0

    def timid(means, x, t, c):
        alpha, sigma, mean = 1.0 - t[:, None], t[:, None], 0.8 * means[c]
        return mean + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x - alpha * mean)

    labels = np.arange(10 * count) % count
    learned = lgd.learn_guidance(
        jax.random.key(0),
        from_function(timid, schedule=FLOW, kind="x0", null=count),
        jnp.asarray(means),
        means[labels] + 0.5 * rng.normal(size=(len(labels), 8)).astype(np.float32),
        labels,
        trainer=training.Trainer(progress=False),
    )
    weights = guidance.on_grid(
        learned.omega_fn, schedules.uniform_times(25), jnp.arange(count, dtype=jnp.int32)
    )
    off = np.asarray(weights) - 0.25
    assert np.sqrt(np.mean(off**2)) < 0.1  # a table, two steps a row, ends 0.33 off
