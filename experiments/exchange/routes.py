"""Learned weights in the pipelines of diffusers: latents against those of our own sampler.

    python -m experiments.benchmarks exchange_routes [--name=exchange-routes]

Every route by which weights leave, in the pipeline class itself, with weights that differ by step
and sample and are below 0 for some. Tiny networks with random weights, float32, five steps; the
error is the greatest difference over the greatest value. Needs the extra ``lgd[diffusers]``.
"""

import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.exchange.setup import (
    LIMIT,
    NO_POOLED,
    NO_TEXT,
    NUM_STEPS,
    POOLED,
    TEXT,
    X,
    brought,
    omega_of_label,
    omega_of_text,
    ours,
    prompts,
    row_of,
    schedulers,
    start_of,
)
from experiments.publish.markdown import number, text
from experiments.publish.study import Study
from lgd.exchange import diffusers as exchange
from lgd.exchange.diffusers import tiny
from lgd.exchange.extras import required
from lgd.machinery.progress import bar
from lgd.types import Condition

COUNT = 14

Row = dict[str, Any]


def measure(options: Namespace) -> dict[str, Any]:
    """Return a row for each route and pipeline."""
    rows = []
    with bar("routes", COUNT) as advance:
        for row in routes():
            rows.append(row)
            advance(row["route"])
    columns = [
        text("pipeline", "pipeline"),
        text("route", "route"),
        text("scheduler", "scheduler"),
        number("error", "error of the latents", ".1e"),
    ]
    return {"columns": columns, "rows": rows, "limit": LIMIT}


def routes() -> Iterator[Row]:
    """A row for the latents of a pipeline and of our own sampler, by every route."""
    yield from _stable_diffusion()
    yield from _xl()
    yield from _sd3()
    yield from _by_argument()
    yield from _flux()


def _row(pipeline: str, route: str, scheduler: str, theirs: Any, own: Any) -> Row:
    return row_of(theirs, own, pipeline=pipeline, route=route, scheduler=scheduler)


def _callback(
    name: str, scheduler: str, pipe: Any, model: Any, c: Condition, given: Mapping, solver: str
) -> Row:
    scale, callback = exchange.guidance_callback(omega_of_text, pipe, NUM_STEPS, c)
    torch = required("torch", "torch")
    theirs = pipe(
        **given,
        guidance_scale=scale,
        callback_on_step_end=callback,
        latents=torch.tensor(X),
        output_type="latent",
    ).images.numpy()
    own = ours(model, omega_of_text, c, start_of(model), solver)
    return _row(name, "callback", scheduler, theirs, own)


def _stable_diffusion() -> Iterator[Row]:
    for name, (make, solver) in schedulers().items():
        pipe = tiny.stable_diffusion(make())
        model = brought(pipe, NO_TEXT)
        yield _callback("StableDiffusion", name, pipe, model, TEXT, prompts(False), solver)


def _xl() -> Iterator[Row]:
    pipe = tiny.stable_diffusion_xl()
    c, size = {**TEXT, "pooled": POOLED}, 8 * pipe.vae_scale_factor
    model = brought(pipe, {**NO_TEXT, "pooled": NO_POOLED})
    given = prompts(True) | {"height": size, "width": size}
    yield _callback("StableDiffusionXL", "Euler", pipe, model, c, given, "ddim")


def _sd3() -> Iterator[Row]:
    d, torch = required("diffusers", "diffusers"), required("torch", "torch")
    c = {**TEXT, "pooled": POOLED}
    for shift in (1.0, 3.0):
        pipe = tiny.stable_diffusion_3(d.FlowMatchEulerDiscreteScheduler(shift=shift))
        model = brought(pipe, {**NO_TEXT, "pooled": NO_POOLED})
        size = 8 * pipe.vae_scale_factor
        given = prompts(True) | {"height": size, "width": size}
        name = f"FlowMatchEuler, shift {shift:g}"
        yield _callback("StableDiffusion3", name, pipe, model, c, given, "ddim")
    own = ours(model, omega_of_text, c, X)
    guider = exchange.LearnedGuidance.of(omega_of_text, pipe.scheduler, NUM_STEPS, c)
    with tempfile.TemporaryDirectory() as folder:
        guider.save_pretrained(folder)
        read = exchange.LearnedGuidance.from_pretrained(folder)
    for route, each in (("guider", guider), ("guider, saved and loaded", read)):
        modular = _modular(pipe, each)
        theirs = modular(**given, latents=torch.tensor(X), output="latents").numpy()
        yield _row("modular StableDiffusion3", route, name, theirs, own)


def _modular(pipe: Any, guider: Any) -> Any:
    room = required("diffusers.modular_pipelines.stable_diffusion_3", "diffusers")
    blocks = room.StableDiffusion3AutoBlocks()
    for name in ("text_encoder", "vae_encoder"):
        blocks.sub_blocks.pop(name)
    modular = blocks.init_pipeline()
    modular.update_components(
        transformer=pipe.transformer, vae=pipe.vae, scheduler=pipe.scheduler, guider=guider
    )
    return modular


def _by_argument() -> Iterator[Row]:
    torch = required("torch", "torch")
    pipe, labels = tiny.class_conditional(), [1, 7]
    model = exchange.load(pipe)
    c = model.conditions(labels)
    theirs = pipe(
        labels,
        guidance_scale=exchange.guidance_argument(omega_of_label, pipe, NUM_STEPS, c),
        generator=torch.Generator().manual_seed(3),
        num_inference_steps=NUM_STEPS,
        output_type="np",
    ).images
    start = torch.randn(X.shape, generator=torch.Generator().manual_seed(3)).numpy()
    images = 0.5 * model.decode(ours(model, omega_of_label, c, start)) + 0.5
    yield _row("DiT", "argument", "DDIM, leading (decoded images)", theirs, images)

    pipe = tiny.pixart()
    model = brought(pipe, NO_TEXT)
    theirs = pipe(
        prompt=None,
        negative_prompt=None,
        **prompts(False),
        prompt_attention_mask=torch.ones(2, 7),
        negative_prompt_attention_mask=torch.ones(2, 7),
        guidance_scale=exchange.guidance_argument(omega_of_text, pipe, NUM_STEPS, TEXT),
        latents=torch.tensor(X),
        height=8 * pipe.vae_scale_factor,
        width=8 * pipe.vae_scale_factor,
        use_resolution_binning=False,
        output_type="latent",
    ).images.numpy()
    own = ours(model, omega_of_text, TEXT, X)
    yield _row("PixArtAlpha", "argument", "DDIM, leading", theirs, own)


def _flux() -> Iterator[Row]:
    """Flux with the shift that it is given, and with the one that it takes by the size."""
    d, torch = required("diffusers", "diffusers"), required("torch", "torch")
    module = required("diffusers.pipelines.flux.pipeline_flux", "diffusers")
    c, sigmas = {**TEXT, "pooled": POOLED}, np.linspace(1.0, 1.0 / NUM_STEPS, NUM_STEPS)
    for dynamic in (False, True):
        scheduler = d.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic)
        pipe = tiny.flux(scheduler)
        model = brought(pipe, {**NO_TEXT, "pooled": NO_POOLED})
        options: dict[str, Any] = {"sigmas": sigmas}
        if dynamic:
            names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
            shifts = (scheduler.config[name] for name in names)
            options["mu"] = module.calculate_shift(_packed(X).shape[1], *shifts)
        size, given = 8 * pipe.vae_scale_factor, prompts(True)
        theirs = pipe(
            **given,
            true_cfg_scale=exchange.guidance_argument(omega_of_text, pipe, NUM_STEPS, c, **options),
            guidance_scale=1.0,
            latents=torch.tensor(_packed(X)),
            height=size,
            width=size,
            output_type="latent",
        ).images.numpy()
        own = ours(model, omega_of_text, c, X, times=model.times(NUM_STEPS, **options))
        name = "FlowMatchEuler, " + ("dynamic shift" if dynamic else "shift 3")
        yield _row("Flux", "argument true_cfg_scale", name, theirs, _packed(own))


def _packed(x: np.ndarray) -> np.ndarray:
    """Latents (b, k, h, w) as tokens of blocks of 2x2, (b, h w / 4, 4 k)."""
    b, k, h, w = x.shape
    blocks = x.reshape(b, k, h // 2, 2, w // 2, 2).transpose(0, 2, 4, 1, 3, 5)
    return blocks.reshape(b, h * w // 4, 4 * k)


STUDY = Study(measure=measure, refused=(ImportError,))
