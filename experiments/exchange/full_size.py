r"""Learning for a network of Stable Diffusion 1.5's size: what it takes here, and on an H100.

    python -m experiments.benchmarks exchange_full_size --name=exchange-full-size
    python -m experiments.benchmarks exchange_full_size --planned --name=exchange-full-size-h100

The first learns some steps of self-consistency for a U-Net with random weights, 860 million of
them, on latents of 512 x 512 images, and says how long a step takes and how much memory the process
has used. The second compiles such steps for an H100 that need not be there, and says what memory
its compiler plans (needs ``pip install -e '.[cuda12]'``). Both need the extra ``lgd[diffusers]``.
"""

import resource
import time
from argparse import Namespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import lgd
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd import objectives, omega, training
from lgd.denoisers import FunctionDenoiser
from lgd.encoders import for_condition
from lgd.exchange.extras import required
from lgd.exchange.torch import from_module
from lgd.learn import omega_loss
from lgd.machinery.progress import phase
from lgd.schedules import from_alphas_cumprod, timestep
from lgd.types import Batch, Condition, Params

LEVELS, TOKENS, WIDTH = 1000, 77, 768  # of the schedule, and of a text of CLIP
SHAPE = (4, 64, 64)  # latents of 512 x 512 images
BATCHES = (1, 8, 32)  # examples of a step that is planned
DTYPES = ("float32", "bfloat16")
H100_BYTES = 80e9
UNET = {  # runwayml/stable-diffusion-v1-5, unet/config.json
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 8,
}


def network(dtype: Any) -> tuple[FunctionDenoiser, Params]:
    """The U-Net with random weights as a denoiser of tokens (b, 77, 768)."""
    torch = required("torch", "diffusers")
    unet = required("diffusers", "diffusers").UNet2DConditionModel(**UNET)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, LEVELS, dtype=torch.float64) ** 2

    def call(module: Any, x: Any, t: Any, c: Any) -> Any:
        tokens = c["tokens"]
        return module(x, timestep(t, LEVELS), encoder_hidden_states=tokens, return_dict=False)[0]

    def null(c: Condition) -> Condition:
        return c | {"tokens": jnp.zeros_like(c["tokens"])}

    return from_module(
        unet,
        schedule=from_alphas_cumprod(np.cumprod(1.0 - betas.numpy())),
        kind="eps",
        null=null,
        call=call,
        dtype=dtype,
    )


def measure(options: Namespace) -> dict[str, Any]:
    """Return what the steps took, or what an H100 would need for some."""
    objective = objectives.SelfConsistency(num_particles=options.particles)
    if options.planned:
        from experiments.benchmarks.device.planned_memory import h100

        device, rows = h100(), []  # before JAX computes anything
        for dtype in DTYPES:
            shared, denoiser, params = _network_row(dtype)
            rows += [shared | _planned(device, objective, denoiser, params, n) for n in BATCHES]
        return {"columns": _PLANNED, "rows": rows, "target": H100_BYTES}
    shared, denoiser, params = _network_row(options.dtype)
    row = shared | _learned(objective, denoiser, params, options.batch, options.steps)
    return {"columns": _RUN, "rows": [row], "settings": vars(options)}


def _network_row(dtype: str) -> tuple[dict[str, Any], FunctionDenoiser, Params]:
    """The columns that all rows of a precision share, the network and its parameters."""
    with phase("make the network"):
        denoiser, params = network(None if dtype == "float32" else jnp.dtype(dtype))
    size = int(sum(np.size(leaf) for leaf in jax.tree.leaves(params)))
    return {"parameters": size, "dtype": dtype}, denoiser, params


_SHARED = [
    number("parameters", "parameters", ",.0f"),
    text("dtype", "dtype"),
    number("batch", "examples of a step", "d"),
]
_RUN = [
    *_SHARED,
    number("seconds", "seconds a step", ".1f"),
    number("peak bytes", "memory of the process, GB", ".1f") | {"unit": 1e9},
]
_PLANNED = [*_SHARED, number("planned bytes", "memory planned, GB", ".1f") | {"unit": 1e9}]


def _learned(
    objective: objectives.SelfConsistency,
    denoiser: FunctionDenoiser,
    params: Params,
    batch: int,
    steps: int,
) -> dict[str, Any]:
    """Learn some steps, and measure all but the first one, which compiles."""
    ends: list[float] = []
    rng = np.random.default_rng(0)
    guidance = lgd.learn_guidance(
        jax.random.key(0),
        denoiser,
        params,
        rng.normal(size=(4 * batch, *SHAPE)).astype(np.float32),
        _texts(4 * batch),
        objective=objective,
        start={"constant(1)": lgd.guidance.constant(1.0)},
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=steps),
            batch_size=batch,
            on_step=lambda step, ema: ends.append(time.perf_counter()),
            check=False,
        ),
    )
    return {
        "batch": batch,
        "seconds": (ends[-1] - ends[0]) / (len(ends) - 1),
        "peak bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss": [float(value) for value in guidance.history["loss"]],
    }


def _planned(
    device: Any,
    objective: objectives.SelfConsistency,
    denoiser: FunctionDenoiser,
    params: Params,
    batch: int,
) -> dict[str, Any]:
    """What the compiler of a device plans for a step of training."""
    from experiments.benchmarks.device.planned_memory import on
    from experiments.benchmarks.device.training_share import planned_bytes

    c = _texts(batch)
    model = omega.Network(
        schedule=denoiser.schedule, encoder=for_condition(c), support=objective.support
    )
    loss = omega_loss(objective, model, denoiser)

    def gradient(omega_params: Params, params: Params, real: Batch, key: Array) -> Any:
        return jax.value_and_grad(loss, has_aux=True)(omega_params, params, real, key)

    real = Batch(jnp.zeros((batch, *SHAPE)), c)
    arguments = (model.init(jax.random.key(0), c), params, real, jax.random.key(1))
    with phase(f"compile a step of {batch}"):
        compiled = jax.jit(gradient).lower(*on(device, arguments)).compile()
    return {"batch": batch, "planned bytes": planned_bytes(compiled)}


def _texts(count: int) -> Condition:
    """Random tokens (count, 77, 768) with their mask, as `exchange.diffusers.load` has texts."""
    tokens = np.random.default_rng(1).normal(size=(count, TOKENS, WIDTH)).astype(np.float32)
    return {"tokens": tokens, "mask": np.ones((count, TOKENS), bool)}


def _arguments(add: Add) -> None:
    add("--planned", action="store_true", help="compile for an H100 and run nothing")
    add("--dtype", default="float32", choices=DTYPES, help="of the network")
    add("--batch", type=int, default=1, help="examples of a step that runs")
    add("--particles", type=int, default=2, help="of each example, at least 2")
    add("--steps", type=int, default=10, help="that run, at least 2")


STUDY = Study(measure=measure, arguments=_arguments, refused=(ImportError, RuntimeError))
