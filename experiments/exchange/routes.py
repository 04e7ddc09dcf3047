"""Learned weights in the pipelines of diffusers: latents against those of our own sampler.

    python -m experiments.benchmarks exchange_routes [--name=exchange-routes]

Every route by which weights leave, in the pipeline class itself, with weights that differ by step
and sample and are below 0 for some. Tiny networks with random weights, float32, five steps; the
error is the greatest difference over the greatest value. Needs the extra ``lgd[diffusers]``.
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.publish.markdown import number, text
from experiments.publish.study import Study
from lgd import denoisers, sampling
from lgd.exchange import diffusers as exchange
from lgd.exchange.diffusers import tiny
from lgd.exchange.extras import required
from lgd.machinery.progress import bar
from lgd.types import Condition

NUM_STEPS, COUNT = 5, 12
LIMIT = 1e-4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)


class Found(NamedTuple):
    """Latents of a route and of our own sampler."""

    pipeline: str
    route: str
    scheduler: str
    theirs: np.ndarray
    ours: np.ndarray


def measure(options: Namespace) -> dict[str, Any]:
    """Return a row for each route and pipeline."""
    rows = []
    with bar("routes", COUNT) as advance:
        for found in routes():
            error = float(np.abs(found.theirs - found.ours).max() / np.abs(found.theirs).max())
            kept = {name: getattr(found, name) for name in ("pipeline", "route", "scheduler")}
            rows.append(kept | {"error": error, "within": error <= LIMIT})
            advance(found.route)
    columns = [
        text("pipeline", "pipeline"),
        text("route", "route"),
        text("scheduler", "scheduler"),
        number("error", "error of the latents", ".1e"),
    ]
    return {"columns": columns, "rows": rows, "limit": LIMIT}


def routes() -> Iterator[Found]:
    """Both samples of every route."""
    yield from _stable_diffusion()
    yield from _xl()
    yield from _sd3()
    yield from _by_argument()


def omega_of_text(*, s: Array, t: Array, c: Condition) -> Array:
    """Another weight for every step and sample."""
    return 2.0 * t - s - 1.0 + 4.0 * jnp.mean(c["text"]["tokens"], axis=(1, 2))


def omega_of_label(*, s: Array, t: Array, c: Condition) -> Array:
    """Another weight for every step and label."""
    return 2.0 * t - s - 0.1 * c


def _tokens(count: int) -> dict[str, np.ndarray]:
    tokens = RNG.normal(size=(count, 7, tiny.TOKEN)).astype(np.float32)
    return {"tokens": tokens, "mask": np.ones((count, 7), bool)}


TEXT, NO_TEXT = {"text": _tokens(2)}, {"text": _tokens(1)}
POOLED, NO_POOLED = (RNG.normal(size=(n, tiny.TOKEN)).astype(np.float32) for n in (2, 1))


def brought(pipe: Any, null: Any) -> exchange.Model:
    """The pipeline as a model whose unconditional text is given and not encoded."""
    model = exchange.load(pipe)
    own = model.denoiser

    def rows(c: Condition) -> Condition:
        return jax.tree.map(lambda leaf, like: jnp.repeat(leaf, len(like), axis=0), null, c)

    denoiser = denoisers.from_function(
        own.function, schedule=own.schedule, kind=own.kind, null=rows
    )
    return exchange.Model(denoiser, model.params, model.scheduler)


def ours(
    model: exchange.Model,
    omega: Any,
    c: Condition,
    start: Any,
    solver: str = "ddim",
    times: Any = None,
) -> Any:
    """The samples of our own sampler from one start.

    Args:
      model: the pipeline as a model.
      omega: the weights.
      c: conditions, leaves (b, ...).
      start: latents (b, 4, h, w).
      solver: of our own sampler.
      times: (n + 1,), from noise to data; None: those of the model's scheduler.
    """
    times = model.times(NUM_STEPS) if times is None else times

    @jax.jit
    def run(params: Any, x: Array, c: Condition) -> Array:
        return sampling.unroll(
            jax.random.key(0),
            model.denoiser,
            params,
            c,
            x,
            guidance=omega,
            times=times,
            solver=solver,
        )

    return np.asarray(run(model.params, jnp.asarray(start), jax.tree.map(jnp.asarray, c)))


def start_of(model: exchange.Model, num_steps: int = NUM_STEPS) -> np.ndarray:
    """The start of our sampler that is ``X`` times a scheduler's own scale.

    Schedulers of sigmas hold x / alpha.
    """
    scale = float(getattr(model.scheduler, "init_noise_sigma", 1.0))
    if scale == 1.0:
        return X
    alpha = float(model.denoiser.schedule.alpha(model.times(num_steps)[0]))
    return X * np.float32(alpha * scale)


def tensor(leaf: np.ndarray) -> Any:
    """Two rows as a tensor."""
    return required("torch", "torch").tensor(np.broadcast_to(leaf, (2, *leaf.shape[1:])).copy())


def prompts(pooled: bool, num_steps: int = NUM_STEPS) -> dict[str, Any]:
    """Arguments of a pipeline for texts that are encoded already."""
    given = {
        "prompt_embeds": tensor(TEXT["text"]["tokens"]),
        "negative_prompt_embeds": tensor(NO_TEXT["text"]["tokens"]),
        "num_inference_steps": num_steps,
    }
    more = {
        "pooled_prompt_embeds": tensor(POOLED),
        "negative_pooled_prompt_embeds": tensor(NO_POOLED),
    }
    return given | more if pooled else given


def schedulers() -> dict[str, tuple[Callable[[], Any], str]]:
    """Schedulers of Stable Diffusion by name, each with the solver that is the same."""
    d, sd = required("diffusers", "diffusers"), tiny.STABLE_DIFFUSION
    plain = {**sd, "clip_sample": False}
    return {
        "DDIM, leading": (
            lambda: d.DDIMScheduler(**plain, steps_offset=1, set_alpha_to_one=False),
            "ddim",
        ),
        "DDIM, trailing": (lambda: d.DDIMScheduler(**plain, timestep_spacing="trailing"), "ddim"),
        "Euler": (lambda: d.EulerDiscreteScheduler(**sd), "ddim"),
        "Heun": (lambda: d.HeunDiscreteScheduler(**sd), "heun_edm"),
        "DPM-Solver++(2M)": (lambda: d.DPMSolverMultistepScheduler(**sd), "dpmpp_2m"),
    }


def _callback(
    name: str, scheduler: str, pipe: Any, model: Any, c: Condition, given: Mapping, solver: str
) -> Found:
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
    return Found(name, "callback", scheduler, theirs, own)


def _stable_diffusion() -> Iterator[Found]:
    for name, (make, solver) in schedulers().items():
        pipe = tiny.stable_diffusion(make())
        model = brought(pipe, NO_TEXT)
        yield _callback("StableDiffusion", name, pipe, model, TEXT, prompts(False), solver)


def _xl() -> Iterator[Found]:
    pipe = tiny.stable_diffusion_xl()
    c, size = {**TEXT, "pooled": POOLED}, 8 * pipe.vae_scale_factor
    model = brought(pipe, {**NO_TEXT, "pooled": NO_POOLED})
    given = prompts(True) | {"height": size, "width": size}
    yield _callback("StableDiffusionXL", "Euler", pipe, model, c, given, "ddim")


def _sd3() -> Iterator[Found]:
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
        yield Found("modular StableDiffusion3", route, name, theirs, own)


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


def _by_argument() -> Iterator[Found]:
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
    yield Found("DiT", "argument", "DDIM, leading (decoded images)", theirs, images)

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
    yield Found("PixArtAlpha", "argument", "DDIM, leading", theirs, own)


STUDY = Study(measure=measure, refused=(ImportError,))
