"""What the plan costs at scale, computed and not measured: prints the tables of docs/scale-out.md.

    python -m experiments.benchmarks.scaling

FLOPs of one call are counted by JAX on the U-Net of configs/imagenet64.py, lowered without an
allocation. Bytes sent are those of the collectives in a training step and in a step of online
guidance, compiled for 8 fake devices with a small denoiser, over the bytes of its parameters.
Device-hours follow from `PEAK` and `UTILISATION`, which are assumptions.
"""

import math
import os
import re
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp

from experiments import build
from experiments import config as configs
from lgd import objectives, omega, parallel, schedules, training
from lgd.denoisers import DenoisingLoss, NetworkDenoiser, ResidualMLP
from lgd.learn import omega_loss
from lgd.types import Batch

PEAK = 989e12  # FLOP/s, dense bfloat16, as an H100 is sold
UTILISATION = 0.4
TEXT_TO_IMAGE = 2.0 * 1e9 * 1024  # FLOPs of a call: 1e9 parameters, each used for 1,024 tokens
PAPER_CALLS = 100_000 * 256 * 4 * 2  # iterations, batch, particles, cond and uncond
OUR_CALLS = 131_072 * 4 * 2  # examples of the statistics instead
COUNTS = (1, 8, 64, 512)
MESHES = ((8, 1), (2, 4), (1, 8))
_COLLECTIVE = re.compile(
    r"= (.*?) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(r"(pred|[a-z]+(\d+))\[([\d,]*)\]")


def call_flops() -> float:
    """Of one call of the U-Net of ImageNet-64, for one image."""
    config = configs.load("configs/imagenet64.py", ["fake_data=True"])
    denoiser = build.network_denoiser(config, 1000)
    params = jax.eval_shape(lambda: denoiser.init(jax.random.key(0), (64, 64, 3)))
    x, t = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32), jnp.full(1, 0.5)
    call = jax.jit(lambda params, x: denoiser.apply(params, x, t=t, c=jnp.zeros(1, jnp.int32)))
    analysis = call.lower(params, x).cost_analysis()
    if analysis is None:
        raise RuntimeError("expected a count of FLOPs, got none from this version of JAX")
    return float(analysis["flops"])


def collective_bytes(text: str) -> int:
    """Results of all collectives of a compiled program, on one device; a loop's body once."""
    shapes = [shape for found in _COLLECTIVE.findall(text) for shape in _SHAPE.findall(found)]
    return sum(
        int(bits or 8) // 8 * math.prod(int(n) for n in sizes.split(",") if n)
        for _, bits, sizes in shapes
    )


def sent(data: int, fsdp: int) -> tuple[float, float]:
    """Bytes of a training step and of a guidance step over those of the denoiser's parameters."""
    mesh = parallel.make_mesh(data, fsdp)
    flow = schedules.rectified_flow()
    denoiser = NetworkDenoiser(ResidualMLP(8, 512, 4), flow, 8)
    params = denoiser.init(jax.random.key(0), (8, 8, 1))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    optimizer, loss = training.Optimizer(num_steps=10), DenoisingLoss()
    batch = Batch(jnp.zeros((64, 8, 8, 1)), jnp.zeros(64, jnp.int32))

    def train_loss(params, frozen, batch, key):  # type: ignore[no-untyped-def]
        return loss(key, denoiser, params, batch.x0, batch.c), {}

    objective = objectives.SelfConsistency()
    model = omega.Network(schedule=flow, num_classes=8, support=objective.support)
    guide = omega_loss(objective, model, parallel.spread(denoiser, mesh))
    bytes_of = []
    for each, trained, frozen in (
        (train_loss, params, ()),
        (guide, model.init(jax.random.key(1)), params),
    ):
        state = training.init_state(trained, optimizer)
        step: Any = training.make_step(each, optimizer, state, frozen, batch, mesh=mesh)
        text = step.lower(state, frozen, batch, jax.random.key(0)).compile().as_text()
        bytes_of.append(collective_bytes(text) / size)
    return bytes_of[0], bytes_of[1]


def hours(flops: float) -> float:
    """Device-hours."""
    return flops / (PEAK * UTILISATION) / 3600.0


def main() -> None:
    """Print both tables."""
    call = call_flops()
    print(f"One call for one 64x64 image: {call / 1e9:,.0f} GFLOP.\n")
    works = {  # a training step that recomputes costs four calls
        "ImageNet-64: train the denoiser, 400,000 steps of 2,048": 4 * call * 400_000 * 2048,
        "ImageNet-64: learn guidance as the paper, 205 million calls": call * PAPER_CALLS,
        "ImageNet-64: statistics of 131,072 examples, 1 million calls": call * OUR_CALLS,
        "ImageNet-64: 50,000 samples, 100 guided steps": call * 50_000 * 200,
        "1B text-to-image: learn guidance, 205 million calls": TEXT_TO_IMAGE * PAPER_CALLS,
        "1B text-to-image: statistics, 1 million calls": TEXT_TO_IMAGE * OUR_CALLS,
    }
    heads = " | ".join(f"hours on {count}" for count in COUNTS)
    print(f"| work | EFLOP | {heads} |\n|---|---:|" + "---:|" * len(COUNTS))
    for name, flops in works.items():
        each = " | ".join(f"{hours(flops) / count:,.3g}" for count in COUNTS)
        print(f"| {name} | {flops / 1e18:,.3g} | {each} |")
    print("\n| data x fsdp | denoiser training step | online guidance step |\n|---|---:|---:|")
    for data, fsdp in MESHES:
        train, guide = sent(data, fsdp)
        print(f"| {data} x {fsdp} | {train:.3f} | {guide:.3f} |")


if __name__ == "__main__":
    main()
