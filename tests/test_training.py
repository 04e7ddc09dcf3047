import dataclasses
import functools
import os
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lgd import omega, schedules, training
from lgd.data import labelled, pipeline
from lgd.denoisers import GaussianMixture
from lgd.encoders import Labels
from lgd.learn import omega_loss
from lgd.machinery import digests, parallel, stopping
from lgd.machinery.checkpoint import CheckpointStore
from lgd.machinery.failures import DeviceMemoryError, NonFiniteError
from lgd.objectives import SelfConsistency, Trajectory
from lgd.training import Optimizer, Trainer, TrainState
from lgd.types import Batch

KEY = jax.random.key(11)


def regression(params, frozen, batch, key):
    """Least squares to a frozen slope, from noisy inputs: uses every argument of a loss."""
    x = batch + 0.1 * jax.random.normal(key, batch.shape)
    error = x @ (params["w"] - frozen["w"])
    return jnp.mean(error**2), {"draw": jax.random.uniform(key)}


def batches(step):
    return np.random.default_rng(step).normal(size=(8, 3)).astype(np.float32)


OF_A_TRAINER = {field.name for field in dataclasses.fields(training.Trainer)}


def split_settings(settings):
    """Settings of the trainer, and the arguments of `fit`."""
    ours = {name: value for name, value in settings.items() if name in OF_A_TRAINER}
    return training.Trainer(**ours), {k: v for k, v in settings.items() if k not in ours}


def fit(loss=regression, *, params=None, **settings):
    trainer, arguments = split_settings(
        {
            "frozen": {"w": jnp.asarray([1.0, -2.0, 0.5])},
            "batches": batches,
            "optimizer": Optimizer(num_steps=7, learning_rate=0.1),
            "log_every": 0,
        }
        | settings
    )
    params = {"w": jnp.zeros(3)} if params is None else params
    return training.fit(KEY, loss, params, trainer=trainer, **arguments)


def to_host(tree):
    return jax.tree.map(np.array, tree)  # copies: the next step donates these buffers


def assert_bitwise(one, other):
    jax.tree.map(np.testing.assert_array_equal, to_host(one), to_host(other))


class Walk:
    """`make_step` by hand: the states after every step, on the host."""

    def __init__(self, optimizer, loss=regression, params=None, **settings):
        params = {"w": jnp.zeros(3)} if params is None else params
        frozen = {"w": jnp.asarray([1.0, -2.0, 0.5])}
        state = training.init_state(params, optimizer)
        self.step = training.make_step(
            loss, optimizer, state, frozen, batches(0), mesh=parallel.make_mesh(1), **settings
        )
        self.states, self.infos = [to_host(state)], []
        for i in range(optimizer.num_steps):
            state, info = self.step(state, frozen, batches(i), KEY)
            self.states.append(to_host(state))
            self.infos.append(to_host(info))

    def updates(self):
        weights = [state.params["w"] for state in self.states]
        return np.diff(np.asarray(weights), axis=0)


DENOISER = GaussianMixture((0, 1), schedules.rectified_flow())
NETWORK = omega.Network(schedule=DENOISER.schedule, encoder=Labels(2), width=4, depth=1)
TRAJECTORY = Trajectory(times=(1.0, 0.5, 0.0), num_particles=2, num_targets=2)
TABLE = omega.StepTable(times=TRAJECTORY.times, rows=omega.ByLabel(2))


draw = jax.jit(DENOISER.draw)


def denoiser_params():
    return DENOISER.params(jnp.asarray([[1.0, 0.3], [-0.6, 0.5]]), 0.1)


def batch_with_labels(step):
    c = jnp.arange(16) % 2
    x0 = draw(jax.random.fold_in(jax.random.key(5), step), denoiser_params(), c)
    return Batch(x0, c)


def grouped(step):
    """Eight groups of two, each of one class."""
    x0 = batch_with_labels(step).x0
    return Batch(
        jnp.concatenate([x0[::2], x0[1::2]]).reshape(8, 2, 2), jnp.arange(16).reshape(8, 2) // 8
    )


def learn(objective, model, **settings):
    trainer, arguments = split_settings(
        {
            "frozen": denoiser_params(),
            "batches": batch_with_labels,
            "optimizer": Optimizer(num_steps=5, learning_rate=3e-3),
        }
        | settings
    )
    params = model.init(jax.random.key(1), jnp.arange(2))
    return training.fit(
        KEY, omega_loss(objective, model, DENOISER), params, trainer=trainer, **arguments
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["self_consistency", "trajectory"])
def test_8_devices_learn_what_1_device_learns_and_leave_the_frozen_model_alone(name):
    objective, model, batch_of = {
        "self_consistency": (SelfConsistency(num_particles=2), NETWORK, batch_with_labels),
        "trajectory": (TRAJECTORY, TABLE, grouped),
    }[name]
    frozen, losses, states = denoiser_params(), {1: [], 8: []}, {}
    before, start = to_host(frozen), to_host(model.init(jax.random.key(1), jnp.arange(2)))
    for count, log in losses.items():
        states[count] = learn(
            objective,
            model,
            frozen=frozen,
            batches=batch_of,
            mesh=parallel.make_mesh(count),
            log_every=1,
            on_log=lambda step, info, log=log: log.append(info["loss"]),
        )
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(states[8])} == {8}
    np.testing.assert_allclose(losses[1], losses[8], rtol=1e-5)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(compare, to_host(states[1].params), to_host(states[8].params))
    jax.tree.map(compare, to_host(states[1].ema), to_host(states[8].ema))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), to_host(states[8].params), start)
    assert max(jax.tree.leaves(moved)) > 5e-3
    assert_bitwise(frozen, before)


def test_the_initial_parameters_are_not_donated():
    params = {"w": jnp.ones(3)}
    fit(params=params)
    np.testing.assert_array_equal(params["w"], 1.0)


def test_nothing_is_compiled_after_the_first_step(monkeypatch):
    made, make_step = [], training.make_step

    def remembered(*arguments, **settings):
        made.append(make_step(*arguments, **settings))
        return made[-1]

    monkeypatch.setattr(training.loop, "make_step", remembered)
    fit()
    assert [step._cache_size() for step in made] == [1]


class MemoryStore:
    """The states saved, on the host."""

    def __init__(self):
        self.saved, self.metadata = {}, {}

    def save(self, step, state, metadata=None):
        self.saved[step], self.metadata = to_host(state), metadata or {}

    def restore(self, like):
        if not self.saved:
            return None
        newest = self.saved[max(self.saved)]
        return SimpleNamespace(
            state=jax.tree.map(lambda a, b: jax.device_put(a, b.sharding), newest, like),
            metadata=self.metadata,
        )


def stops_at(stop):
    def interrupted(step):
        if step == stop:
            raise KeyboardInterrupt
        return batches(step)

    return interrupted


@pytest.mark.parametrize("kind", ["memory", "checkpoint"])
def test_resumed_equals_uninterrupted_bitwise(kind, tmp_path):
    whole_log, log = [], []
    settings = {"save_every": 2, "log_every": 1}
    whole = fit(on_log=lambda *entry: whole_log.append(entry), log_every=1)
    store = MemoryStore() if kind == "memory" else CheckpointStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(store=store, batches=stops_at(5), on_log=lambda *entry: log.append(entry), **settings)
    assert [step for step, _ in log] == [1, 2, 3, 4, 5]
    store = store if kind == "memory" else CheckpointStore(tmp_path)
    del log[4:]  # step 5 was not saved and is done again
    resumed = fit(store=store, on_log=lambda *entry: log.append(entry), **settings)
    assert log == whole_log
    assert_bitwise(resumed, whole)
    assert int(resumed.step) == 7
    assert_bitwise(fit(store=store, **settings), whole)  # nothing left to do


def test_a_store_of_another_training_is_refused():
    store = MemoryStore()
    fit_alone(store=store, fingerprint="one")
    fit_alone(store=store, fingerprint="one")
    fit_alone(store=store)  # says nothing
    with pytest.raises(ValueError, match="store: expected checkpoints of a training with the same"):
        fit_alone(store=store, fingerprint="another")


def another(value):
    """Another value of the same kind."""
    return not value if isinstance(value, bool) else value / 2 if value else 7


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Optimizer)])
def test_a_training_is_named_by_every_setting_of_its_optimizer(name):
    optimizer = Optimizer(num_steps=8, warmup_steps=2)
    value = getattr(optimizer, name)
    changed = dataclasses.replace(
        optimizer, **{name: int(value * 2) if type(value) is int else another(value)}
    )
    named = [digests.describe(Trainer(optimizer=each)) for each in (optimizer, changed)]
    assert (named[0] != named[1]) == (name != "max_skipped")


def test_a_training_is_named_by_its_batch_and_not_by_how_it_runs():
    trainer = Trainer(optimizer=Optimizer(num_steps=8))
    assert digests.describe(trainer) != digests.describe(dataclasses.replace(trainer, batch_size=9))
    how = {
        "store": MemoryStore(),
        "save_every": 3,
        "log_every": 1,
        "on_log": print,
        "progress": False,
    }
    same = dataclasses.replace(trainer, on_step=lambda step, ema: None, **how)
    assert digests.describe(trainer) == digests.describe(same)


class Named:
    """Batches that say what they are made from."""

    def __init__(self, **identity):
        self.identity = identity

    def __call__(self, step):
        return batches(step)


def test_a_training_goes_on_only_with_the_batches_it_began_with():
    store, same = MemoryStore(), Named(seed="0", batch_size="8")
    fit_alone(store=store, batches=same)
    fit_alone(store=store, batches=same)
    fit_alone(store=store)  # says nothing
    with pytest.raises(ValueError, match=r"same batches.*; seed: expected 0, got 1$"):
        fit_alone(store=store, batches=Named(seed="1", batch_size="8"))
    with pytest.raises(ValueError, match=r"; batch_size: expected 8, got none; size: .* got 8$"):
        fit_alone(store=store, batches=Named(seed="0", size="8"))


def test_states_are_saved_at_the_steps_asked_for_and_at_the_end():
    store = MemoryStore()
    final = fit(store=store, save_every=3)
    assert list(store.saved) == [3, 6, 7]
    assert [int(state.step) for state in store.saved.values()] == [3, 6, 7]
    assert_bitwise(store.saved[7], final)


@pytest.mark.parametrize("ema_decay", [0.0, 0.15, 0.999])
def test_ema_follows_its_formula(ema_decay):
    states = Walk(Optimizer(num_steps=4, learning_rate=0.1, ema_decay=ema_decay)).states
    expected = np.float64(states[0].params["w"])
    for i, state in enumerate(states[1:]):
        decay = min(ema_decay, (1 + i) / (10 + i))
        expected = decay * expected + (1 - decay) * np.float64(state.params["w"])
        np.testing.assert_allclose(state.ema["w"], expected, rtol=1e-5, atol=1e-7)
    assert isinstance(states[-1], TrainState)
    assert int(states[-1].step) == 4


@pytest.mark.parametrize(("clip", "expected"), [(0.0, 5.0), (1.0, 1.0), (7.0, 5.0)])
def test_gradients_above_the_clip_are_scaled_down_to_it(clip, expected):
    def linear(params, frozen, batch, key):
        return jnp.dot(params["w"], jnp.asarray([3.0, 4.0, 0.0])), {}

    walk = Walk(Optimizer(num_steps=1, clip=clip), linear)
    momentum = optax.tree.get(walk.states[1].opt_state, "mu")["w"]  # (1 - 0.9) times the gradient
    np.testing.assert_allclose(np.linalg.norm(momentum), 0.1 * expected, rtol=1e-5)
    np.testing.assert_allclose(walk.infos[0]["grad_norm"], 5.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"decay": False}, [1, 1, 1, 1]),
        ({"decay": False, "warmup_steps": 2}, [0, 0.5, 1, 1]),
        ({"decay": True}, 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))),
        ({"decay": True, "warmup_steps": 2}, [0, 0.5, 1, 0.5]),
    ],
)
def test_learning_rate_warms_up_and_decays(settings, rates):
    def slope_1(params, frozen, batch, key):
        return jnp.sum(params["w"]), {}

    walk = Walk(Optimizer(num_steps=4, learning_rate=0.2, **settings), slope_1)
    expected = -0.2 * np.asarray(rates)[:, None] * np.ones(3)  # Adam, of a constant gradient
    np.testing.assert_allclose(walk.updates(), expected, rtol=3e-5, atol=1e-6)


def test_projection_is_applied_after_every_update():
    def project(params):
        return {"w": jnp.clip(params["w"], -0.05, 0.15)}

    optimizer = Optimizer(num_steps=4, learning_rate=0.1, ema_decay=0.0)
    states = Walk(optimizer, project=project).states
    assert all(state.params["w"].min() >= -0.05 for state in states)
    np.testing.assert_allclose(states[-1].params["w"][:2], [0.15, -0.05])
    final = fit(optimizer=optimizer, project=project, on_step=lambda step, ema: None)
    np.testing.assert_allclose(final.params["w"][:2], [0.15, -0.05])
    np.testing.assert_array_equal(final.ema["w"], final.params["w"])


def test_log_is_called_at_the_steps_asked_for_with_the_values_of_that_step():
    log, steps = {}, []
    frozen = {"w": jnp.asarray([1.0, -2.0, 0.5])}
    fit(log_every=3, on_log=log.__setitem__, on_step=lambda step, ema: steps.append(step))
    assert list(log) == [3, 6, 7]
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    first = {}
    fit(optimizer=Optimizer(num_steps=1), on_log=first.__setitem__)
    key = jax.random.fold_in(KEY, 0)
    start = {"w": jnp.zeros(3)}
    expected = jax.value_and_grad(regression, has_aux=True)(start, frozen, batches(0), key)
    (loss, info), gradient = expected
    np.testing.assert_allclose(first[1]["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(first[1]["grad_norm"], np.linalg.norm(gradient["w"]), rtol=1e-5)
    np.testing.assert_allclose(first[1]["draw"], info["draw"], rtol=1e-6)
    for step, values in log.items():
        drawn = jax.random.uniform(jax.random.fold_in(KEY, step - 1))
        np.testing.assert_allclose(values["draw"], drawn, rtol=1e-6)
        assert {type(value) for value in values.values()} == {float}


def test_on_step_receives_the_ema():
    seen = []
    final = fit(on_step=lambda step, ema: seen.append(to_host(ema)))
    assert_bitwise(seen[-1], final.ema)
    assert len({tuple(ema["w"]) for ema in seen}) == 7


def fit_alone(*arguments, **settings):
    return fit(*arguments, mesh=parallel.make_mesh(1), **settings)


def nan_at(*steps):
    return lambda step: batches(step) * (np.nan if step in steps else 1.0)


def unbounded(params, frozen, batch, key):
    """Finite, with a gradient that is not."""
    return jnp.sum(jnp.sqrt(jnp.maximum(params["w"] * batch[0, 0], 0.0))), {}


def test_a_run_with_a_step_that_is_not_finite_equals_one_without_that_step():
    optimizer, frozen = Optimizer(num_steps=7, learning_rate=0.1), {"w": jnp.asarray([1, -2, 0.5])}
    state = training.init_state({"w": jnp.zeros(3)}, optimizer)
    step_fn = training.make_step(
        regression, optimizer, state, frozen, batches(0), mesh=parallel.make_mesh(1)
    )
    for step in (0, 1, 2, 3, 5, 6):
        state = state._replace(step=jnp.asarray(step, jnp.int32))
        state, _ = step_fn(state, frozen, batches(step), KEY)
    log = {}
    got = fit_alone(batches=nan_at(4), log_every=1, on_log=log.__setitem__)
    assert (int(got.step), int(got.skipped), int(got.skipped_in_a_row)) == (7, 1, 0)
    assert_bitwise(got._replace(skipped=0), state._replace(skipped=0))
    assert list(log) == [1, 2, 3, 4, 5, 6, 7]
    assert [values.get("skipped", 0) for values in log.values()] == [0, 0, 0, 0, 1, 1, 1]
    assert all(np.isfinite(value) for values in log.values() for value in values.values())
    assert "loss" not in log[5]


def test_a_gradient_that_is_not_finite_is_skipped():
    state = fit_alone(unbounded)
    assert int(state.skipped) == 7
    np.testing.assert_array_equal(state.params["w"], 0.0)


def test_an_update_that_is_not_finite_is_skipped_where_loss_and_gradient_are_finite():
    """A parameter near the largest float32 overflows under a large step."""

    def falling(params, frozen, batch, key):
        return -1e-3 * params["w"], {}

    optimizer = Optimizer(num_steps=2, learning_rate=1e38, decay=False)
    state = training.init_state({"w": jnp.asarray(3e38)}, optimizer)
    before = to_host(state)
    step = training.make_step(falling, optimizer, state, (), batches(0), mesh=parallel.make_mesh(1))
    new, info = step(state, (), batches(0), KEY)
    assert np.isfinite([info["loss"], info["grad_norm"]]).all()
    assert int(new.skipped) == 1
    for part in ("params", "ema", "opt_state"):
        assert_bitwise(getattr(new, part), getattr(before, part))


class Overflowing(Optimizer):
    """An optimizer whose state is infinite after a step, and whose updates are 0."""

    def transformation(self):
        def update(grads, state, params):
            return jax.tree.map(jnp.zeros_like, grads), state + 3e38

        return optax.GradientTransformation(lambda params: jnp.asarray(2e38), update)


def test_an_optimizer_state_that_is_not_finite_is_skipped_where_parameters_are_finite():
    def linear(params, frozen, batch, key):
        return params["w"], {}

    optimizer = Overflowing(num_steps=2)
    state = training.init_state({"w": jnp.asarray(1.0)}, optimizer)
    before = to_host(state)
    step = training.make_step(linear, optimizer, state, (), batches(0), mesh=parallel.make_mesh(1))
    new, info = step(state, (), batches(0), KEY)
    assert np.isfinite([info["loss"], info["grad_norm"], new.params["w"]]).all()
    assert (int(new.skipped), int(new.step)) == (1, 1)
    assert_bitwise(new.opt_state, before.opt_state)
    assert_bitwise(new.ema, before.ema)


def test_many_steps_in_a_row_that_are_not_finite_end_the_training_as_it_was_before_them(tmp_path):
    data = labelled(np.ones((20, 3), np.float32), np.zeros(20, np.int32))
    examples = pipeline.examples(data, 8, seed=0)

    class Broken:
        index = staticmethod(examples.index)

        def __call__(self, step):
            return nan_at(3, 4, 5)(step)

    before = fit_alone(optimizer=Optimizer(num_steps=3, learning_rate=0.1, decay=False))
    optimizer = Optimizer(num_steps=7, learning_rate=0.1, decay=False, max_skipped=3)
    with CheckpointStore(tmp_path) as store, pytest.raises(NonFiniteError) as caught:
        fit_alone(optimizer=optimizer, batches=Broken(), store=store, save_every=1)
    assert caught.value.steps == [4, 5, 6]
    assert caught.value.examples == [examples.index(step).tolist() for step in (3, 4, 5)]
    assert "steps 4 to 6" in str(caught.value)
    with CheckpointStore(tmp_path) as store:
        step, state, _ = store.restore(before)
    assert step == 5
    for part in ("params", "ema", "opt_state"):
        assert_bitwise(getattr(state, part), getattr(before, part))


def test_fewer_steps_in_a_row_than_the_limit_are_skipped_across_a_resume():
    optimizer = Optimizer(num_steps=7, learning_rate=0.1, max_skipped=3)
    assert int(fit_alone(optimizer=optimizer, batches=nan_at(1, 2, 4, 5)).skipped) == 4
    store = MemoryStore()

    def interrupted(step):
        if step == 4:
            raise KeyboardInterrupt
        return nan_at(2, 3, 4)(step)

    with pytest.raises(KeyboardInterrupt):
        fit_alone(optimizer=optimizer, batches=interrupted, store=store, save_every=1)
    with pytest.raises(NonFiniteError, match="steps 3 to 5"):
        fit_alone(optimizer=optimizer, batches=nan_at(2, 3, 4), store=store)


def test_a_full_device_is_named_with_advice():
    def huge(params, frozen, batch, key):
        draws = jax.random.normal(key, (2**20, 2**20, 2**6))
        return jnp.sum(params["w"]) + jnp.sum(jnp.sort(draws.reshape(-1))), {}

    with pytest.raises(DeviceMemoryError, match=r"batch size.*particles.*jax\.checkpoint"):
        fit_alone(huge)


# A signal in the middle


def signal_at(stop, number=signal.SIGINT):
    def on_step(step, ema):
        if step == stop:
            os.kill(os.getpid(), number)

    return on_step


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_ctrl_c_stops_between_two_steps_with_the_last_one_saved(stop, tmp_path):
    whole = fit_alone()
    with CheckpointStore(tmp_path) as store:
        with pytest.raises(stopping.Stopped, match=f"after step {stop} of 7") as caught:
            fit_alone(store=store, on_step=signal_at(stop), save_every=5)
        saved = store.restore(whole)
        assert saved.step == stop
        assert_bitwise(saved.state, caught.value.state)
        assert_bitwise(fit_alone(store=store), whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_state_without_a_store_comes_with_the_interrupt():
    with pytest.raises(KeyboardInterrupt) as caught:
        fit_alone(on_step=signal_at(3))
    assert int(caught.value.state.step) == 3
    assert int(fit_alone().step) == 7  # and the next call is not stopped


def test_a_second_ctrl_c_interrupts_at_once():
    def twice(step, ema):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        fit_alone(on_step=twice)
    assert not isinstance(caught.value, stopping.Stopped)
    assert int(fit_alone().step) == 7


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_signals_of_a_program_stop_all_its_loops(number):
    with stopping.on_signals():
        stopping.check("nothing yet")
        with pytest.raises(stopping.Stopped, match="after step 2 of 7"):
            fit_alone(on_step=signal_at(2, number))
        with pytest.raises(stopping.Stopped, match="stopped after a measurement"):
            stopping.check("a measurement")
    stopping.check("the next program")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_batch_that_does_not_divide_over_the_devices_is_refused():
    message = r"divisible by the 8 devices.*, got shape \(6, 3\)"
    with pytest.raises(ValueError, match=message):
        fit(batches=lambda step: batches(step)[:6])
    three = parallel.make_mesh(3)
    assert int(fit(batches=lambda step: batches(step)[:6], mesh=three).step) == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps: expected a whole number >= 1, got 0"),
        ({"num_steps": 5, "warmup_steps": 5}, "expected 0 <= warmup_steps < num_steps, got"),
        ({"num_steps": 5, "warmup_steps": -1}, "warmup_steps: expected a whole number >= 0"),
        ({"num_steps": 5, "learning_rate": 0.0}, "expected learning_rate > 0, .* got"),
        (
            {"num_steps": 5, "learning_rate": float("nan")},
            "learning_rate: expected a finite",
        ),
        ({"num_steps": 5, "clip": -1.0}, ".*clip >= 0.*, got"),
        ({"num_steps": 5, "max_skipped": 0}, "max_skipped: expected a whole number >= 1"),
        ({"num_steps": 5, "ema_decay": 1.0}, r".*ema_decay in \[0, 1\), got"),
    ],
)
def test_optimizer_refuses_settings_outside_their_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Optimizer(**settings)
