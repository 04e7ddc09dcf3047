"""What the plan costs at scale, computed and not measured: the tables of docs/scale-out.md.

    python -m experiments.benchmarks scaling

FLOPs of one call are those of the products and convolutions of the U-Net of
configs/imagenet64.py. Bytes sent are those of all collectives of a step compiled for 1 to 512 fake
devices with a small denoiser, over the bytes of its parameters; nothing runs. Device-hours follow
from `PEAK` and `UTILISATION`, which are assumptions.
"""

import math
import os
from argparse import Namespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array

from experiments import build
from experiments import config as configs
from experiments.benchmarks.checks import cost
from experiments.publish.markdown import number, text
from experiments.publish.study import Study
from lgd import objectives, omega, sampling, schedules, training
from lgd.denoisers import DenoisingLoss, NetworkDenoiser, ResidualMLP
from lgd.encoders import Labels
from lgd.gram.collect import batch_pass
from lgd.gram.layout import Layout
from lgd.learn import omega_loss
from lgd.machinery import parallel
from lgd.machinery.collectives import collective_bytes
from lgd.machinery.progress import bar
from lgd.objectives import Objective
from lgd.types import Batch, Params, PRNGKey

PEAK = 989e12  # FLOP/s, dense bfloat16, as an H100 is sold
UTILISATION = 0.4
TEXT_TO_IMAGE = 2.0 * 1e9 * 1024  # FLOPs of a call: 1e9 parameters, each used for 1,024 tokens
PAPER_CALLS = 100_000 * 256 * 4 * 2  # iterations, batch, particles, cond and uncond
OUR_CALLS = 131_072 * 4 * 2  # examples of the statistics instead
UNROLLED_CALLS = 200 * 1024 * 50 * 2 * 4  # cond and uncond; forward, again, and backward as two
COUNTS = (1, 8, 64, 512)
MESHES = ((1, 1), (8, 1), (64, 1), (512, 1), (1, 8), (8, 8), (64, 8))
BATCH, CLASSES, STEPS, SHAPE = 512, 8, 25, (8, 8, 1)
FLOW = schedules.rectified_flow()
DENOISER = NetworkDenoiser(ResidualMLP(CLASSES, 512, 4), FLOW, CLASSES)
TIMES = tuple(np.linspace(1.0, 0.0, STEPS + 1).tolist())
NETWORK = omega.Network(
    schedule=FLOW, encoder=Labels(CLASSES), support=objectives.SelfConsistency().support
)
TABLE = omega.StepTable(times=TIMES, rows=omega.ByLabel(CLASSES))
TRAJECTORY = objectives.Trajectory(times=TIMES, num_particles=BATCH // CLASSES, num_targets=BATCH)


def call_flops() -> float:
    """Return the FLOPs of one call of the U-Net of ImageNet-64, for one image."""
    config = configs.load("configs/imagenet64.py", ["fake_data=True"])
    denoiser = build.network_denoiser(config, 1000)
    params = jax.eval_shape(lambda: denoiser.init(jax.random.key(0), (64, 64, 3)))
    return cost.call_flops(cost.Case(denoiser, params, (64, 64, 3), batch=1, groups=1))


def sent(data: int, fsdp: int) -> dict[str, float]:
    """Return the bytes that a device gets in a compiled step over those of the parameters."""
    mesh = parallel.make_mesh(data, fsdp)
    params = jax.eval_shape(lambda: DENOISER.init(jax.random.key(0), SHAPE))
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    programs = {
        "denoiser training step": _training(params, mesh),
        "online guidance step": _guidance(params, mesh, objectives.SelfConsistency(), NETWORK, 0),
        "trajectory step": _guidance(params, mesh, TRAJECTORY, TABLE, 1),
        "samples": _sampling(params, mesh),
        "statistics": _collection(params, mesh),
    }
    return {
        name: collective_bytes(lowered.compile().as_text()) / size
        for name, lowered in programs.items()
    }


def _training(params: Params, mesh: Mesh) -> Any:
    loss = DenoisingLoss()

    def train_loss(params, frozen, batch, key):  # type: ignore[no-untyped-def]
        return loss(key, DENOISER, params, batch.x0, batch.c), {}

    return _step(train_loss, params, (), mesh, _examples((BATCH,)), 0)


def _guidance(
    params: Params, mesh: Mesh, objective: Objective, model: omega.LearnedModel, axis: int
) -> Any:
    loss = omega_loss(objective, model, parallel.spread(DENOISER, mesh))
    trained = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.arange(CLASSES)))
    sizes = (CLASSES, BATCH) if axis else (BATCH,)
    return _step(loss, trained, params, mesh, _examples(sizes), axis)


def _step(
    loss: training.Loss, trained: Params, frozen: Params, mesh: Mesh, batch: Batch, axis: int
) -> Any:
    optimizer = training.Optimizer(num_steps=10)
    state = jax.eval_shape(lambda params: training.init_state(params, optimizer), trained)
    step: Any = training.make_step(
        loss, optimizer, state, frozen, batch, mesh=mesh, batch_axis=axis
    )
    return step.lower(state, frozen, batch, _key())


def _sampling(params: Params, mesh: Mesh) -> Any:
    times, c = jnp.asarray(TIMES), jnp.arange(BATCH) % CLASSES

    def draw(key: PRNGKey, params: Params) -> Array:
        return sampling.sample(
            key, DENOISER, params, c, guidance=1.0, shape=SHAPE, times=times, mesh=mesh
        ).x0

    return jax.jit(draw).lower(_key(), _lying(params, mesh))


def _collection(params: Params, mesh: Mesh) -> Any:
    layout = Layout(num_particles=4, dim=math.prod(SHAPE))
    ask: Any = batch_pass(parallel.spread(DENOISER, mesh), layout, objectives.UniformTimes())
    batch = _examples((BATCH,))
    placed = jax.tree.map(_struct, batch, parallel.batch_sharding(batch, mesh))
    return ask.lower(_lying(params, mesh), placed, _key())


def _examples(sizes: tuple[int, ...]) -> Batch:
    return Batch(
        jax.ShapeDtypeStruct((*sizes, *SHAPE), jnp.float32),
        jax.ShapeDtypeStruct(sizes, jnp.int32),
    )


def _lying(params: Params, mesh: Mesh) -> Params:
    return jax.tree.map(_struct, params, parallel.param_sharding(params, mesh))


def _struct(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def hours(call: float) -> dict[str, Any]:
    """Return the table of device-hours, for the FLOPs of a call."""
    works = {
        "ImageNet-64: train the denoiser, 400,000 steps of 2,048": 3 * call * 400_000 * 2048,
        "ImageNet-64: learn guidance as the paper, 205 million calls": call * PAPER_CALLS,
        "ImageNet-64: statistics of 131,072 examples, 1 million calls": call * OUR_CALLS,
        "ImageNet-64: trajectory, 200 steps of 1,024 particles, 50 guided steps": (
            call * UNROLLED_CALLS
        ),
        "ImageNet-64: 50,000 samples, 100 guided steps": call * 50_000 * 200,
        "1B text-to-image: learn guidance, 205 million calls": TEXT_TO_IMAGE * PAPER_CALLS,
        "1B text-to-image: statistics, 1 million calls": TEXT_TO_IMAGE * OUR_CALLS,
        "1B text-to-image: trajectory, as above": TEXT_TO_IMAGE * UNROLLED_CALLS,
    }
    rows = [
        {"work": work, "flops": flops}
        | {str(count): flops / (PEAK * UTILISATION) / 3600.0 / count for count in COUNTS}
        for work, flops in works.items()
    ]
    columns = [
        text("work", "work"),
        number("flops", "EFLOP", ",.3g") | {"unit": 1e18},
        *(number(str(count), f"hours on {count}", ",.3g") for count in COUNTS),
    ]
    title = f"One call for one 64x64 image: {call / 1e9:,.0f} GFLOP"
    return {"title": title, "columns": columns, "rows": rows}


def measure(options: Namespace) -> dict[str, Any]:
    """Return both tables. Sets up fake devices: nothing must have been computed before."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=512"
    jax.config.update("jax_platforms", "cpu")
    rows = []
    with bar("compile for fake devices", len(MESHES)) as advance:
        for data, fsdp in MESHES:
            mesh = f"{data} x {fsdp}"
            rows.append({"mesh": mesh, **sent(data, fsdp)})
            advance(mesh)
    names = [name for name in rows[0] if name != "mesh"]
    columns = [text("mesh", "data x fsdp"), *(number(name, name, ".3f") for name in names)]
    return {"tables": {"hours": hours(call_flops()), "sent": {"columns": columns, "rows": rows}}}


STUDY = Study(measure=measure)
