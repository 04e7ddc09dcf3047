"""U-Net and DiT: what both promise, and what each does."""

import dataclasses
import functools
import inspect
import re
import types
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from lgd.denoisers import DiT, UNet
from lgd.denoisers.dit import DiTBlock, from_patches, sincos_positions, to_patches
from lgd.denoisers.layers import (
    ConditionEmbedding,
    Remat,
    cudnn_supports,
    fourier_features,
    rematerialised,
    softmax_attention,
)
from lgd.denoisers.unet import group_norm
from lgd.machinery import parallel
from lgd.machinery.flops import matrix_flops

pytestmark = pytest.mark.usefixtures("quick_compilation")
NETWORKS = {
    "unet": UNet(3, channels=8, multipliers=(1, 2), blocks=1, attention=(4,), heads=2),
    "dit": DiT(3, width=16, depth=2, heads=2),
}
X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 1)), jnp.float32)
LOGSNR, LABELS = jnp.array([-3.0, 0.5, 4.0]), jnp.arange(3)


SMALL = {
    "unet": UNet(3, channels=4, multipliers=(2,), blocks=1),
    "dit": NETWORKS["dit"],
}


def random_params(module, x=X, c=LABELS):
    """Of every leaf, so that nothing is zero."""
    like = jax.eval_shape(module.init, jax.random.key(0), x, jnp.zeros(len(x)), c)
    rng = np.random.default_rng(1)
    draw = {1: 0.3, 2: 0.3}  # of vectors; of kernels by their number of inputs
    return jax.tree.map(
        lambda leaf: np.float32(
            rng.normal(size=leaf.shape) * draw.get(leaf.ndim, np.prod(leaf.shape[1:-1]) ** -0.5)
        ),
        like,
    )


@dataclasses.dataclass
class Tried:
    """A network, its random parameters, and its jitted forward and backward passes."""

    module: nn.Module
    params: dict

    def __post_init__(self):
        self.apply = jax.jit(self.module.apply)
        self.gradient = jax.jit(jax.grad(self.loss))

    def loss(self, params):
        return jnp.mean(jnp.square(self.module.apply(params, X, LOGSNR, LABELS) - X))

    def __call__(self, params=None, x=X, logsnr=LOGSNR, c=LABELS):
        return np.asarray(self.apply(self.params if params is None else params, x, logsnr, c))


@pytest.fixture(params=NETWORKS, scope="module")
def tried(request):
    module = NETWORKS[request.param]
    return Tried(module, random_params(module))


# What both promise


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", SMALL)
def test_output_starts_at_zero_and_parameters_are_float32(name):
    module = SMALL[name].clone(dtype="bfloat16")
    start = jax.jit(module.init_with_output)
    out, params = start(jax.random.key(0, impl="rbg"), X, LOGSNR, LABELS)  # compiles fast
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(out, jnp.zeros(X.shape))


@pytest.mark.parametrize("varied", ["x", "logsnr", "c"])
def test_output_depends_on_all_it_is_given_and_on_the_own_example_alone(tried, varied):
    inputs = {"x": X, "logsnr": LOGSNR, "c": LABELS}
    out, changed = tried(), tried(**inputs | {varied: inputs[varied].at[0].add(1)})
    assert np.abs(out[0] - changed[0]).max() > 1e-2
    np.testing.assert_allclose(changed[1:], out[1:], rtol=1e-5, atol=1e-5)


def test_no_condition_knows_no_class(tried):
    """The label num_classes reads none of the rows that classes have."""
    null = jnp.full(3, 3, jnp.int32)  # not weak, which would compile anew
    table = ("params", "embedding", "ConditionEmbedding_0", "labels", "embedding")
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            leaf + np.float32([[1.0]] * 3 + [[0.0]]) if keys(path) == table else leaf
        ),
        tried.params,
    )
    np.testing.assert_array_equal(tried(params, c=null), tried(c=null))
    assert (tried(params) != tried()).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("name", SMALL)
def test_conditions_may_be_vectors_of_which_zero_means_none(name):
    module = SMALL[name].clone(num_classes=None)
    vectors = jnp.asarray(np.random.default_rng(2).normal(size=(3, 5)), jnp.float32).at[2].set(0.0)
    params = random_params(module, c=vectors)
    apply = jax.jit(module.apply)
    out = np.asarray(apply(params, X, LOGSNR, vectors))
    assert out.shape == X.shape
    changed = np.asarray(apply(params, X, LOGSNR, vectors.at[0].mul(2.0)))
    assert np.abs(out[0] - changed[0]).max() > 1e-3
    np.testing.assert_allclose(changed[1:], out[1:], rtol=1e-5, atol=1e-5)
    others = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 2.0 * leaf if "vectors" in keys(path) else leaf, params
    )
    moved = np.abs(apply(others, X, LOGSNR, vectors) - out).max(axis=(1, 2, 3))
    assert moved[:2].min() > 1e-3
    assert moved[2] < 1e-5


def keys(path):
    return tuple(key.key for key in path)


def test_bfloat16_is_close_to_float32_which_it_returns(tried):
    out = Tried(tried.module.clone(dtype="bfloat16"), tried.params)()
    assert out.dtype == np.float32
    error = np.abs(out - tried())
    assert 1e-6 < error.mean() < 0.02 * np.abs(tried()).mean()


@pytest.fixture(scope="module")
def dit():
    module = NETWORKS["dit"]
    return Tried(module, random_params(module))


@pytest.fixture(scope="module", params=SMALL)
def small(request, dit):
    module = SMALL[request.param]
    return dit if request.param == "dit" else Tried(module, random_params(module))


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["activations", "blocks"])
def test_remat_changes_neither_parameters_nor_gradients(small, remat):
    once, again = small, Tried(small.module.clone(remat=remat), small.params)
    assert jax.tree.structure(random_params(again.module)) == jax.tree.structure(once.params)
    expected, found = once.gradient(once.params), again.gradient(once.params)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(compare, found, expected)
    for path, leaf in jax.tree.leaves_with_path(found):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0.0, path


@pytest.mark.slow
def test_remat_keeps_less_and_recomputes_no_product_but_of_attention_or_of_blocks(small):
    """Bytes of what a backward pass is given, and FLOPs of a gradient: two products of attention
    again with "activations", all blocks with "blocks"."""
    each = [small.module.clone(remat=remat) for remat in get_args(Remat)]
    tries = [Tried(module, small.params) for module in each]
    backward = [jax.eval_shape(lambda p, f=t.loss: jax.vjp(f, p)[1], t.params) for t in tries]
    none, activations, blocks = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)) for kept in backward
    )
    assert blocks < activations < none
    once = matrix_flops(small.loss, small.params)
    none, activations, blocks = (matrix_flops(jax.grad(t.loss), t.params) for t in tries)
    assert 2.8 * once < none < 3.0 * once
    assert none <= activations < none + 0.2 * once
    assert none + 0.4 * once < blocks <= none + once


def test_an_unknown_remat_is_named():
    with pytest.raises(ValueError, match=r"remat in .*blocks.*got True"):
        inspect.unwrap(rematerialised)(DiTBlock, True)


@pytest.mark.slow
def test_gradients_with_large_kernels_split_over_devices_are_those_of_one(dit, monkeypatch):
    """Not along layers: a step of the scan needs the whole of one."""
    monkeypatch.setattr(parallel, "LARGE", 256)
    monkeypatch.setattr(parallel, "SHORT", 1)
    layout = parallel.param_sharding(dit.params, parallel.make_mesh(4, 2))
    gradient = jax.jit(jax.grad(dit.loss), out_shardings=layout)
    found = gradient(parallel.place(dit.params, layout))
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(compare, jax.tree.map(np.array, found), dit.gradient(dit.params))
    for path, leaf in jax.tree.leaves_with_path(found):
        axes = [axis for axis, name in enumerate(leaf.sharding.spec) if name == "fsdp"]
        assert len(axes) == (1 if leaf.size >= 256 else 0)
        assert not ("blocks" in keys(path) and 0 in axes)


# Attention on GPUs, for which these tests lower and do not compile


def devices_of(*capabilities):
    return lambda: [types.SimpleNamespace(compute_capability=name) for name in capabilities]


@pytest.fixture
def cudnn(monkeypatch):
    """What jax finds beside an H100."""
    monkeypatch.setattr(jax, "devices", devices_of("9.0"))
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)


@pytest.mark.parametrize(
    ("shape", "dtype", "supported"),
    [
        ((2, 16, 4, 64), "bfloat16", True),
        ((2, 16, 4, 64), "float16", True),
        ((2, 16, 4, 64), "float32", False),
        ((2, 15, 4, 64), "bfloat16", False),
        ((2, 1, 4, 64), "bfloat16", False),
        ((2, 16, 1, 128), "bfloat16", True),
        ((2, 16, 1, 136), "bfloat16", False),
        ((2, 16, 4, 60), "bfloat16", False),
    ],
)
def test_sizes_and_types_that_cudnn_attends_to(cudnn, shape, dtype, supported):
    assert cudnn_supports(shape, jnp.dtype(dtype)) == supported


@pytest.mark.parametrize(
    ("capabilities", "supported"),
    [
        (["8.0", "9.0"], True),
        (["12.0"], True),
        (["8.0", "7.5"], False),
        (["gfx942"], False),
    ],
)
def test_all_devices_need_cudnn(cudnn, monkeypatch, capabilities, supported):
    monkeypatch.setattr(jax, "devices", devices_of(*capabilities))
    assert cudnn_supports((2, 16, 4, 64), jnp.dtype("bfloat16")) == supported


@pytest.mark.parametrize("fault", ["devices", "cudnn"])
def test_without_gpu_or_without_cudnn_there_is_none(cudnn, monkeypatch, fault):
    if fault == "devices":
        monkeypatch.setattr(jax, "devices", jax.local_devices)
    else:

        def absent():
            raise RuntimeError

        monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", absent)
    assert not cudnn_supports((2, 16, 4, 64), jnp.dtype("bfloat16"))


def test_errors_other_than_of_support_are_seen(cudnn, monkeypatch):
    def broken():
        raise ValueError("broken")

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", broken)
    with pytest.raises(ValueError, match="broken"):
        cudnn_supports((2, 16, 4, 64), jnp.dtype("bfloat16"))


def kernels(f, *args, platform="cuda"):
    """The numbers of cuDNN's forward and backward kernels in what f is lowered to."""
    traced = jax.jit(lambda *args: f(*args)).trace(*args)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    names = re.findall(r"__cudnn\$fmha\w+", text)
    backward = [name for name in names if name.endswith("Backward")]
    return len(names) - len(backward), len(backward)


@pytest.mark.slow
@pytest.mark.parametrize("remat", get_args(Remat))
def test_bfloat16_on_cuda_attends_in_cudnn(tried, cudnn, remat):
    """A kernel for each block of the U-Net, or for the scan; recomputed with remat."""
    half = Tried(tried.module.clone(dtype="bfloat16", remat=remat), tried.params)
    count = 1 if isinstance(tried.module, DiT) else 5
    assert kernels(half.loss, half.params) == (count, 0)
    forward = count if remat == "none" else 2 * count
    assert kernels(jax.grad(half.loss), half.params) == (forward, count)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_vmapped_attention_is_one_kernel(cudnn, axis):
    """Along any axis; the rule of the kernel itself takes the first alone."""
    q = jnp.zeros((3, 2, 16, 4, 8), jnp.bfloat16).swapaxes(0, axis)
    vmapped = jax.vmap(softmax_attention, in_axes=axis, out_axes=axis)

    def loss(q):
        return jnp.sum(vmapped(q, q, q), dtype=jnp.float32)

    assert kernels(jax.grad(loss), q) == (1, 1)


@pytest.mark.parametrize(
    ("platform", "dtype"),
    [("cuda", "float32"), ("cpu", "bfloat16"), ("rocm", "bfloat16"), ("tpu", "bfloat16")],
)
def test_float32_and_other_platforms_attend_in_xla(dit, cudnn, platform, dtype):
    other = Tried(dit.module.clone(dtype=dtype), dit.params)
    assert kernels(jax.grad(other.loss), other.params, platform=platform) == (0, 0)


def test_on_a_cpu_beside_gpus_attention_is_the_same(request):
    normal = np.random.default_rng(3).normal(size=(3, 2, 6, 2, 8))
    q, k, v = jnp.asarray(normal, jnp.bfloat16)

    def loss(q):
        return jnp.sum(jnp.square(softmax_attention(q, k, v).astype(jnp.float32)))

    expected = jax.jit(jax.value_and_grad(loss))(q)
    request.getfixturevalue("cudnn")
    assert "dot_product_attention_fwd" in str(jax.make_jaxpr(lambda q: loss(q))(q))
    found = jax.jit(lambda q: jax.value_and_grad(loss)(q))(q)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# Each


class UnrolledDiT(DiT):
    """With a Python loop over its blocks."""

    def _blocks(self):
        return Loop(self.depth, self.heads, name="blocks")


class Loop(nn.Module):
    depth: int
    heads: int

    @nn.compact
    def __call__(self, h, embedding):
        for i in range(self.depth):
            h, _ = DiTBlock(self.heads, name=str(i))(h, embedding)
        return h, None


def test_scanned_blocks_are_a_loop_over_blocks(dit):
    blocks = dit.params["params"]["blocks"]
    each = {str(i): jax.tree.map(lambda leaf, i=i: leaf[i], blocks) for i in range(2)}
    module = UnrolledDiT(3, width=16, depth=2, heads=2)
    found = Tried(module, {"params": dit.params["params"] | {"blocks": each}})()
    np.testing.assert_allclose(found, dit(), rtol=1e-4, atol=1e-5)


def test_dit_without_positions_does_not_know_where_patches_are(dit):
    order = np.random.default_rng(2).permutation(16)

    def permuted(x):
        return from_patches(to_patches(x, 2)[:, order], 2, (4, 4))

    nowhere = {"params": dit.params["params"] | {"positions": jnp.zeros((16, 16))}}
    out, moved = dit(nowhere), dit(nowhere, x=permuted(X))
    np.testing.assert_allclose(moved, permuted(jnp.asarray(out)), rtol=1e-4, atol=1e-5)
    assert np.abs(dit(x=permuted(X)) - permuted(jnp.asarray(dit()))).max() > 1e-2


def test_patches_are_squares_and_go_back():
    x = jnp.arange(2.0 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = to_patches(x, 2)
    np.testing.assert_array_equal(patches[1, 4].reshape(2, 2, 3), x[1, 2:4, 2:4])
    np.testing.assert_array_equal(from_patches(patches, 2, (2, 3)), x)


def test_positions_of_rows_and_columns_are_rotations_of_each_other():
    """Products of two depend on their distance alone; no two places are alike."""
    p = np.asarray(sincos_positions((5, 7), 16)).reshape(5, 7, 16)
    products = np.einsum("rcw,rdw->rcd", p, p)
    for distance in range(1, 7):
        along = np.diagonal(products, distance, axis1=1, axis2=2)
        np.testing.assert_allclose(along, along[0, 0], rtol=1e-5)
    flat = p.reshape(35, 16)
    np.testing.assert_allclose(np.sum(flat**2, axis=1), 8.0, rtol=1e-5)
    assert (flat @ flat.T + 1e-3 * np.eye(35)).argmax(axis=1).tolist() == list(range(35))


def test_unet_with_mirrored_kernels_mirrors_its_output():
    """On one level: a stride of 2 sees the left and the right border differently."""
    module = UNet(3, channels=8, multipliers=(1,), blocks=1, attention=(8,), heads=2)
    params = random_params(module)
    mirrored = jax.tree.map(
        lambda leaf: leaf[:, ::-1] if leaf.ndim == 4 and leaf.shape[:2] == (3, 3) else leaf, params
    )
    network = Tried(module, params)
    out = network()
    np.testing.assert_allclose(
        network(mirrored, x=X[:, :, ::-1]), out[:, :, ::-1], rtol=1e-4, atol=1e-5
    )
    assert np.abs(network(x=X[:, :, ::-1]) - out[:, :, ::-1]).max() > 1e-2


def test_groups_of_a_norm_are_equal_and_have_4_channels_or_all():
    for channels in (1, 2, 3, 4, 6, 8, 12, 24, 96, 128, 256):
        groups = group_norm(channels, name="norm").num_groups
        assert channels % groups == 0
        assert groups == 1 or (groups <= 32 and channels // groups >= 4)
    assert group_norm(128, name="norm").num_groups == 32


def test_vectors_have_an_embedding_of_no_condition():
    module = ConditionEmbedding(None, 4)
    c = jnp.array([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.0, 0.0, -1.0]])
    params = module.init(jax.random.key(0), c)
    kernel, null = params["params"]["vectors"]["kernel"], params["params"]["null"]
    assert np.abs(null).min() > 0.0
    found = module.apply(params, c)
    expected = [null[0], 2.0 * kernel[1], kernel[0] - kernel[2]]
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-5 * np.abs(kernel).max())


def test_fourier_features_have_wavelengths_from_1_to_100():
    logsnr = jnp.array([0.0, 0.25, 1.25, 25.0, 100.25])
    sines, cosines = np.split(np.asarray(fourier_features(logsnr, 8)), 2, axis=1)
    np.testing.assert_allclose(sines[:, 0], [0, 1, 1, 0, 1], atol=1e-4)
    np.testing.assert_allclose(cosines[:, 0], [1, 0, 0, 1, 0], atol=1e-4)
    np.testing.assert_allclose(sines[[0, 3], -1], [0, 1], atol=1e-5)
    np.testing.assert_allclose(cosines[[0, 3], -1], [1, 0], atol=1e-5)
    np.testing.assert_allclose(sines[4, [0, -1]], sines[1, [0, -1]], atol=1e-4)
    np.testing.assert_allclose(sines**2 + cosines**2, 1.0, rtol=1e-5)


@pytest.fixture
def unchecked():
    """jaxtyping's own check of arguments is off, as it is outside these tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


BIG = jnp.zeros((1, 12, 8, 1))


@pytest.mark.parametrize(
    ("module", "x", "c", "message"),
    [
        (DiT(3), jnp.zeros((1, 8)), 0, "images (b, h, w, channels), got shape (1, 8)"),
        (UNet(3), jnp.zeros((1, 8, 8)), 0, "images (b, h, w, channels), got shape (1, 8, 8)"),
        (DiT(3, patch_size=8), BIG, 0, "a patch_size that divides 12 x 8, got 8"),
        (DiT(3, width=18, heads=2), BIG, 0, "a width that 4 divides, got 18"),
        (DiT(3, width=16, heads=3), BIG, 0, "heads that divide the width 16, got 3"),
        (UNet(3, multipliers=(1, 1, 1, 1)), BIG, 0, "columns that 8 divides, to be halved 3"),
        (UNet(3, multipliers=(1, 2), attention=(6, 8)), BIG, 0, "a level, [12, 6], got [8]"),
        (
            UNet(3, channels=6, multipliers=(1, 2), attention=(6,), heads=5),
            BIG,
            0,
            "heads that divide [12] channels, got 5",
        ),
        (DiT(3), BIG, 0.0, "integer labels (b,) as conditions, got float32 (1,)"),
        (DiT(None), BIG, 0, "vectors (b, e) as conditions, got int32 (1,)"),
    ],
)
def test_what_does_not_fit_is_refused(unchecked, module, x, c, message):
    with pytest.raises(ValueError, match=f"expected .*{re.escape(message)}"):
        jax.eval_shape(module.init, jax.random.key(0), x, jnp.zeros(1), jnp.asarray([c]))
