"""What comparisons with pipelines of diffusers share: models, conditions, and our own sampler."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lgd import denoisers, sampling
from lgd.exchange import diffusers as exchange
from lgd.exchange.diffusers import tiny
from lgd.exchange.extras import required
from lgd.types import Condition

NUM_STEPS = 5
LIMIT = 1e-4  # of errors
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)


def row_of(theirs: np.ndarray, ours: np.ndarray, **names: str) -> dict[str, Any]:
    """A row of a table: names, the greatest difference over the greatest value, and its limit."""
    error = float(np.abs(theirs - ours).max() / np.abs(theirs).max())
    return names | {"error": error, "within": error <= LIMIT}


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
    """An array as a tensor of PyTorch of two rows."""
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
