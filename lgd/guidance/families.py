"""Score mixing, and guidance schedules written by hand.

A schedule is a function ``omega(*, s, t, c) -> (b,)`` of the times that a step goes to and from,
each (b,), and of the condition. omega = 0 is plain conditional sampling, omega = -1 unconditional
sampling; tools that speak of a "CFG scale" mean ``cfg_scale = 1 + omega``. Below, ``p = 1 - t`` is
the progress of sampling at the start of the step.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd.types import Condition, OmegaFn, Schedule


def constant(w: float) -> OmegaFn:
    """``omega = w`` everywhere; 0: no guidance."""
    _check_finite(w=w)

    def omega(*, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition) -> Float[Array, " b"]:
        return jnp.full_like(t, w)

    return omega


def limited_interval(
    w: float, lo: float, hi: float, *, logsnr_of: Schedule | None = None
) -> OmegaFn:
    """``omega = w`` where lo <= t <= hi, else 0 (Kynkäänniemi et al., 2024). w = 0: no guidance.

    lo and hi are times in [0, 1], both ends included; with ``logsnr_of=schedule`` they are bounds
    on that schedule's logsnr(t). Raises ValueError unless lo < hi.
    """
    _check_finite(w=w)
    _check_interval(lo, hi, in_times=logsnr_of is None)

    def omega(*, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition) -> Float[Array, " b"]:
        position = t if logsnr_of is None else logsnr_of.logsnr(t)
        return jnp.where((position >= lo) & (position <= hi), w, 0.0).astype(t.dtype)

    return omega


def limited_interval_per_class(
    w: Sequence[float], lo: Sequence[float], hi: Sequence[float]
) -> OmegaFn:
    """`limited_interval` with its own (w, lo, hi) for each class; c holds int labels (b,)."""
    if not len(w) == len(lo) == len(hi):
        raise ValueError(f"expected equal lengths, got {len(w)}, {len(lo)} and {len(hi)}")
    for one_w, one_lo, one_hi in zip(w, lo, hi, strict=True):
        _check_finite(w=one_w)
        _check_interval(one_lo, one_hi, in_times=True)
    weights, lower, upper = (jnp.asarray(v, jnp.float32) for v in (w, lo, hi))

    def omega(
        *, s: Float[Array, " b"], t: Float[Array, " b"], c: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        inside = (t >= lower[c]) & (t <= upper[c])
        return jnp.where(inside, weights[c], 0.0).astype(t.dtype)

    return omega


def linear(cfg_scale: float) -> OmegaFn:
    """``omega = 2 cfg_scale p - 1``: CFG scale from 0 to 2 cfg_scale (Wang et al., 2024)."""
    _check_finite(cfg_scale=cfg_scale)

    def omega(*, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition) -> Float[Array, " b"]:
        return 2.0 * cfg_scale * (1.0 - t) - 1.0

    return omega


def clamp_linear(cfg_scale: float, cfg_floor: float = 1.0) -> OmegaFn:
    """``omega = max(cfg_floor, 2 cfg_scale p) - 1`` (Wang et al., 2024). 0 and 1: no guidance."""
    return _clamped(linear(cfg_scale), cfg_floor)


def cosine(cfg_scale: float) -> OmegaFn:
    """``omega = cfg_scale (1 - cos(pi p)) - 1`` (Wang et al., 2024)."""
    _check_finite(cfg_scale=cfg_scale)

    def omega(*, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition) -> Float[Array, " b"]:
        return cfg_scale * (1.0 - jnp.cos(math.pi * (1.0 - t))) - 1.0

    return omega


def clamp_cosine(cfg_scale: float, cfg_floor: float = 1.0) -> OmegaFn:
    """``omega = max(cfg_floor, cfg_scale (1 - cos(pi p))) - 1``. 0 and 1: no guidance."""
    return _clamped(cosine(cfg_scale), cfg_floor)


def power_cosine(cfg_scale: float, power: float) -> OmegaFn:
    """``omega = (cfg_scale / 2) (1 - cos(pi p^power)) - 1`` (Gao et al., 2023)."""
    _check_finite(cfg_scale=cfg_scale, power=power)
    if power <= 0.0:
        raise ValueError(f"expected power > 0, got {power}")

    def omega(*, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition) -> Float[Array, " b"]:
        return 0.5 * cfg_scale * (1.0 - jnp.cos(math.pi * (1.0 - t) ** power)) - 1.0

    return omega


def _clamped(rising: OmegaFn, cfg_floor: float) -> OmegaFn:
    _check_finite(cfg_floor=cfg_floor)

    def omega(*, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition) -> Float[Array, " b"]:
        return jnp.maximum(rising(s=s, t=t, c=c), cfg_floor - 1.0)

    return omega


def _check_finite(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"expected a finite {name}, got {value}")


def _check_interval(lo: float, hi: float, *, in_times: bool) -> None:
    if not lo < hi:
        raise ValueError(f"expected lo < hi, got lo {lo} and hi {hi}")
    if in_times and not (lo >= 0.0 and hi <= 1.0):
        raise ValueError(f"expected times in [0, 1], got lo {lo} and hi {hi}")
