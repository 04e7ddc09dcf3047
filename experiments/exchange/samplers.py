"""Samplers of diffusers against our own: latents from one model, one start and one strength.

    python -m experiments.benchmarks exchange_samplers [--name=exchange-samplers]

Tiny networks with random weights, classifier-free guidance of one strength, float32, twenty steps;
the error is the greatest difference over the greatest value. With its spacing "linspace" the DDIM
of diffusers does not step from one of its timesteps to the next but by N // n levels, so that it
asks the model at other noise levels than its latents have: no grid of times gives the same samples,
and the row shows how far they are from DDIM along the timesteps. Needs the extra
``lgd[diffusers]``.
"""

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Array

from experiments.exchange.setup import (
    LIMIT,
    NO_POOLED,
    NO_TEXT,
    POOLED,
    TEXT,
    X,
    brought,
    ours,
    prompts,
    row_of,
    schedulers,
    start_of,
)
from experiments.publish.markdown import number, text
from experiments.publish.study import Study
from lgd.exchange.diffusers import tiny
from lgd.exchange.extras import required
from lgd.machinery.progress import bar
from lgd.types import Condition

NUM_STEPS, SCALE = 20, 5.0


def measure(options: Namespace) -> dict[str, Any]:
    """Return a row for each sampler."""
    rows = []
    with bar("samplers", 8) as advance:
        for row in samplers():
            rows.append(row)
            advance(row["sampler"])
    columns = [
        text("sampler", "sampler of diffusers"),
        text("solver", "our solver"),
        number("error", "error of the latents", ".1e"),
    ]
    return {"columns": columns, "rows": rows, "limit": LIMIT, "steps": NUM_STEPS, "scale": SCALE}


def samplers() -> Iterator[dict[str, Any]]:
    """A row for the latents of every sampler of diffusers, and of ours in its place."""
    d = required("diffusers", "diffusers")
    for name, (make, solver) in schedulers().items():
        yield _stable_diffusion(name, make(), solver)
    plain = {**tiny.STABLE_DIFFUSION, "clip_sample": False}
    spaced = d.DDIMScheduler(**plain, timestep_spacing="linspace")
    yield _stable_diffusion("DDIM, linspace", spaced, "ddim", _along_timesteps(spaced))
    for shift in (1.0, 3.0):
        yield _flow(f"FlowMatchEuler, shift {shift:g}", shift)


def _along_timesteps(scheduler: Any) -> np.ndarray:
    scheduler.set_timesteps(NUM_STEPS)
    levels = np.array(scheduler.timesteps.tolist(), np.float32)
    return np.append((levels + 1.0) / scheduler.config.num_train_timesteps, np.float32(0.0))


def omega(*, s: Array, t: Array, c: Condition) -> Array:
    """The weight that diffusers' scale is, at every step."""
    return 0.0 * t + (SCALE - 1.0)


def _drawn(pipe: Any, **given: Any) -> np.ndarray:
    torch = required("torch", "torch")
    return pipe(
        **given, guidance_scale=SCALE, latents=torch.tensor(X), output_type="latent"
    ).images.numpy()


def _stable_diffusion(name: str, scheduler: Any, solver: str, times: Any = None) -> dict[str, Any]:
    pipe = tiny.stable_diffusion(scheduler)
    model = brought(pipe, NO_TEXT)
    start = X if times is not None else start_of(model, NUM_STEPS)
    times = model.times(NUM_STEPS) if times is None else times
    own = ours(model, omega, TEXT, start, solver, times)
    theirs = _drawn(pipe, **prompts(False, NUM_STEPS))
    return row_of(theirs, own, sampler=name, solver=solver)


def _flow(name: str, shift: float) -> dict[str, Any]:
    d = required("diffusers", "diffusers")
    pipe = tiny.stable_diffusion_3(d.FlowMatchEulerDiscreteScheduler(shift=shift))
    model = brought(pipe, {**NO_TEXT, "pooled": NO_POOLED})
    size = 8 * pipe.vae_scale_factor
    own = ours(model, omega, {**TEXT, "pooled": POOLED}, X, "ddim", model.times(NUM_STEPS))
    given = prompts(True, NUM_STEPS) | {"height": size, "width": size}
    return row_of(_drawn(pipe, **given), own, sampler=name, solver="ddim")


STUDY = Study(measure=measure, refused=(ImportError,))
