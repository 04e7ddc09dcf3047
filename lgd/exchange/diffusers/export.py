"""Learned weights inside diffusers' own pipelines.

Classic pipelines (Stable Diffusion, SDXL, SD3) keep their scale as an attribute, which a callback
sets after every step: `guidance_callback`. Pipelines without a callback (DiT), or with a local
scale (PixArt, Sana, Flux's ``true_cfg_scale``), take an argument that moves on by itself:
`guidance_argument`. Both follow ``uncond + scale (cond - uncond)`` with ``scale = 1 + omega``, and
one scale for every sample.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lgd import conditions
from lgd.exchange.diffusers.schedulers import evaluations_of
from lgd.exchange.extras import required
from lgd.guidance import takes_features
from lgd.guidance.weights import num_directions
from lgd.types import Condition, OmegaFn


def cfg_scales(
    omega_fn: OmegaFn, scheduler: Any, num_steps: int, c: Condition, **options: Any
) -> Float[np.ndarray, "k b"]:
    """``1 + omega`` at every evaluation of the model by a diffusers scheduler.

    ``cfg_scales(...)[:, 0].tolist()`` is the list that tools with a scale for each step take.

    Args:
      omega_fn: learned guidance, or any function of (s, t, c) with one direction.
      scheduler: of the pipeline.
      num_steps: ``num_inference_steps`` of the pipeline.
      c: the condition of every sample, leaves (b, ...).
      options: further arguments of ``scheduler.set_timesteps``.

    Raises:
      SchedulerError: for a scheduler that lgd cannot translate.
      ValueError: for weights of features of the predictions, or of several directions.
    """
    if takes_features(omega_fn) or num_directions(omega_fn) > 1:
        raise ValueError("expected weights of (s, t, c) and one direction, got others")
    t, s = evaluations_of(scheduler, num_steps, **options)
    c = jax.tree.map(jnp.asarray, c)
    count, steps = conditions.size(c), len(t)
    omega = omega_fn(s=jnp.tile(s, count), t=jnp.tile(t, count), c=conditions.repeat(c, steps))
    return 1.0 + np.asarray(omega, np.float32).reshape(count, steps).T


class Scale:
    """A guidance scale for every sample, which pipelines use as they use a number.

    It always asks for the unconditional half, also where scales are 1 or less.
    """

    def __init__(self, values: Float[np.ndarray, " b"]) -> None:
        self.values = values

    def __gt__(self, other: object) -> bool:
        return True

    def __mul__(self, difference: Any) -> Any:
        """The difference of the two halves (b, ...) times the scales."""
        torch = required("torch", "torch")
        if len(self.values) not in (1, len(difference)):
            got = f"{len(self.values)} scales for {len(difference)} samples"
            raise ValueError(f"guidance_scale: expected one for every sample, got {got}")
        scales = torch.as_tensor(self.values).to(difference.device, difference.dtype)
        return scales.reshape(-1, *[1] * (difference.ndim - 1)) * difference

    __rmul__ = __mul__


class MovingScale(Scale):
    """A guidance scale that is that of the next evaluation after every use.

    After the last one it begins again, for another call of the pipeline.
    """

    def __init__(self, values: Float[np.ndarray, "k b"]) -> None:
        super().__init__(values[0])
        self._all, self._next = values, 0

    def __mul__(self, difference: Any) -> Any:
        self.values = self._all[self._next]
        self._next = (self._next + 1) % len(self._all)
        return super().__mul__(difference)

    __rmul__ = __mul__


def guidance_callback(
    omega_fn: OmegaFn, pipeline: Any, num_steps: int, c: Condition, **options: Any
) -> tuple[Scale, Callable[..., dict]]:
    """A first scale and a callback, with which a classic pipeline follows learned guidance.

        scale, callback = guidance_callback(guidance, pipe, 25, c)
        pipe(prompt, num_inference_steps=25, guidance_scale=scale, callback_on_step_end=callback)

    Args:
      omega_fn: see `cfg_scales`.
      pipeline: one that keeps ``_guidance_scale``.
      num_steps: its ``num_inference_steps``.
      c: the condition of every image in its order, leaves (b, ...), or (1, ...) for one of all.
      options: further arguments of ``scheduler.set_timesteps``.

    Raises:
      ValueError: see `cfg_scales`; and for a pipeline that has no such attribute, which takes
        `guidance_argument`.
    """
    if not isinstance(getattr(type(pipeline), "guidance_scale", None), property):
        raise ValueError(
            f"expected a pipeline that keeps its guidance scale, got {type(pipeline).__name__}: "
            "use guidance_argument"
        )
    scales = cfg_scales(omega_fn, pipeline.scheduler, num_steps, c, **options)

    def callback(pipe: Any, index: int, timestep: Any, inputs: dict) -> dict:
        """At the end of an evaluation, the scale of the next one."""
        if index + 1 < len(scales):
            pipe._guidance_scale = Scale(scales[index + 1])
        return inputs

    return Scale(scales[0]), callback


def guidance_argument(
    omega_fn: OmegaFn, pipeline: Any, num_steps: int, c: Condition, **options: Any
) -> MovingScale:
    """A guidance scale for pipelines that use their argument itself at every evaluation.

        scale = guidance_argument(guidance, pipe, 25, c)
        pipe(labels, num_inference_steps=25, guidance_scale=scale)

    Args:
      omega_fn: see `cfg_scales`.
      pipeline: such a pipeline: DiT, PixArt, Sana, Flux with ``true_cfg_scale``.
      num_steps: its ``num_inference_steps``.
      c: the condition of every image, leaves (b, ...), or (1, ...) for one of all.
      options: further arguments of ``scheduler.set_timesteps``.

    Raises:
      ValueError: see `cfg_scales`.
    """
    return MovingScale(cfg_scales(omega_fn, pipeline.scheduler, num_steps, c, **options))
