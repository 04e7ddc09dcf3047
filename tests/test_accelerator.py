"""The benchmark of an accelerator, on a CPU and at a tiny size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.device import accelerator, accelerator_report, planned_memory
from experiments.benchmarks.device.accelerator import TINY, measured
from experiments.benchmarks.device.device_profile import KINDS, kind_of, profile
from experiments.benchmarks.device.matrix_peak import convolution_rates, matrix_peak
from experiments.benchmarks.device.training_share import (
    TrainingStep,
    Variant,
    attention_of,
    planned_bytes,
    variants,
)
from experiments.publish import markdown
from lgd.denoisers import layers
from lgd.evaluation import Journal
from lgd.machinery.flops import matrix_flops

pytestmark = pytest.mark.usefixtures("quick_compilation")
MLP = (  # compiles faster than TINY's networks, and has no attention
    *("data.path=cifar10", "data.size=8", "denoiser.network=mlp", "denoiser.dtype=float32"),
    *("denoiser.remat=none", "denoiser.flip=False", "denoiser.width=8", "denoiser.depth=1"),
)
SCALE = dataclasses.replace(
    TINY, networks={"unet": MLP}, batches={"unet": 4}, num_steps=10
)  # steps as the ratio has them: compiled once


# FLOPs


CONVOLUTIONS = [
    ((3, 3, 6, 10), {"window_strides": (1, 1), "padding": "SAME"}),
    ((3, 2, 6, 10), {"window_strides": (2, 1), "padding": ((0, 2), (1, 3))}),
    (
        (3, 3, 6, 10),
        {"window_strides": (1, 1), "padding": ((1, 1), (2, 2)), "lhs_dilation": (2, 3)},
    ),
    ((3, 3, 6, 10), {"window_strides": (1, 1), "padding": "VALID", "rhs_dilation": (2, 2)}),
    ((3, 3, 2, 12), {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 3}),
    ((3, 3, 6, 10), {"window_strides": (1, 1), "padding": "SAME", "batch_group_count": 2}),
]


@pytest.mark.parametrize(("kernel", "settings"), CONVOLUTIONS)
def test_convolutions_and_their_gradients_count_as_xla_counts_them(kernel, settings):
    def convolved(x, kernel):
        specs = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=specs, **settings)

    def backward(x, kernel, cotangent):
        return jax.vjp(convolved, x, kernel)[1](cotangent)

    like = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 9, 8, 6), kernel)]
    like.append(jax.eval_shape(convolved, *like))
    for f, arguments in ((convolved, like[:2]), (backward, like)):
        expected = jax.jit(f).lower(*arguments).cost_analysis()["flops"]
        assert matrix_flops(f, *arguments) >= expected  # of the forward pass that is not needed
        assert matrix_flops(f, *arguments) in (expected, expected * 3 / 2)


def test_loops_count_as_often_as_they_turn_and_conditionals_as_their_dearest_branch():
    x = jnp.ones((4, 5))

    def squared(x):
        return x @ x.T @ x

    once = 2 * (2 * 4 * 4 * 5)
    assert matrix_flops(squared, x) == once

    def scanned(x):
        return jax.lax.scan(lambda x, _: (squared(x), None), x, length=7)[0]

    assert matrix_flops(jax.jit(scanned), x) == 7 * once
    assert matrix_flops(jax.vmap(scanned), jnp.ones((3, 4, 5))) == 3 * 7 * once
    chosen = lambda x: jax.lax.cond(x[0, 0] > 0, squared, lambda x: x, x)  # noqa: E731
    assert matrix_flops(chosen, x) == once
    endless = lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, squared, x)  # noqa: E731
    with pytest.raises(ValueError, match="turns are known"):
        matrix_flops(endless, x)


# Peaks and profiles


def test_the_peak_is_the_best_of_the_sizes():
    peak = matrix_peak((16, 32), rounds=2)
    assert peak["flops_per_second"].keys() == {"16", "32"}
    assert peak["best"] == max(peak["flops_per_second"].values()) > 0


@pytest.mark.slow
def test_convolutions_have_a_rate_in_both_layouts():
    rates = convolution_rates(4, 8, batch=2, rounds=1)
    assert min(rates["NHWC"], rates["NCHW"]) > 0


@pytest.mark.parametrize(
    ("instruction", "name", "kind"),
    [
        ("cudnn-conv-bw-filter.3", "jit(step)/transpose(jvp(UNet))/in/conv_general_dilated", 0),
        ("gemm_fusion_dot.1", "jit(step)/jvp(DiT)/while/body/blocks/mlp_in/dot_general", 1),
        ("fusion.2", "jit(step)/jvp(UNet)/up_0_0/attention/qkv/dot_general", 1),
        ("fusion.3", "jit(step)/jvp(UNet)/up_0_0/attention/jit(_einsum)/dot_general", 2),
        ("custom-call.1", "jit(step)/jvp(DiT)/blocks/attention/dot_product_attention_fwd", 2),
        ("loop_fusion.4", "jit(step)/jvp(UNet)/up_0_0/norm_1/mul", 3),
        ("input_reduce.1", "jit(step)/transpose(jvp(UNet))/up_0_0/conv_1/reduce_sum", 3),
        ("loop_add.1", "jit(step)/add", 4),
        ("transpose.1", "jit(step)/jvp(UNet)/in/transpose", 5),
        ("sm90_xmma_fprop_implicit_gemm", "", 0),
        ("nvjet_hsh_128x128", "", 1),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop", "", 2),
        ("wrapped_copy.3", "", 5),
        ("MemcpyD2D", "", 5),
        ("loop_broadcast_fusion", "", 3),
        ("wrapped_convert.1", "", 3),
    ],
)
def test_kinds_of_work(instruction, name, kind):
    assert kind_of(instruction, name) == KINDS[kind]


def test_a_profile_says_what_took_the_time():
    a = jax.random.normal(jax.random.key(0), (1500, 1500))
    compiled = jax.jit(lambda a: jnp.tanh(a @ a)).lower(a).compile()
    found = profile(lambda: compiled(a), compiled.as_text(), rounds=2)
    assert found["kinds"].keys() == set(KINDS)
    np.testing.assert_allclose(sum(found["kinds"].values()), 1.0)
    assert found["kinds"]["products"] > 0.5
    name, share = found["operations"][0]
    assert name.endswith("dot_general")
    assert share > 0.5


# Training steps


@pytest.mark.slow
def test_variants_train_alike():
    """Those that change nothing but where numbers lie."""
    network = SCALE.network("unet")
    names = ("batch 4", "state not donated", "layouts of the compiler")
    steps = {name: TrainingStep(network, variants(4)[name]) for name in names}
    losses = {name: float(step()["loss"]) for name, step in steps.items()}
    np.testing.assert_allclose(list(losses.values()), losses["batch 4"], rtol=1e-3)
    planned = {name: planned_bytes(step.compiled) for name, step in steps.items()}
    state = 4 * sum(leaf.size for leaf in jax.tree.leaves(network.params()))
    assert planned["state not donated"] > planned["batch 4"] + 3 * state


def test_attention_of_xla_is_asked_for_only_while_a_step_is_made(monkeypatch):
    monkeypatch.setattr(layers, "cudnn_supports", lambda *_: "")
    found = {}
    for backend in ("xla", "cudnn"):
        with attention_of(backend):
            found[backend] = layers.cudnn_supports((), "")
    assert found == {"xla": False, "cudnn": ""}
    assert layers.cudnn_supports((), "") == ""


def test_flops_of_a_call_are_those_of_its_layers():
    """Of two blocks of width 16 on 4 tokens of 48 numbers; embeddings count once an image."""
    width, tokens, depth = 16, 4, 2
    block = tokens * (12 * width**2 + 2 * tokens * width) + 6 * width**2
    embeddings = 64 * width + width**2 + 2 * width**2
    expected = 2 * (depth * block + embeddings + 2 * tokens * 48 * width)
    assert TINY.network("dit").call_flops == expected


def test_the_full_size_is_that_of_the_paper():
    params = accelerator.FULL.network("unet").param_shapes
    assert 250e6 < sum(leaf.size for leaf in jax.tree.leaves(params)) < 260e6
    assert accelerator.FULL.network("dit").denoiser().module.width >= 1024


# Planned for a device that is not there


@pytest.mark.slow
def test_programs_are_planned_from_shapes():
    """The bytes of a step are those of one that runs; nothing is counted that a CPU has not."""
    network, works = SCALE.network("unet"), planned_memory.works(SCALE, jax.devices()[0])
    assert len(works) == 6 + len(variants(4))
    step = works["unet: batch 4"]()
    assert step["planned_bytes"] == planned_bytes(TrainingStep(network, Variant(4)).compiled)
    gradient = works["trajectory: recomputes nothing, attention by xla"]()
    assert gradient["planned_bytes"] > 0
    assert {gradient[kind] for kind in ("attention", "convolutions", "products")} == {0}
    rows = [{"name": "a", **gradient, "planned_bytes": 12_345_678_901}]
    text = markdown.table({"columns": planned_memory.COLUMNS, "rows": rows})
    assert "| a | 12.3 | 0 | 0 |" in text


def test_without_its_compiler_nothing_can_be_planned(monkeypatch):
    monkeypatch.setattr(planned_memory.importlib.metadata, "entry_points", lambda group: ())
    with pytest.raises(RuntimeError, match=r"expected the compiler.*pip install.*cuda12"):
        planned_memory.h100()


# The command


@pytest.fixture
def scale(monkeypatch):
    """All parts, and little of each."""
    monkeypatch.setattr(accelerator, "variants", lambda batch: {f"batch {batch}": Variant(batch)})
    monkeypatch.setattr(accelerator, "get_args", lambda remat: ("none",))
    ratio = {"ratio": 1.0, "low": 0.9, "high": 1.1}
    monkeypatch.setattr(accelerator.cost, "one_step", lambda case, rounds: ratio)
    return SCALE


def table(found):
    return markdown.everything({"tables": accelerator_report.tables(found)})


@pytest.mark.slow
def test_every_part_is_measured_once_and_drawn(scale, tmp_path, monkeypatch):
    found = measured(scale, Journal(tmp_path / "measured.jsonl"), ("memory",))
    assert found.keys() == {"targets", "peak", "memory"}
    found = measured(scale, Journal(tmp_path / "measured.jsonl"), accelerator.PARTS)
    assert found.keys() == {"targets", "peak", *accelerator.PARTS}
    for row in (*found["memory"].values(), *found["ratios"].values()):
        assert row["ratio"] > 0
    text = table(found)
    assert text.count("Best of the U-Net") == 1
    assert "nan" not in text
    figure = accelerator_report.figure(found)
    assert [len(ax.get_yticks()) for ax in figure.axes] == [1, 1]
    monkeypatch.setattr(accelerator, "_fitting", pytest.fail)
    again = measured(scale, Journal(tmp_path / "measured.jsonl"), ())
    assert {**again, "peak": found["peak"]} == found


@pytest.mark.parametrize(
    ("message", "said", "kept"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory allocating", "out of memory", True),
        ("INTERNAL: no such kernel\nand more", "INTERNAL: no such kernel", False),
    ],
)
def test_what_fails_stands_in_the_table(scale, tmp_path, monkeypatch, message, said, kept):
    """Too little memory is a finding and is kept; anything else is tried again."""

    def fail(*arguments, **settings):
        raise jax.errors.JaxRuntimeError(message)

    for name in ("share", "step_profile", "_unrolled", "convolution_rates"):
        monkeypatch.setattr(accelerator, name, fail)
    for name in ("one_step", "guided_sampler"):
        monkeypatch.setattr(accelerator.cost, name, fail)
    file = tmp_path / "measured.jsonl"
    found = measured(scale, Journal(file), accelerator.PARTS)
    text = table(found)
    assert text.count(said) == 1 + 1 + 3 + 1
    assert "Best" not in text
    assert file.exists() == kept
