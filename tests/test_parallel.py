"""Eight fake devices against one: layouts, steps, samples, metrics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lgd import guidance, learn_guidance, omega, sampling, schedules, training
from lgd.data import labelled
from lgd.denoisers import from_function
from lgd.evaluation import Generator
from lgd.learn import omega_loss
from lgd.machinery import parallel
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.frechet import moments
from lgd.objectives import SelfConsistency, Trajectory
from lgd.types import Batch

pytestmark = pytest.mark.usefixtures("quick_compilation")
FLOW = schedules.rectified_flow()
KEY = jax.random.key(3)
SIZES = [(8, 1), (4, 2), (2, 4), (1, 8)]
WHOLE, SPLIT = PartitionSpec(), PartitionSpec("fsdp")


def to_host(tree):
    return jax.tree.map(np.array, tree)


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def parts(array):
    """How many different pieces the devices hold, and the size of each."""
    pieces = {str(shard.index) for shard in array.addressable_shards}
    return len(pieces), array.addressable_shards[0].data.shape


# The mesh


@pytest.mark.parametrize(
    ("sizes", "expected"), [((), (8, 1)), ((0, 2), (4, 2)), ((2, 3), (2, 3)), ((1,), (1, 1))]
)
def test_mesh_takes_the_devices_it_needs(sizes, expected):
    mesh = parallel.make_mesh(*sizes)
    assert dict(mesh.shape) == dict(zip(parallel.AXES, expected, strict=True))
    assert mesh.devices.ravel().tolist() == jax.devices()[: mesh.size]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 3), "expected fsdp to divide the 8 devices, got 3"),
        ((3, 3), "expected data x fsdp = at most 8 devices, got 9"),
        ((-1, 1), "expected data >= 0 and fsdp >= 1, got -1 and 1"),
        ((1, 0), "expected data >= 0 and fsdp >= 1, got 1 and 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        parallel.make_mesh(*sizes)


def test_another_mesh_is_refused():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match=r"expected a mesh with axes .*, got \('data',\)"):
        train(mesh)


# Layouts


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((256, 256), SPLIT),  # 2^16 elements: the first of equal dimensions
        ((256, 255), WHOLE),  # fewer
        ((128, 1024), PartitionSpec(None, "fsdp")),
        ((3, 3, 64, 256), PartitionSpec(None, None, None, "fsdp")),
        ((24, 3, 16, 64), WHOLE),  # the bias of attention heads, of stacked blocks
        ((128, 128, 128), WHOLE),
        ((4, 132, 130), PartitionSpec(None, "fsdp")),
        ((1022, 256), PartitionSpec(None, "fsdp")),  # 4 does not divide the largest
        ((1022, 255), WHOLE),
        ((2**16,), SPLIT),
        ((0, 2**16), WHOLE),
        ((), WHOLE),
    ],
)
def test_large_parameters_are_split_along_their_largest_dimension(sizes, expected):
    mesh = parallel.make_mesh(2, 4)
    assert parallel.param_sharding(shape(*sizes), mesh).spec == expected
    assert parallel.param_sharding(shape(*sizes), parallel.make_mesh(8)).spec == WHOLE


def test_batches_are_split_over_all_devices_along_one_axis():
    mesh = parallel.make_mesh(2, 2)
    batch = {"x0": np.arange(96.0).reshape(8, 4, 3), "c": np.arange(8)}
    for axis, x0, c in [(0, (4, (2, 4, 3)), (4, (2,))), (1, (4, (8, 1, 3)), (1, (8,)))]:
        placed = parallel.place_batch(batch, mesh, axis)
        assert (parts(placed["x0"]), parts(placed["c"])) == (x0, c)
        np.testing.assert_array_equal(placed["x0"], batch["x0"])
    assert parts(parallel.place_batch(batch, mesh, None)["x0"]) == (1, (8, 4, 3))


def test_rows_are_spread_where_the_devices_divide_them():
    spread = parallel.spread_rows((np.ones((8, 6)), np.ones(5)), parallel.make_mesh(2, 2))
    assert [parts(array) for array in spread] == [(4, (2, 6)), (1, (5,))]


def test_one_process_reads_every_row():
    np.testing.assert_array_equal(parallel.local_rows(12, parallel.make_mesh(2, 2)), np.arange(12))
    with pytest.raises(ValueError, match="expected a multiple of the 4 devices, got 6"):
        parallel.local_rows(6, parallel.make_mesh(2, 2))


# A step


WIDTH = 256  # so that a kernel has 2^16 elements


def two_layers(params, frozen, batch, key):
    """Regression on the outputs of a frozen layer; one layer of the two is large."""
    x = batch + 0.1 * jax.random.normal(key, batch.shape)
    hidden = jnp.tanh(x @ params["kernel"])
    error = hidden @ params["out"] - jnp.sum(x @ frozen["kernel"], axis=-1, keepdims=True)
    return jnp.mean(error**2), {"draw": jax.random.uniform(key)}


def weights(seed):
    keys = jax.random.split(jax.random.key(seed))
    kernel = jax.random.normal(keys[0], (WIDTH, WIDTH)) / WIDTH**0.5
    return {"kernel": kernel, "out": jax.random.normal(keys[1], (WIDTH, 1)) / WIDTH**0.5}


def batches(step):
    return np.random.default_rng(step).normal(size=(16, WIDTH)).astype(np.float32)


def train(mesh, *, optimizer=None, **settings):
    optimizer = (
        training.Optimizer(num_steps=4, learning_rate=1e-3) if optimizer is None else optimizer
    )
    trainer = training.Trainer(optimizer=optimizer, mesh=mesh)
    defaults = {"frozen": weights(1), "batches": batches}
    return training.fit(KEY, two_layers, weights(0), trainer=trainer, **(defaults | settings))


@pytest.fixture(scope="module")
def on_one_device():
    return to_host(train(parallel.make_mesh(1)))


@pytest.mark.parametrize(
    "sizes",
    [size if size == (2, 4) else pytest.param(size, marks=pytest.mark.slow) for size in SIZES],
)
def test_8_devices_train_like_1(sizes, on_one_device):
    state = train(parallel.make_mesh(*sizes))
    compare = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6)
    jax.tree.map(compare, to_host(state), on_one_device)
    count = sizes[1]
    moments = [state.opt_state[1][0].mu, state.opt_state[1][0].nu]
    for tree in (state.params, state.ema, *moments):
        assert parts(tree["kernel"]) == (count, (WIDTH // count, WIDTH))
        assert parts(tree["out"]) == (1, (WIDTH, 1))


def test_nothing_is_compiled_after_the_first_step(monkeypatch):
    made, make_step = [], training.make_step

    def remembered(*arguments, **settings):
        made.append(make_step(*arguments, **settings))
        return made[-1]

    monkeypatch.setattr(training.loop, "make_step", remembered)
    train(parallel.make_mesh(4, 2))
    assert [step._cache_size() for step in made] == [1]


def test_a_large_array_is_never_whole_on_a_device(on_one_device):
    """The compiled step takes and returns parts of the kernel, of its moments and its EMA."""
    mesh = parallel.make_mesh(1, 8)
    optimizer = training.Optimizer(num_steps=4, learning_rate=1e-3)
    state, frozen = training.init_state(weights(0), optimizer), weights(1)
    step = training.make_step(two_layers, optimizer, state, frozen, batches(0), mesh=mesh)
    sizes = step.lower(state, frozen, batches(0), KEY).compile().memory_analysis()
    kernel = 4 * WIDTH**2
    assert 5 * kernel / 8 < sizes.argument_size_in_bytes < 6 * kernel / 8
    assert 4 * kernel / 8 < sizes.output_size_in_bytes < 5 * kernel / 8


# Guidance


X0 = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
LABELS = np.arange(64) % 2


def predict(params, x_t, t, c):
    return jnp.tanh(x_t @ params["in"] + params["label"][c] + t[:, None]) @ params["out"]


NETWORK = from_function(predict, schedule=FLOW, kind="velocity", null=4)


def network_params():
    rng = np.random.default_rng(0)
    sizes = {"in": (2, 512), "label": (5, 512), "out": (512, 2)}
    draw = {name: rng.normal(size=size) / 4.0 for name, size in sizes.items()}
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), draw)


PARTICLES = Trajectory(times=(1.0, 0.5, 0.0), num_particles=6, num_targets=8)


def learn(mesh, *, objective=PARTICLES, batch_size=8):
    return learn_guidance(
        KEY,
        NETWORK,
        network_params(),
        X0,
        LABELS,
        objective=objective,
        start={"constant": guidance.constant(0.2)},
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=2, learning_rate=0.02),
            batch_size=batch_size,
            mesh=mesh,
            progress=False,
            check=False,  # a probe warns of toys
        ),
    )


@pytest.fixture(scope="module")
def learned_on_one_device():
    return learn(parallel.make_mesh(1))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 4), (7, 1)])
def test_guidance_is_learned_on_any_mesh(sizes, learned_on_one_device):
    """2 groups of 8, split by member on 8 devices, and whole on each of 7."""
    one, many = learned_on_one_device, learn(parallel.make_mesh(*sizes))
    np.testing.assert_allclose(many.params["values"], one.params["values"], rtol=1e-4, atol=1e-6)
    assert np.abs(one.params["values"] - 0.2).max() > 0.01


def test_examples_that_do_not_split_are_refused():
    with pytest.raises(ValueError, match="expected a multiple of the 8 devices, got 12"):
        learn(parallel.make_mesh(), objective=SelfConsistency(), batch_size=12)


@pytest.mark.slow
def test_every_device_calls_the_denoiser_on_its_share_of_the_particles():
    """Also where every device holds the whole batch, as it does where nothing divides."""
    objective = Trajectory(times=(1.0, 0.0), num_particles=16, num_targets=16)
    table = omega.StepTable(times=objective.times, rows=omega.ByLabel(4))
    batch = Batch(jnp.zeros((8, 16, 2)), jnp.repeat(jnp.arange(8) % 4, 16).reshape(8, 16))
    flops = {}
    for count in (1, 8):
        mesh = parallel.make_mesh(count)
        loss = omega_loss(objective, table, parallel.spread(NETWORK, mesh))
        whole = parallel.replicated(mesh)
        step = jax.jit(jax.value_and_grad(loss, has_aux=True), in_shardings=whole)
        compiled = step.lower(
            table.init(KEY, jnp.arange(4)), network_params(), batch, KEY
        ).compile()
        flops[count] = compiled.cost_analysis()["flops"]
    assert flops[8] < flops[1] / 4  # the distances, which are small, are computed by all


# Samples and metrics


def draw(mesh, batch, **settings):
    c = jnp.arange(batch) % 4
    omegas = jnp.linspace(0.0, 1.0, 3 * batch).reshape(3, batch)
    times = schedules.uniform_times(3)
    return sampling.sample(
        KEY,
        NETWORK,
        network_params(),
        c,
        guidance=omegas,
        shape=(2,),
        times=times,
        mesh=mesh,
        return_trajectory=True,
        **settings,
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("sizes", "batch", "settings"),
    [((2, 4), 13, {"churn": 1.0}), ((8, 1), 16, {"solver": "heun"})],
)
def test_samples_do_not_depend_on_the_devices(sizes, batch, settings):
    alone, shared = (
        draw(None, batch, **settings),
        draw(parallel.make_mesh(*sizes), batch, **settings),
    )
    np.testing.assert_array_equal(shared.trajectory[0], alone.trajectory[0])
    np.testing.assert_allclose(shared.trajectory, alone.trajectory, rtol=1e-4, atol=1e-5)
    assert parts(shared.x0)[0] == (8 if batch == 16 else 1)


def generated(mesh, per_class):
    generator = Generator(
        denoiser=NETWORK,
        params=network_params(),
        shape=(2,),
        conditions=np.arange(4, dtype=np.int32),
        times=schedules.uniform_times(4),
        churn=1.0,
        mesh=mesh,
    )
    return generator(guidance.constant(0.5), per_class, seed=5)


@pytest.mark.slow
def test_metrics_of_shared_samples_equal_those_of_one_device():
    x = np.random.default_rng(2).normal(size=(40, 2)).astype(np.float32)
    distance = ClassEnergyDistance(labelled(x, np.arange(40, dtype=np.int32) % 4), 4)
    alone, shared = generated(None, 24), generated(parallel.make_mesh(4, 2), 24)
    assert parts(shared) == (8, (4, 3, 2))
    np.testing.assert_allclose(distance(shared), distance(alone), rtol=1e-4)
    ours, theirs = (moments(np.asarray(samples).reshape(-1, 2)) for samples in (shared, alone))
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.covariance, theirs.covariance, rtol=1e-4, atol=1e-5)
