"""Inception-v3 without PyTorch: against loops, and on files written by hand.

`experiments.benchmarks.checks.inception_agreement` compares the whole network with PyTorch's ports.
"""

import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from torch_files import torch_bytes

from lgd.machinery.storage import leaf_name, save_params
from lgd.metrics import inception
from lgd.metrics.features import extract
from lgd.metrics.inception import blocks, weights
from lgd.metrics.inception.network import in_batches
from lgd.metrics.inception.preprocess import SIZE, prepared, resize

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Weights


def random_tensors(seed=0):
    """By path; activations stay of one size through the network."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name, shape = path[-1].key, leaf.shape
        if name == "kernel":
            values = rng.standard_normal(shape, np.float32) * (2 / np.prod(shape[:-1])) ** 0.5
        elif name in ("scale", "var"):
            values = 0.5 + rng.random(shape, np.float32)
        else:
            values = 0.1 * rng.standard_normal(shape, np.float32)
        return values.astype(np.float32)

    return jax.tree.map_with_path(draw, inception.template())


@pytest.fixture(scope="module")
def params():
    return random_tensors()


@pytest.fixture(scope="module")
def saved(params, tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_params(file, params)
    return file, hashlib.sha256(file.read_bytes()).hexdigest()


def test_parameters_are_counted_as_published():
    """torchvision's Inception-v3 without its auxiliary head has 23,834,568, 34,432 moments apart.

    Here are 8 classes more, of 2048 weights and a bias each.
    """
    leaves = jax.tree.leaves_with_path(inception.template())
    moments = sum(leaf.size for path, leaf in leaves if path[-1].key in ("mean", "var"))
    assert moments == 34_432
    assert sum(leaf.size for _, leaf in leaves) - moments == 23_834_568 + 8 * 2049


def test_weights_are_read_back(params, saved):
    file, sha256 = saved
    jax.tree.map(np.testing.assert_array_equal, inception.load(file, sha256=sha256), params)


@pytest.fixture
def first_layer(params, monkeypatch):
    """As if it were the whole network."""

    def only(tree):
        return {"params": {"Conv2d_1a_3x3": jax.tree.map(np.copy, tree["params"]["Conv2d_1a_3x3"])}}

    like = jax.eval_shape(lambda: only(jax.tree.map(np.asarray, params)))
    monkeypatch.setattr(weights, "template", lambda: like)
    return only(params)


def test_weights_of_another_hash_are_refused(first_layer, tmp_path):
    file = tmp_path / "inception.safetensors"
    save_params(file, first_layer)
    with pytest.raises(ValueError, match=f"{file}: expected a file of sha256 {'0' * 64}, got"):
        inception.load(file, sha256="0" * 64)


def without_a_tensor(layer):
    del layer["conv"]


def of_another_shape(layer):
    layer["bn"]["mean"] = np.zeros(3, np.float32)


def with_a_nan(layer):
    layer["bn"]["mean"][7] = np.nan


def with_more(layer):
    layer["counter"] = np.zeros(1, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_tensor, "expected a tensor 'params/Conv2d_1a_3x3/conv/kernel'"),
        (of_another_shape, r"bn/mean: expected float32 \(32,\), got float32 \(3,\)"),
        (with_a_nan, "bn/mean: expected finite values"),
        (with_more, "expected no further tensors, .*counter"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(first_layer, tmp_path, change, message):
    file = tmp_path / "inception.safetensors"
    save_params(file, first_layer)
    inception.load(file, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    change(first_layer["params"]["Conv2d_1a_3x3"])
    leaves = jax.tree.leaves_with_path(first_layer)
    save_file({leaf_name(key): leaf for key, leaf in leaves}, file)  # which has no objections
    with pytest.raises(ValueError, match=message):
        inception.load(file, sha256=hashlib.sha256(file.read_bytes()).hexdigest())


# The blocks


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("pool", "reduce", "stride"),
    [
        (blocks.average_pool, np.mean, 1),
        (blocks.max_pool, np.max, 1),
        (blocks.halving_pool, np.max, 2),
    ],
)
def test_pools_take_the_pixels_that_exist(pool, reduce, stride):
    x = normal((2, 5, 7, 3))
    first = 0 if stride == 1 else 1
    centres = [range(first, length - first, stride) for length in (5, 7)]
    expected = [
        [
            reduce(x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2], axis=(1, 2))
            for j in centres[1]
        ]
        for i in centres[0]
    ]
    np.testing.assert_allclose(
        pool(jnp.asarray(x)), np.moveaxis(np.array(expected), 2, 0), rtol=1e-6
    )


def test_a_convolution_is_normalised_by_stored_moments():
    """Against loops in float64, for the kernels, strides and paddings of the network."""
    x = jnp.asarray(normal((1, 7, 6, 2)))
    for kernel, stride, padding in (((3, 3), 2, "VALID"), ((1, 7), 1, "SAME"), ((5, 5), 1, "SAME")):
        module = blocks.ConvNorm(4, kernel, stride, padding)
        drawn = jax.tree.map(
            lambda leaf: 0.5 + np.random.default_rng(leaf.size).random(leaf.shape, np.float32),
            jax.eval_shape(module.init, jax.random.key(0), x),
        )
        inner = {**drawn["params"]["conv"], **drawn["params"]["bn"]}
        rows, columns = (n // 2 if padding == "SAME" else 0 for n in kernel)
        padded = np.pad(
            np.asarray(x, np.float64), ((0, 0), (rows, rows), (columns, columns), (0, 0))
        )
        height, width = ((padded.shape[i + 1] - kernel[i]) // stride + 1 for i in (0, 1))
        expected = np.zeros((1, height, width, 4))
        for i, j in np.ndindex(height, width):
            window = padded[:, i * stride :, j * stride :][:, : kernel[0], : kernel[1]]
            expected[:, i, j] = np.einsum("bhwc,hwcf->bf", window, inner["kernel"])
        expected = (expected - inner["mean"]) / np.sqrt(inner["var"] + 1e-3)
        expected = np.maximum(expected * inner["scale"] + inner["bias"], 0.0)
        np.testing.assert_allclose(jax.jit(module.apply)(drawn, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", ["average", "max"])
def test_the_last_blocks_differ_in_their_pool(pool):
    """The pool branch comes last; with a unit kernel it is the pool itself, normalised."""
    x = jnp.asarray(np.abs(normal((1, 4, 4, 192))))
    module = blocks.InceptionE(pool)
    drawn = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32),
        jax.eval_shape(module.init, jax.random.key(0), x),
    )
    branch = drawn["params"]["branch_pool"]
    branch["conv"]["kernel"] = np.eye(192, dtype=np.float32)[None, None]
    branch["bn"] = {**branch["bn"], "scale": np.ones(192, np.float32)}
    branch["bn"]["var"] = np.full(192, 1.0 - 1e-3, np.float32)
    pooled = blocks.average_pool(x) if pool == "average" else blocks.max_pool(x)
    found = jax.jit(module.apply)(drawn, x)
    assert found.shape == (1, 4, 4, 2048)
    np.testing.assert_allclose(found[..., -192:], pooled, rtol=1e-6)
    np.testing.assert_array_equal(found[..., :-192], 0.0)


# Images


resized = jax.jit(resize, static_argnums=1)
scaled = jax.jit(prepared, static_argnames="quantize")


def resized_by_loops(image, size):
    """TensorFlow 1's: output (i, j) lies at (i h / size, j w / size) of the input."""
    (height, width, _), out = image.shape, np.zeros((size, size, image.shape[2]))
    for i, j in np.ndindex(size, size):
        y, x = i * height / size, j * width / size
        top, left = int(y), int(x)
        low, right = min(top + 1, height - 1), min(left + 1, width - 1)
        upper = (1 - (x - left)) * image[top, left] + (x - left) * image[top, right]
        lower = (1 - (x - left)) * image[low, left] + (x - left) * image[low, right]
        out[i, j] = (1 - (y - top)) * upper + (y - top) * lower
    return out


@pytest.mark.parametrize("shape", [(4, 4), (3, 11), (13, 7), (40, 2), (1, 1)])
def test_resize_is_the_definition(shape):
    images = normal((2, *shape, 3))
    found = resized(jnp.asarray(images), 7)
    expected = np.stack([resized_by_loops(each, 7) for each in images])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_resize_of_known_cases():
    """Doubling repeats the last pixel, where centred pixels would mix at both ends."""
    row = jnp.asarray(np.resize(np.float32([0, 4, 8]), (1, 3, 3)))[..., None]
    np.testing.assert_array_equal(resized(row, 6)[0, 0, :, 0], [0, 2, 4, 6, 8, 8])
    ramp = jnp.asarray(np.resize(np.arange(8, dtype=np.float32), (1, 8, 8)))[..., None]
    np.testing.assert_array_equal(resized(ramp, 4)[0, 0, :, 0], [0, 2, 4, 6])  # no smoothing
    same = jnp.asarray(normal((1, 5, 5, 3)))
    np.testing.assert_array_equal(resized(same, 5), same)


def test_every_level_of_eight_bits_is_scaled_as_the_graph_does():
    levels = np.resize(np.arange(256, dtype=np.float32), (1, SIZE, SIZE, 1))
    images = levels / np.float32(127.5) - np.float32(1.0)
    for quantize in (True, False):
        found = scaled(jnp.asarray(images), quantize=quantize)
        expected = np.repeat((levels - 128) / 128, 3, axis=-1)
        np.testing.assert_allclose(found, expected, atol=0.0 if quantize else 1e-6)


def test_values_go_to_the_nearest_level_inside():
    between = jnp.asarray([-1.4, -1.0 + 0.49 / 127.5, -1.0 + 0.51 / 127.5, 0.0, 1.3])
    found = scaled(between.reshape(-1, 1, 1, 1))[:, 0, 0, 0]
    np.testing.assert_array_equal(found * 128 + 128, [0, 0, 1, 128, 255])


def test_images_of_other_channels_are_refused():
    with pytest.raises(
        ValueError, match=r"expected images \(b, h, w, 1\) or .*, got \(2, 8, 8, 4\)"
    ):
        prepared(jnp.zeros((2, 8, 8, 4)))


# The network


THEIRS = {  # of torch-fidelity 0.4.0, for `random_tensors()` and the first image below
    "features": [0.0065163, 0.9647257, 0.0, 0.6258727, 7.3633852, 0.2195786, 0.0, 22.4754505],
    "logits": [-8.5324917, 5.3473864, -3.1866615, -10.2095375, -0.1141503],
    "score_logits": [-8.422075, 5.5248556, -3.2681146, -10.0769825, -0.0285959],
}


@pytest.mark.slow
def test_features_and_logits(params):
    """One batch size, so that all is compiled once."""
    images = jnp.clip(normal((2, 16, 16, 1)), -1, 1)
    network = inception.feature_network(params)
    features = extract(network.apply, images, batch_size=1)
    assert features.shape == (2, 2048)
    assert np.all(features >= 0.0)
    assert np.ptp(features, axis=0).max() > 0.01
    found = inception.outputs(params, images[:1])
    np.testing.assert_array_equal(found.features, features[:1])
    np.testing.assert_array_equal(inception.score_logits(params, images[:1]), found.score_logits)
    np.testing.assert_allclose(found.features[0, 100::256], THEIRS["features"], atol=2e-4)
    for name in ("logits", "score_logits"):
        np.testing.assert_allclose(getattr(found, name)[0, ::250], THEIRS[name], atol=2e-4)
    top = params["params"]
    expected = features[:1].astype(np.float64) @ top["fc"]["kernel"]
    np.testing.assert_allclose(found.score_logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.logits, expected + top["fc_bias"], rtol=1e-4, atol=1e-4)
    others = [inception.feature_network(params, quantize=False)]
    changed = jax.tree.map(lambda leaf: leaf, params)
    changed["params"]["fc_bias"] = changed["params"]["fc_bias"] + 1
    others.append(inception.feature_network(changed))
    assert all(other.identity != network.identity for other in others)


@pytest.mark.parametrize("count", [1, 64, 65, 200])
def test_many_images_are_taken_in_turns(count):
    seen = []

    def apply(images):
        seen.append(len(images))
        sums = images.sum(axis=(1, 2, 3))[:, None]
        return inception.Outputs(sums, 2 * sums, 3 * sums)

    images = jnp.asarray(normal((count, 2, 3, 1)))
    found = in_batches(apply, images)
    np.testing.assert_allclose(found.logits[:, 0], 2 * images.sum(axis=(1, 2, 3)), rtol=1e-5)
    assert len(found.features) == count
    assert max(seen) <= 64


# The conversion


KNOWN = {  # of torchvision's Inception-v3
    "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
    "Mixed_5c.branch5x5_2.conv.weight": (64, 48, 5, 5),
    "Mixed_6a.branch3x3dbl_3.bn.bias": (96,),
    "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
    "Mixed_6e.branch7x7dbl_4.conv.weight": (192, 192, 7, 1),
    "Mixed_7a.branch7x7x3_4.bn.running_mean": (192,),
    "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
    "Mixed_7c.branch3x3dbl_3b.bn.running_var": (384,),
    "Mixed_7c.branch_pool.bn.weight": (192,),
    "fc.weight": (1008, 2048),
    "fc.bias": (1008,),
}


def torch_tensors(params):
    """In PyTorch's axes and names, with a counter of batches for each normalisation."""
    top, found = dict(params["params"]), {}
    found["fc.weight"], found["fc.bias"] = top.pop("fc")["kernel"].T, top.pop("fc_bias")

    def add(name, module):
        if "conv" not in module:
            for inner, value in module.items():
                add(f"{name}.{inner}", value)
            return
        kernel = np.einsum("hwio->oihw", module["conv"]["kernel"])
        found[f"{name}.conv.weight"] = np.ascontiguousarray(kernel)
        words = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
        found.update({f"{name}.bn.{word}": module["bn"][own] for word, own in words.items()})
        found[f"{name}.bn.num_batches_tracked"] = np.asarray(3, np.int64)

    for name, module in top.items():
        add(name, module)
    return found


@pytest.fixture(scope="module")
def published(params, tmp_path_factory):
    file = tmp_path_factory.mktemp("torch") / "published.pth"
    file.write_bytes(torch_bytes(torch_tensors(params), "stream"))
    return file, hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_published_names_and_shapes_are_converted(params, saved, published, tmp_path):
    tensors = torch_tensors(params)
    assert {name: tensors[name].shape for name in KNOWN} == KNOWN
    assert len(tensors) == 94 * 6 + 2
    file, sha256 = published
    out = tmp_path / "inception.safetensors"
    written = inception.convert(file, out, sha256=sha256)
    assert written == saved[1]
    jax.tree.map(np.testing.assert_array_equal, inception.load(out, sha256=written), params)


def test_only_the_published_file_is_converted(published, tmp_path):
    """Others by the name of their hash only; it is compared before a byte is looked at."""
    file, sha256 = published
    assert inception.PUBLISHED_SHA256.startswith("6726825d")  # as the published name says
    out = tmp_path / "inception.safetensors"
    with pytest.raises(ValueError, match=f"{inception.PUBLISHED_SHA256}, got {sha256}"):
        inception.convert(file, out)
    assert not out.exists()


def renamed(tensors):
    tensors["fc.offset"] = tensors.pop("fc.bias")


def further(tensors):
    tensors["AuxLogits.fc.bias"] = np.zeros(1, np.float32)


def turned(tensors):
    tensors["fc.weight"] = tensors["fc.weight"].T


def infinite(tensors):
    tensors["fc.bias"] = np.full(1008, np.inf, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "expected a tensor 'fc.bias', got only"),
        (further, r"expected no further tensors, got \['AuxLogits.fc.bias'\]"),
        (
            turned,
            r"fc.weight: expected float32 \(2048, 1008\) transposed, got float32 \(1008, 2048",
        ),
        (infinite, "fc.bias: expected finite values, got others"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(params, change, message):
    tensors = torch_tensors(params)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        inception.from_torch(tensors)


def test_a_file_that_lacks_tensors_is_named(tmp_path):
    file: Path = tmp_path / "small.pth"
    file.write_bytes(torch_bytes({"a.weight": normal((2, 3))}, "zip"))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"{file}: expected a tensor .*, got only .*'a.weight'"):
        inception.convert(file, tmp_path / "out", sha256=sha256)
