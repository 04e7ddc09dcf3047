"""Noise schedules, kinds of prediction and time grids of diffusers' schedulers, in lgd's terms."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import schedules
from lgd.diffusion import Kind
from lgd.machinery.words import shown
from lgd.types import Schedule

_KINDS: dict[str, Kind] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


class SchedulerError(ValueError):
    """A scheduler that lgd cannot translate, naming what it expected."""


def schedule_of(scheduler: Any) -> Schedule:
    """The noise schedule of a diffusers scheduler.

    Those with ``alphas_cumprod`` become `schedules.Discrete`, where level i lies at
    ``t = (i + 1) / N``; flow matching becomes `schedules.RectifiedFlow`, t being its sigma; EDM
    becomes `schedules.EDM` from half its smallest sigma, so that this one is a time above 0.

    Raises:
      SchedulerError: for any other.
    """
    config = _config(scheduler)
    if is_flow(scheduler):
        return schedules.rectified_flow()
    if is_edm(scheduler):
        return schedules.edm(0.5 * config.sigma_min, config.sigma_max, getattr(config, "rho", 7.0))
    if not hasattr(scheduler, "alphas_cumprod"):
        raise SchedulerError(
            "scheduler: expected one with alphas_cumprod, of flow matching or of EDM, got "
            f"{type(scheduler).__name__}"
        )
    squares = np.array(scheduler.alphas_cumprod.tolist())
    if getattr(config, "rescale_betas_zero_snr", False):
        squares[-1] = 0.0  # some samplers put the smallest half-precision number in its place
    return schedules.from_alphas_cumprod(squares)


def kind_of(scheduler: Any) -> Kind:
    """What the model predicts: "eps", "x0", "v", or "velocity" for flow matching.

    Raises:
      SchedulerError: for another ``prediction_type``.
    """
    name = getattr(_config(scheduler), "prediction_type", None)
    if is_flow(scheduler) and name in (None, "flow_prediction"):
        return "velocity"
    if name not in _KINDS:
        known = ", ".join((*_KINDS, "flow_prediction"))
        raise SchedulerError(f"prediction_type: expected one of {known}, got {shown(name)}")
    return _KINDS[name]


def times_of(scheduler: Any, num_steps: int, **options: Any) -> Float[Array, " n"]:
    """The grid of times (num_steps + 1,) that a diffusers scheduler walks, decreasing.

    Where the scheduler ends at its first noise level and not at data (Stable Diffusion's
    ``set_alpha_to_one=False``), so does the grid. A copy of the scheduler is asked, so that the
    pipeline's own stays as it is.

    Args:
      scheduler: of a pipeline.
      num_steps: ``num_inference_steps`` of the pipeline.
      options: further arguments of ``scheduler.set_timesteps``, such as ``mu``.

    Raises:
      SchedulerError: for a scheduler whose grid does not decrease within its noise levels.
    """
    times = _grid(asked(scheduler, num_steps, **options))
    if not np.all(np.diff(times) < 0.0):
        name = type(scheduler).__name__
        raise SchedulerError(f"{name}: expected times that decrease, got {np.round(times, 4)}")
    return jnp.asarray(times, jnp.float32)


def evaluations_of(
    scheduler: Any, num_steps: int, **options: Any
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """The step (t, s) that every evaluation of the model belongs to, (k,) each.

    There are as many as the scheduler has timesteps: num_steps, or more for solvers that evaluate a
    step twice (Heun), or the first of them (PNDM).

    Args:
      scheduler: of a pipeline.
      num_steps: ``num_inference_steps`` of the pipeline.
      options: further arguments of ``scheduler.set_timesteps``.
    """
    copy = asked(scheduler, num_steps, **options)
    times, count = _grid(copy), len(copy.timesteps)
    t, s = times[:-1], times[1:]
    if count == 2 * len(t) - 1:  # every step but the last one twice
        t, s = np.repeat(t, 2)[:-1], np.repeat(s, 2)[:-1]
    return jnp.asarray(t, jnp.float32), jnp.asarray(s, jnp.float32)


def asked(scheduler: Any, num_steps: int, **options: Any) -> Any:
    """A copy of a scheduler that has set its timesteps."""
    _config(scheduler)
    copy = type(scheduler).from_config(scheduler.config)
    copy.set_timesteps(num_steps, **options)
    return copy


def _grid(scheduler: Any) -> np.ndarray:
    """Times of a scheduler that has set its timesteps, where it lists some twice also twice."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None:
        return _of_timesteps(scheduler)
    each = _single(np.array(sigmas.tolist()))
    return _of_sigmas(schedule_of(scheduler), each, flow=is_flow(scheduler))


def timestep_of(scheduler: Any, t: Float[Array, " b"]) -> Float[Array, " b"]:
    """What the model takes in place of lgd's t: ``N t - 1``, of flow matching ``N t``.

    EDM's models take ``log(sigma) / 4`` instead.
    """
    count = _config(scheduler).num_train_timesteps
    if is_flow(scheduler):
        return count * t
    if is_edm(scheduler):
        return -0.125 * schedule_of(scheduler).logsnr(t)
    return schedules.timestep(t, count)


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler is one of flow matching."""
    flows = getattr(_config(scheduler), "use_flow_sigmas", False)
    return bool(flows) or "FlowMatch" in type(scheduler).__name__


def is_edm(scheduler: Any) -> bool:
    """Whether it is one of EDM, whose models are preconditioned by the scheduler."""
    return type(scheduler).__name__.startswith("EDM")


def _config(scheduler: Any) -> Any:
    config = getattr(scheduler, "config", None)
    if config is None:
        raise SchedulerError(f"scheduler: expected one of diffusers, got {shown(scheduler)}")
    return config


def _of_timesteps(scheduler: Any) -> np.ndarray:
    """Times of a scheduler that walks numbered levels, by its own rule for the last one.

    It steps down by ``N // num_steps`` levels whatever its next timestep is, which with spacing
    "linspace" is another one: the model would then be asked at times of another noise level.
    """
    levels = np.array(scheduler.timesteps.tolist(), np.float64)
    count = scheduler.config.num_train_timesteps
    stride, gaps = count // scheduler.num_inference_steps, -np.diff(levels)
    if (gaps > 0.0).all() and (np.abs(gaps - stride) > 1.0).any():
        spacing = getattr(scheduler.config, "timestep_spacing", None)
        raise SchedulerError(
            f"{type(scheduler).__name__}: expected timesteps {stride} apart, by which it steps, "
            f"got {shown(levels.tolist())}, timestep_spacing {spacing!r}: "
            "take 'leading' or 'trailing'"
        )
    ends_at_data = getattr(scheduler.config, "set_alpha_to_one", True)
    return np.append((levels + 1.0) / count, 0.0 if ends_at_data else 1.0 / count)


def _of_sigmas(schedule: Schedule, sigmas: np.ndarray, *, flow: bool) -> np.ndarray:
    """Times of a scheduler that walks ratios of noise to signal, or sigmas of a flow."""
    if flow:
        return sigmas
    positive = sigmas[sigmas > 0.0]
    times = np.asarray(schedule.t_from_logsnr(jnp.asarray(-2.0 * np.log(positive), jnp.float32)))
    return np.append(times, 0.0) if len(positive) < len(sigmas) else times


def _single(sigmas: np.ndarray) -> np.ndarray:
    """Sigmas each once: solvers of second order list those between twice."""
    keep = np.append(True, np.diff(sigmas) != 0.0)
    return sigmas[keep]
