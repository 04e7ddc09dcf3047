"""How well an accelerator is used at the paper's scale: one command, all numbers in one file.

    python -m experiments.benchmarks accelerator --workdir=runs/accelerator --name=accelerator-h100
    python -m experiments.benchmarks accelerator --workdir=runs/tiny --tiny

The U-Net of configs/imagenet64.py (255 million parameters) and a DiT of width 1,024 and depth 24,
64x64 images, bfloat16, one device with 80 GB:

    training     steps as shares of the matrix peak measured before each, over checkpoint policies,
                 attention back-ends, donation, layouts and batch sizes; a profile of each network
    memory       the gradient of a K = 50 trajectory of the U-Net, 32 particles, by policy
    ratios       guided sampler and one-step training to their calls, a trajectory's gradient to its
                 forward pass, of the U-Net
    convolutions those of the U-Net with their gradients, by layout

What has been measured stands in the workdir, and the same command goes on from there; ``--only``
measures some parts. What does not fit into memory, or fails, is named in the table. ``--tiny``
shrinks everything, to try the command on a CPU. Allow an hour of an H100, most of it compilation.
"""

import dataclasses
import functools
import os
import traceback
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, get_args

import jax
from matplotlib.figure import Figure

from experiments import config as configs
from experiments.benchmarks.checks import cost
from experiments.benchmarks.device import accelerator_report, timing
from experiments.benchmarks.device.matrix_peak import convolution_rates, matrix_peak
from experiments.benchmarks.device.training_share import (
    Network,
    planned_bytes,
    share,
    step_profile,
    variants,
)
from experiments.console import local_path
from experiments.publish.study import Add, Study
from experiments.publish.tables import ROOT
from lgd.denoisers.layers import Remat
from lgd.evaluation import Journal
from lgd.machinery.failures import DeviceMemoryError, memory_advice
from lgd.machinery.progress import bar

PARTS = ("training", "memory", "ratios", "convolutions")
TARGETS = {"one_step": 1.05, "sampler": 1.05, "trajectory": 4.5, "dit": 0.4, "bytes": 80e9}
GROUPS = 4  # classes of a trajectory


@dataclasses.dataclass(frozen=True)
class Scale:
    """Sizes of all parts; maps: rows and channels of the convolutions."""

    networks: Mapping[str, tuple[str, ...]]  # overrides of configs/imagenet64.py
    batches: Mapping[str, int]
    shape: tuple[int, int, int]
    matrices: tuple[int, ...]
    num_steps: int
    particles: int
    ratio_batch: int
    maps: tuple[tuple[int, int], ...]
    rounds: int

    def network(self, name: str) -> Network:
        """Return one of `networks`."""
        overrides = ("fake_data=True", *self.networks[name])
        path = str(ROOT / "configs" / "imagenet64.py")
        return Network(configs.load(path, overrides), self.shape)


FULL = Scale(
    networks={
        "dit": (
            *("denoiser.network=dit", "denoiser.width=1024", "denoiser.depth=24"),
            *("denoiser.heads=16", "denoiser.dit.patch_size=4"),
        ),
        "unet": (),
    },
    batches={"dit": 64, "unet": 64},
    shape=(64, 64, 3),
    matrices=(4096, 8192, 16384),
    num_steps=50,
    particles=32,
    ratio_batch=64,
    maps=((64, 192), (32, 384), (16, 768), (8, 768)),
    rounds=7,
)
TINY = Scale(
    networks={
        "dit": (
            *("data.path=cifar10", "data.size=8", "denoiser.network=dit", "denoiser.width=16"),
            *("denoiser.depth=2", "denoiser.heads=2", "denoiser.dit.patch_size=4"),
        ),
        "unet": (
            *("data.path=cifar10", "data.size=8", "denoiser.unet.channels=8", "denoiser.heads=2"),
            *("denoiser.unet.multipliers=1", "denoiser.unet.blocks=1"),
            "denoiser.unet.attention=8",
        ),
    },
    batches={"dit": 4, "unet": 4},
    shape=(8, 8, 3),
    matrices=(64, 128),
    num_steps=5,
    particles=8,
    ratio_batch=4,
    maps=((8, 8),),
    rounds=2,
)


def measure(options: Namespace) -> dict[str, Any]:
    """Return what has been measured, with its tables."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")  # read with the first array
    jax.config.update("jax_disable_most_optimizations", options.tiny)  # compiles faster
    options.workdir.mkdir(parents=True, exist_ok=True)
    journal = Journal(options.workdir / f"measured{'-tiny' if options.tiny else ''}.jsonl")
    results = measured(TINY if options.tiny else FULL, journal, tuple(options.only.split(",")))
    return results | {"tables": accelerator_report.tables(results)}


def measured(scale: Scale, journal: Journal, parts: tuple[str, ...]) -> dict[str, Any]:
    """Return some parts, and of the others what is in the journal."""
    makers = {
        "training": _training,
        "memory": _memory,
        "ratios": _ratios,
        "convolutions": _convolutions,
    }
    works = {f"{part}: {k}": work for part in PARTS for k, work in makers[part](scale).items()}
    works = {key: work for key, work in works.items() if key in journal or key.startswith(parts)}
    results: dict[str, Any] = {
        "targets": TARGETS,
        "peak": matrix_peak(scale.matrices, scale.rounds),
    }
    with bar("accelerator", len(works)) as advance:
        for key, work in works.items():
            part, name = key.split(": ", maxsplit=1)
            results.setdefault(part, {})[name] = _tried(journal, key, work)
            advance(key)
    return results


def _tried(journal: Journal, key: str, work: Callable[[], Any]) -> Any:
    """Result of a measurement, or why there is none: a back-end that refuses may do the others."""
    try:
        return journal(key, functools.partial(_fitting, work))
    except (jax.errors.JaxRuntimeError, NotImplementedError, TypeError, ValueError) as error:
        traceback.print_exc()
        return {"failed": str(error).splitlines()[0]}


def _fitting(work: Callable[[], Any]) -> Any:
    """Result of a measurement, or that memory does not suffice."""
    try:
        with memory_advice():
            return work()
    except DeviceMemoryError:
        return {"failed": "out of memory"}
    finally:
        jax.clear_caches()


def _training(scale: Scale) -> dict[str, Callable[[], Any]]:
    works: dict[str, Callable[[], Any]] = {}
    for name, batch in scale.batches.items():
        network, each = scale.network(name), variants(batch)
        for label, variant in each.items():
            works[f"{name}: {label}"] = functools.partial(
                share, network, variant, matrices=scale.matrices, rounds=scale.rounds
            )
        first = next(iter(each.values()))
        works[f"{name}: profile"] = functools.partial(step_profile, network, first)
    return works


def _memory(scale: Scale) -> dict[str, Callable[[], Any]]:
    return {
        remat: functools.partial(_unrolled, scale, remat, scale.num_steps, scale.particles)
        for remat in get_args(Remat)
    }


def _unrolled(scale: Scale, remat: Remat, num_steps: int, particles: int) -> dict[str, Any]:
    """A trajectory's gradient: bytes that XLA plans, and time to forward."""
    case = scale.network("unet").case(particles, min(GROUPS, particles // 2), remat)
    gradient, forward, compiled = cost.trajectory_gradient(case, num_steps)
    times = timing.ratio(gradient, forward, max(2, scale.rounds // 2))
    return times | {"planned_bytes": planned_bytes(compiled)}


def _ratios(scale: Scale) -> dict[str, Callable[[], Any]]:
    def compare(name: str) -> Any:
        case = scale.network("unet").case(scale.ratio_batch, GROUPS)
        ratio = cost.one_step if name == "one_step" else cost.guided_sampler
        return ratio(case, scale.rounds)

    return {
        **{name: functools.partial(compare, name) for name in ("one_step", "sampler")},
        "trajectory": functools.partial(_unrolled, scale, "none", 10, scale.particles),
    }


def _convolutions(scale: Scale) -> dict[str, Callable[[], Any]]:
    batch = scale.batches["unet"]
    return {
        f"{rows} x {rows} x {channels}": functools.partial(
            convolution_rates, rows, channels, batch=batch, rounds=scale.rounds
        )
        for rows, channels in scale.maps
    }


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw training steps, where there are any."""
    return {"": accelerator_report.figure(results)} if "training" in results else {}


def arguments(add: Add) -> None:
    """Add the arguments of this benchmark."""
    add("--workdir", type=local_path, required=True, help="for what has been measured")
    add("--only", default=",".join(PARTS), help="parts to measure")
    add("--tiny", action="store_true", help="small networks, to try the command")


STUDY = Study(measure=measure, arguments=arguments, figures=figures)
