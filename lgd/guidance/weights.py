"""What samplers take as omega: functions of (s, t, c) and arrays of weights, checked."""

import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import schedules
from lgd.diffusion import direction_names
from lgd.encoders import at_least_float32
from lgd.machinery.arguments import wrong
from lgd.machinery.words import described
from lgd.types import Denoiser, OmegaFn, OmegaModel, Schedule

GUIDANCE = (
    "guidance, one of a rule, an omega function of (s, t, c), a number or an array of weights "
    "(num_steps, b)"
)
_PROBES = tuple(np.linspace(0.05, 0.95, 10).tolist())  # times at which schedules are compared
_SAME_LOGSNR = 1e-2  # schedules that differ by less everywhere are one


@runtime_checkable
class HasOmega(Protocol):
    """A model with an omega function that stands for it, such as a `omega.Guidance`."""

    @property
    def model(self) -> OmegaModel:
        """The model."""

    @property
    def omega_fn(self) -> OmegaFn:
        """omega(s, t, c)."""


@runtime_checkable
class OfSchedule(Protocol):
    """Weights that are meant for one noise schedule."""

    @property
    def schedule(self) -> Schedule | None:
        """The noise schedule; None: any."""


@runtime_checkable
class OfDirections(Protocol):
    """An omega function that says how many directions it weighs."""

    @property
    def num_directions(self) -> int:
        """1, or the size of omega's last axis."""


def num_directions(omega_fn: OmegaFn) -> int:
    """Directions that an omega function weighs; 1 of one that does not say."""
    return omega_fn.num_directions if isinstance(omega_fn, OfDirections) else 1


def omega_function(omega: Any) -> Any:
    """The omega function that an object holds; anything else as it is."""
    return omega.omega_fn if isinstance(omega, HasOmega) else omega


def checked_omega(name: str, omega: Any) -> Any:
    """An omega function, or numbers in an array, as they are.

    Raises ValueError, naming the argument, for anything else: words, lists, classes, functions
    without s, t and c, numbers that are not finite.
    """
    if isinstance(omega, type | str | bytes | dict | list | tuple | bool | np.bool_):
        raise wrong(name, GUIDANCE, omega)
    function = omega_function(omega)
    if callable(function):
        _check_signature(name, function)
        return omega
    try:
        weights = jnp.asarray(omega)
    except (TypeError, ValueError):
        raise wrong(name, GUIDANCE, omega) from None
    kinds = (jnp.integer, jnp.floating)
    if not any(jnp.issubdtype(weights.dtype, kind) for kind in kinds) or weights.ndim > 3:
        raise wrong(name, GUIDANCE, omega)
    if not isinstance(weights, jax.core.Tracer) and not bool(jnp.isfinite(weights).all()):
        raise wrong(name, "finite weights", omega)
    return omega


def per_step_and_sample(
    omega: Any, num_steps: int, batch: int, denoiser: Denoiser
) -> Float[Array, "k b *d"]:
    """Weights (k, b) or (k, b, directions), from fewer where it is clear what they are of.

    A number is for all; (k,) is one for every step and (b,) one for every sample, unless k = b;
    axes of length 1 are repeated. Raises ValueError for other shapes.
    """
    weights = at_least_float32(jnp.asarray(omega))
    sizes = (num_steps, batch)
    spelled = "one for each step is (num_steps, 1), one for each sample (1, b)"
    if weights.ndim == 1 and weights.shape != (1,):
        if sizes == weights.shape * 2:
            raise ValueError(
                f"guidance: expected omegas (num_steps, b) = {sizes}, got {weights.shape}, which "
                f"may be of the steps or of the samples; {spelled}"
            )
        weights = weights[:, None] if weights.shape == (num_steps,) else weights[None]
    weights = weights.reshape((1,) * (2 - weights.ndim) + weights.shape)
    fits = all(n in (1, size) for n, size in zip(weights.shape, sizes, strict=False))
    if not fits:
        got = jnp.shape(omega)
        raise ValueError(
            f"guidance: expected omegas (num_steps, b) = {sizes}, got {got}; {spelled}"
        )
    check_directions(weights.shape[2:], denoiser)
    return jnp.broadcast_to(weights, (*sizes, *weights.shape[2:]))


def check_directions(shape: tuple[int, ...], denoiser: Denoiser) -> None:
    """Raise ValueError unless omega has the first direction alone, or all of the denoiser's."""
    names = direction_names(denoiser)
    if shape not in ((), (len(names),)):
        raise ValueError(
            f"guidance: expected omega of {len(names)} directions {names}, got {shape}"
        )


def check_schedule(omega: Any, schedule: Schedule, *, name: str = "guidance") -> None:
    """Raise ValueError for weights that are meant for another noise schedule.

    Schedules are the same where their logsnr is, whatever their scale.
    """
    own = omega.schedule if isinstance(omega, OfSchedule) else None
    if own is None or own is schedule or _same(own, schedule):
        return
    way = "; its omega_fn has the same weights at the same times" * isinstance(omega, HasOmega)
    raise ValueError(
        f"{name}: expected weights made for the denoiser's noise schedule {described(schedule)}, "
        f"got some for {described(own)}{way}"
    )


def _same(schedule: Schedule, other: Schedule) -> bool:
    with jax.ensure_compile_time_eval():
        t = jnp.asarray(_PROBES, jnp.float32)
        one, two = (np.asarray(schedules.clipped_logsnr(each, t)) for each in (schedule, other))
    return bool(np.allclose(one, two, rtol=0.0, atol=_SAME_LOGSNR))


def _check_signature(name: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of compiled code, which has none
        return
    try:
        features = {"features": None} if "features" in signature.parameters else {}
        signature.bind(s=None, t=None, c=None, **features)
    except TypeError:
        expected = f"{GUIDANCE}; omega functions are called as omega(s=s, t=t, c=c)"
        raise wrong(name, expected, f"{described(function)}{signature}") from None
