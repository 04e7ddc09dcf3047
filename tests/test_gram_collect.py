"""Collections: what is stored, interruptions, other collections, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import conditions, gram, schedules
from lgd.data import Split, pipeline
from lgd.denoisers import Directions, GaussianMixture, from_function
from lgd.gram import StatisticsError, store
from lgd.gram.layout import unpack
from lgd.guidance import PAIR_FEATURES
from lgd.machinery import parallel
from lgd.machinery.failures import NonFiniteError
from lgd.objectives import TimeLaw, UniformTimes
from lgd.types import Batch
from tests.gram_cases import (
    DENOISER,
    FLOW,
    collect,
    collected,
    fresh,
    split,
    true_params,
    wide_params,
)
from tests.objective_cases import identity

pytestmark = pytest.mark.usefixtures("quick_compilation")
BATCHES = pipeline.examples(split(), 8, seed=0)  # those that `collect` makes of the split


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted collection."""
    folder = tmp_path_factory.mktemp("whole")
    collect(folder)
    return folder


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def interrupted(batches, at):
    """Batches of which the one of this step cannot be had, once."""
    left = [at]

    def batch(step):
        if step in left:
            left.remove(step)
            raise ConnectionError("no data")
        return batches(step)

    return batch


# What is stored


def test_gram_matrices_hold_the_inner_products_of_the_particles(whole):
    """Draws, calls and products made anew from the seed, in float64 after the calls."""
    statistics = gram.read(whole, progress=False)
    assert statistics.size == 32
    key, start = jax.random.fold_in(jax.random.key(0), 1), 8
    time_key, rows_key = jax.random.split(key)
    t = statistics.law.sample_t(time_key, 8)
    np.testing.assert_array_equal(statistics.t[start : start + 8], t)
    x0 = split().x[_order(64)[start : start + 8]]
    c = jnp.asarray(statistics.c[start : start + 8])
    eps = np.asarray(jax.random.normal(rows_key, (32, 3)), np.float64)
    each_t, each_x0 = np.repeat(np.asarray(t, np.float64), 4)[:, None], np.repeat(x0, 4, axis=0)
    x_t = jnp.asarray((1 - each_t) * each_x0 + each_t * eps, jnp.float32)
    member_c, member_t = conditions.repeat(c, 4), jnp.repeat(t, 4)
    call = jax.jit(lambda c: DENOISER.apply(wide_params(), x_t, t=member_t, c=c))
    cond, uncond = (np.asarray(call(label), np.float64) for label in (member_c, member_c * 0 + 2))
    blocks = [each.reshape(8, 4, 3) for each in (cond - each_x0, cond - uncond, eps)]
    rows = np.concatenate(blocks, axis=1)
    lower = unpack(statistics.gram[start : start + 8], 12)
    np.testing.assert_allclose(lower, np.tril(rows @ rows.swapaxes(1, 2)), rtol=1e-4, atol=1e-4)


def _order(size, epochs=1):
    """The examples that `collect` reads, one after another."""
    return pipeline.examples(split(size), epochs * size, seed=0).index(0)


def stretched(params, x, t, c):
    return x * (1.0 + c[:, None])


def test_an_example_takes_400_bytes_at_most_whatever_its_size(tmp_path):
    """With features, for 4 particles and one direction; and the numbers do not grow with dim."""
    sizes = {}
    for dim in (2, 500):
        denoiser = from_function(stretched, schedule=FLOW, kind="x0", null=2)
        batch = Batch(np.ones((512, dim), np.float32), np.arange(512, dtype=np.int32) % 2)
        settings = {"num_examples": 512, "batch_size": 512, "shard_examples": 512}
        folder = tmp_path / str(dim)
        collect(
            folder,
            lambda step, batch=batch: batch,
            denoiser=denoiser,
            params=(),
            data_name="ones",
            features=True,
            **settings,
        )
        sizes[dim] = sum(file.stat().st_size for file in folder.iterdir())
    assert sizes[2] / 512 <= 400
    assert abs(sizes[500] - sizes[2]) < 16  # digits of dim


@pytest.mark.slow
def test_examples_of_one_x0_have_one_source(tmp_path):
    statistics = collected(tmp_path, split(24), num_examples=48, batch_size=16, shard_examples=48)
    order = _order(24, epochs=2)
    same_source = statistics.source[:, None] == statistics.source[None]
    np.testing.assert_array_equal(same_source, order[:, None] == order[None])
    np.testing.assert_array_equal(statistics.c, split(24).c[order])


def test_features_are_those_of_every_particle(tmp_path):
    """The log size of cond - uncond is that of Delta's diagonal entries."""
    statistics = collected(tmp_path, features=True)
    lower = unpack(statistics.gram, 12)
    squares = np.diagonal(lower, axis1=1, axis2=2)[:, 4:8]
    column = PAIR_FEATURES.index("log rms of cond - uncond")
    np.testing.assert_allclose(
        statistics.features[:, :, column], 0.5 * np.log(squares / 3), atol=1e-4
    )


def unconditional(params, x, t, c):
    return DENOISER.apply(params, x, t=t, c=DENOISER.null(c))


def worse(**weaker):
    """Settings of a collection with further directions, by name: denoiser and parameters."""
    denoisers = {name: denoiser for name, (denoiser, _) in weaker.items()}
    params = {name: own for name, (_, own) in weaker.items()}
    return {"denoiser": Directions(DENOISER, denoisers), "params": (wide_params(), params)}


def test_a_weaker_denoiser_is_a_further_direction(tmp_path):
    """A weaker one that is the unconditional one gives Delta again; another gives another."""
    same = from_function(unconditional, schedule=FLOW, kind="x0", null=2)
    settings = worse(same=(same, wide_params()), blurred=(DENOISER, wide_params(2.0)))
    settings["check"] = False  # which would warn that one half is the other
    statistics = collected(tmp_path, **settings)
    assert statistics.layout.directions == ("uncond", "same", "blurred")
    lower = unpack(statistics.gram, 20)
    squares = np.diagonal(lower, axis1=1, axis2=2).reshape(-1, 5, 4)
    np.testing.assert_allclose(squares[:, 2], squares[:, 1], rtol=1e-3)
    assert (np.abs(squares[:, 3] / squares[:, 1] - 1.0) > 0.01).mean() > 0.9
    alone = collected(tmp_path / "alone")
    assert statistics.fingerprint["denoiser"] != alone.fingerprint["denoiser"]
    assert statistics.fingerprint["denoiser_params"] != alone.fingerprint["denoiser_params"]


def by_vector(params, x, t, c):
    return x + c[:, :3]


def by_dict(params, x, t, c):
    return x + (c["text"]["vector"] + c["label"][:, None])[:, :3]


def zeros_like(c):
    return jax.tree.map(jnp.zeros_like, c)


@pytest.mark.parametrize("structure", ["vector", "dict"])
def test_conditions_may_be_vectors_or_dicts(tmp_path, structure):
    function = by_vector if structure == "vector" else by_dict
    denoiser = from_function(function, schedule=FLOW, kind="x0", null=zeros_like)

    def batch(step):
        rng = np.random.default_rng(step)
        vector = rng.normal(size=(8, 5)).astype(np.float32)
        c = vector
        if structure == "dict":
            c = {"label": np.arange(8, dtype=np.int32), "text": {"vector": vector}}
        return Batch(rng.normal(size=(8, 3)).astype(np.float32), c)

    statistics = collected(tmp_path, batch, denoiser=denoiser, params=(), data_name="draws")
    expected = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(batch(i).c for i in range(4)))
    jax.tree.map(np.testing.assert_array_equal, statistics.c, expected)


@pytest.mark.parametrize("members", ["condition", "mixed"])
def test_groups_of_different_examples(tmp_path, members):
    """Rows of x0 about their mean come first; classes are one a group, or one a member."""
    data = split()
    statistics = collected(tmp_path, members=members)
    squared = unpack(statistics.gram, 16)[:, :4, :4]
    centred = squared + np.swapaxes(np.tril(squared, -1), 1, 2)
    np.testing.assert_allclose(centred.sum(axis=2), 0.0, atol=1e-4)
    assert (np.diagonal(centred, axis1=1, axis2=2) > 1e-6).all()
    if members == "condition":
        assert statistics.c.shape == (32,)
        assert set(np.unique(statistics.c)) == {0, 1}
    else:
        order = _order(64, epochs=2)
        np.testing.assert_array_equal(statistics.c, data.c[order].reshape(32, 4))
        x0 = data.x[order].reshape(32, 4, 3).astype(np.float64)
        x0 -= x0.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(centred, x0 @ x0.swapaxes(1, 2), atol=1e-5)


@pytest.mark.parametrize("law", [TimeLaw(s_min=0.2), UniformTimes(t_min=0.4, t_max=0.5)])
def test_times_follow_the_law(tmp_path, law):
    statistics = collected(tmp_path, law=law)
    assert statistics.law == law
    assert (np.asarray(law.density(jnp.asarray(statistics.t))) > 0.0).all()


# Interruptions


@pytest.fixture(scope="module")
def whole_by_name(tmp_path_factory):
    """The same examples, from a function."""
    folder = tmp_path_factory.mktemp("by_name")
    collect(folder, BATCHES, data_name="draws")
    return folder


def test_a_split_is_read_as_its_batches_are(whole, whole_by_name):
    for shard in ("shard-00000.safetensors", "shard-00001.safetensors"):
        assert (whole / shard).read_bytes() == (whole_by_name / shard).read_bytes()


@pytest.mark.parametrize("step", [0, 1, 3])
def test_an_interrupted_collection_ends_like_an_uninterrupted_one(tmp_path, whole_by_name, step):
    """Byte for byte, whichever batch could not be had, and whatever a crash left lying."""
    batches = interrupted(BATCHES, step)
    with pytest.raises(ConnectionError):
        collect(tmp_path, batches, data_name="draws")
    done = len(store.read_manifest(tmp_path).shards) if step else 0
    assert done == step // 2  # two batches make a shard
    (tmp_path / "manifest.json.partial").write_bytes(b"{")
    (tmp_path / f"shard-{done:05d}.safetensors.partial").write_bytes(b"half a shard")
    if step:
        (tmp_path / f"shard-{done:05d}.safetensors").write_bytes(b"one that no manifest names")
    collect(tmp_path, batches, data_name="draws")
    assert contents(tmp_path) == contents(whole_by_name)


def test_a_finished_collection_is_left_alone(whole):
    before = contents(whole)
    collect(whole)
    assert contents(whole) == before


def test_what_a_crash_before_the_first_manifest_left_is_no_obstacle(tmp_path):
    (tmp_path / "manifest.json.partial").write_bytes(b"{")
    assert collected(tmp_path).size == 32


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StatisticsError, match=r"expected an empty folder, got one with .*notes"):
        collect(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StatisticsError, match="expected a folder to write to"):
        collect(tmp_path / "file")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"params": wide_params(0.5)}, "denoiser_params"),
        ({"denoiser": GaussianMixture((0, 1, 1), FLOW)}, "denoiser"),
        ({"denoiser": GaussianMixture((0, 0, 1), schedules.cosine())}, "schedule"),
        ({"data": split(seed=1)}, "data"),
        ({"seed": 1}, "seed"),
        ({"num_particles": 3}, "num_particles"),
        ({"law": TimeLaw()}, "law"),
        ({"law": UniformTimes(t_min=0.02)}, "law"),
        ({"features": True}, "has_features"),
        (worse(worse=(DENOISER, wide_params(2.0))), "directions"),
        (worse(worse=(DENOISER, wide_params(2.0))), "denoiser"),
        ({"members": "mixed"}, "members"),
        ({"batch_size": 16}, "batch_size"),
        ({"num_examples": 48}, "num_examples"),
        ({"shard_examples": 8}, "shard_examples"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_collection_in_the_same_folder_is_refused(whole, settings, field):
    before = contents(whole)
    with pytest.raises(StatisticsError, match=rf"holds another collection:(.|\n)*  {field}: "):
        collect(whole, **settings)
    assert contents(whole) == before


def test_a_damaged_shard_is_found_before_a_collection_goes_on(tmp_path):
    with pytest.raises(ConnectionError):
        collect(tmp_path, interrupted(BATCHES, 2), data_name="draws")
    shard = tmp_path / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StatisticsError, match=r"shard-00000\.safetensors: expected sha256"):
        collect(tmp_path, BATCHES, data_name="draws")


@pytest.mark.parametrize("done", [0, 2])
def test_every_batch_is_announced(tmp_path, done):
    """With its number, also behind an interruption; there are no parameters to tell of."""
    if done:
        with pytest.raises(ConnectionError):
            collect(tmp_path, interrupted(BATCHES, done), data_name="draws")
    seen = []
    collect(tmp_path, BATCHES, data_name="draws", on_step=lambda *told: seen.append(told))
    assert seen == [(step, ()) for step in range(done + 1, 5)]


# Devices


@pytest.mark.parametrize("sizes", [(8, 1), (2, 4)])
def test_8_devices_collect_what_1_does(tmp_path, whole, sizes):
    one = gram.read(whole, progress=False)
    statistics = collected(tmp_path, mesh=parallel.make_mesh(*sizes))
    np.testing.assert_allclose(statistics.gram, one.gram, rtol=1e-4, atol=1e-4)
    for name in ("t", "c", "source"):
        np.testing.assert_array_equal(getattr(statistics, name), getattr(one, name))
    assert statistics.fingerprint == one.fingerprint


# Refusals


def failing(params, x, t, c):
    return jnp.where(t[:, None] > 0.5, jnp.nan, x)


def test_predictions_that_are_not_finite_are_refused_with_their_times(tmp_path):
    """A denoiser that fails from t = 0.5 on; the shard before is kept."""
    denoiser = from_function(failing, schedule=FLOW, kind="x0", null=2)
    with pytest.raises(NonFiniteError, match=r"got others at \d+ of 16 examples, t from 0\.[5-9]"):
        collect(tmp_path, denoiser=denoiser, params=(), check=False)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_examples": 36}, "num_examples: expected a multiple of batch_size = 8, got 36"),
        ({"shard_examples": 12}, "shard_examples: expected a multiple of batch_size = 8, got 12"),
        ({"num_particles": 0}, "expected num_particles, dim >= 1, got"),
        ({"data": fresh(8)}, "data_name: expected a name of the data"),
        ({"data": fresh(6), "data_name": "draws"}, r"data: expected x0 with leading axes \(8,\)"),
        (
            {"data": fresh(8), "data_name": "draws", "members": "condition"},
            r"data: expected x0 with leading axes \(8, 4\), got \(8, 3\)",
        ),
        (
            {"data": lambda step: fresh(8)(step)._replace(c=np.zeros(4)), "data_name": "draws"},
            r"data: expected c with leading axes \(8,\), got",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, settings, message):
    with pytest.raises(StatisticsError, match=message):
        collect(tmp_path, **settings)


STILL = from_function(by_vector, schedule=FLOW, kind="x0", null=zeros_like)


def groups(c):
    """Batches of 8 groups of 4 examples with these conditions."""
    return lambda step: Batch(np.ones((8, 4, 3), np.float32), c)


def test_groups_of_one_condition_keep_it_once(tmp_path):
    """Of vectors: each member's has no axis of its own on disk."""
    vector = np.random.default_rng(0).normal(size=(8, 1, 5)).astype(np.float32)
    settings = {"denoiser": STILL, "params": (), "data_name": "ones", "members": "condition"}
    statistics = collected(tmp_path, groups(np.repeat(vector, 4, axis=1)), **settings)
    np.testing.assert_array_equal(statistics.c, np.tile(vector[:, 0], (4, 1)))


@pytest.mark.parametrize("kind", ["function", "split"])
def test_groups_of_different_conditions_are_refused(tmp_path, kind):
    """The error names the layout that keeps them."""
    vector = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
    if kind == "function":
        data = groups(vector.reshape(8, 4, 5))
    else:
        data = Split(np.ones((32, 3), np.float32), vector, np.arange(32, dtype=np.int32) % 2)
    settings = {"denoiser": STILL, "params": (), "data_name": "ones", "check": False}
    with pytest.raises(StatisticsError, match=r'c: expected one condition .* members="mixed"'):
        collect(tmp_path, data, members="condition", **settings)
    if kind == "split":
        mixed = collected(tmp_path / "mixed", data, members="mixed", **settings)
        assert mixed.c.shape == (32, 4, 5)


@pytest.mark.slow
def test_examples_without_strata_are_one_group(tmp_path):
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    data = Split(x, np.zeros(32, np.int32))
    assert (collected(tmp_path, data, members="condition").c == 0).all()


@pytest.mark.parametrize("c", [(np.zeros(8), np.ones(8)), {"a/b": np.zeros(8)}, {}])
def test_conditions_that_are_no_arrays_by_name_are_refused(tmp_path, c):
    batch = Batch(np.ones((8, 3), np.float32), c)
    with pytest.raises(StatisticsError, match="c: expected an array, or a dict of arrays"):
        collect(tmp_path, lambda step: batch, data_name="ones", denoiser=STILL, params=())


def test_a_denoiser_without_a_name_is_known_by_its_parameters(tmp_path):
    denoiser = from_function(lambda params, x, t, c: params * x, schedule=FLOW, kind="x0", null=2)
    settings = {"denoiser": denoiser, "check": False}
    collect(tmp_path, params=np.ones(()), **settings)
    collect(tmp_path, params=np.ones(()), **settings)
    with pytest.raises(StatisticsError, match="denoiser_params: expected"):
        collect(tmp_path, params=np.zeros(()), **settings)


def test_a_model_that_is_read_wrongly_is_noticed(tmp_path):
    """The check of `lgd.check`, before anything is written."""

    def backwards(params, x, t, c):
        return DENOISER.apply(params, x, t=1.0 - t, c=c)

    reversed_time = from_function(backwards, schedule=FLOW, kind="x0", null=2)
    with pytest.raises(UserWarning, match="as if time ran from 0, noise, to 1"):
        collect(tmp_path, denoiser=reversed_time, params=true_params())
    assert not list(tmp_path.iterdir())


def test_conditions_that_are_not_finite_are_never_written(tmp_path):
    batch = Batch(np.ones((8, 3), np.float32), np.full((8, 5), np.nan, np.float32))
    denoiser = from_function(identity, schedule=FLOW, kind="x0", null=zeros_like)
    with pytest.raises(StatisticsError, match="c: expected finite values"):
        collect(tmp_path, lambda step: batch, denoiser=denoiser, params=(), data_name="nan")


def test_models_of_eps_are_not_asked_where_alpha_is_nearly_0(tmp_path):
    denoiser = from_function(lambda p, x, t, c: x, kind="eps", schedule=schedules.cosine(), null=2)
    particles = gram.Particles(num_particles=2, law=UniformTimes(t_max=1.0))
    with pytest.raises(ValueError, match=r"first time <= 0.999, got 1:"):
        gram.collect(tmp_path, denoiser, (), split(), num_examples=8, particles=particles)
