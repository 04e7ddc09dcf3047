r"""What the compiler of an H100 plans, on a machine without one: memory, and which kernels it uses.

    python -m experiments.benchmarks planned_memory --workdir=runs/planned \
        --name=planned-memory-h100

Compiles the programs of the benchmark of an accelerator at full size for a described device: the
gradient of a K = 50 trajectory of the U-Net on 32 particles, and training steps of the U-Net and of
a DiT, by checkpoint policy and attention back-end. Nothing runs, so it says nothing of speed;
kernels are not tuned. Needs the compiler, ``pip install -e '.[cuda12]'``, but neither a GPU nor its
driver.
"""

import contextlib
import functools
import importlib.metadata
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any, get_args
from unittest import mock

import jax
from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from experiments.benchmarks.checks import cost
from experiments.benchmarks.device.accelerator import FULL, GROUPS, TARGETS, Scale
from experiments.benchmarks.device.training_share import (
    Backend,
    Variant,
    attention_of,
    compiled_step,
    planned_bytes,
    training_program,
    variants,
)
from experiments.console import local_path
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd.denoisers import layers
from lgd.denoisers.layers import Remat
from lgd.evaluation import Journal
from lgd.machinery.progress import bar
from lgd.types import PyTree

COLUMNS = [
    text("name", "program"),
    number("planned_bytes", "memory, GB", ".1f") | {"unit": 1e9},
    number("attention", "cuDNN's attention", "d"),
    number("convolutions", "cuDNN's convolutions", "d"),
]
# NVIDIA's data sheet, in the terms of XLA's GpuTargetConfigProto.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84929347584
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def h100() -> Any:
    """Return a device to compile for; to be called before JAX computes anything.

    Raises RuntimeError where its compiler is not installed.
    """
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    if not any("cuda" in plugin.name for plugin in plugins):
        raise RuntimeError(
            "expected the compiler of JAX's CUDA plugin, got none: pip install -e '.[cuda12]'"
        )
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # of the driver that is not there
    untuned = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {untuned}"
    described = topologies.get_topology_desc("h100", "cuda", target_config=H100, topology="1x1x1")
    return described.devices[0]


@contextlib.contextmanager
def cudnn_found() -> Iterator[None]:
    """Let programs be traced as beside an H100, whose cuDNN JAX would ask for its version."""
    with (
        mock.patch.object(layers, "_is_ampere_or_later", return_value=True),
        mock.patch.object(fused_attention_stablehlo, "check_compute_capability", return_value=True),
        mock.patch.object(fused_attention_stablehlo, "check_cudnn_version", return_value=91000),
    ):
        yield


def on(device: Any, tree: PyTree) -> PyTree:
    """Return ShapeDtypeStructs of a tree, on a device."""
    sharding = SingleDeviceSharding(device)
    shapes = jax.eval_shape(lambda tree: tree, tree)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def works(scale: Scale, device: Any) -> dict[str, Callable[[], dict[str, int]]]:
    """Return all programs, by name."""
    programs: dict[str, Callable[[], dict[str, int]]] = {}
    backends: tuple[Backend, ...] = get_args(Backend)
    for backend in backends:
        for remat in get_args(Remat):
            recomputed = "nothing" if remat == "none" else remat
            name = f"trajectory: recomputes {recomputed}, attention by {backend}"
            programs[name] = functools.partial(trajectory, scale, device, remat, backend)
    for network, batch in scale.batches.items():
        for name, variant in variants(batch).items():
            programs[f"{network}: {name}"] = functools.partial(
                training, scale, device, network, variant
            )
    return programs


def trajectory(scale: Scale, device: Any, remat: Remat, backend: Backend) -> dict[str, int]:
    """Return the plan of the gradient of K unrolled steps of the U-Net."""
    network = scale.network("unet")
    case = cost.Case(
        network.denoiser(remat), network.param_shapes, scale.shape, scale.particles, GROUPS
    )
    loss, arguments = cost.trajectory_loss(case, scale.num_steps)
    with attention_of(backend):
        lowered = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*on(device, arguments))
        return _planned(lowered.compile())


def training(scale: Scale, device: Any, network: str, variant: Variant) -> dict[str, int]:
    """Return the plan of a training step."""
    program = training_program(scale.network(network), variant)
    return _planned(compiled_step(program, variant, on(device, program.shapes)))


def _planned(compiled: Any) -> dict[str, int]:
    text = compiled.as_text()
    kernels = {"attention": "__cudnn$fmha", "convolutions": "__cudnn$conv", "products": "__cublas"}
    counts = {name: text.count(f'custom_call_target="{target}') for name, target in kernels.items()}
    return {"planned_bytes": planned_bytes(compiled), **counts}


def measure(options: Namespace) -> dict[str, Any]:
    """Return the plan of every program. Raises RuntimeError without the compiler."""
    programs = works(FULL, h100())
    options.workdir.mkdir(parents=True, exist_ok=True)
    journal, rows = Journal(options.workdir / "planned.jsonl"), []
    with bar("compile for an H100", len(programs)) as advance, cudnn_found():
        for name, compile_one in programs.items():
            rows.append({"name": name, **journal(name, compile_one)})
            advance(name)
    limit = TARGETS["bytes"] / 1e9
    note = f"An H100 has {limit:g} GB. The last two columns count kernels."
    return {"targets": TARGETS, "columns": COLUMNS, "rows": rows, "note": note}


def arguments(add: Add) -> None:
    """Add the arguments of this benchmark."""
    add("--workdir", type=local_path, required=True, help="for what has been compiled")


STUDY = Study(measure=measure, arguments=arguments, refused=(RuntimeError,))
