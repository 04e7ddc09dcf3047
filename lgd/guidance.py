"""Score mixing, and guidance schedules written by hand.

A schedule is a function ``omega(*, s, t, c) -> (b,)`` of the times that a step goes to and from,
each (b,), and of the condition. omega = 0 is plain conditional sampling, omega = -1 unconditional
sampling; tools that speak of a "CFG scale" mean ``cfg_scale = 1 + omega``. Below, ``p = 1 - t`` is
the progress of sampling at the start of the step.
"""

import inspect
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd.types import Condition, OmegaFn, Scalar, Schedule


def mix(
    cond: Float[Array, "b *dims"],
    uncond: Float[Array, "b *dims"],
    omega: Float[Array, " b"] | Scalar,
) -> Float[Array, "b *dims"]:
    """``x0_hat = cond + omega (cond - uncond)``, on x0-predictions (paper, Eq. 7).

    Written from the nearer end, so that omega = 0 is cond and omega = -1 is uncond to the bit.
    """
    omega = jnp.asarray(omega, cond.dtype)
    if omega.ndim:
        omega = omega.reshape(omega.shape + (1,) * (cond.ndim - 1))
    delta = cond - uncond
    return jnp.where(omega < -0.5, uncond + (1.0 + omega) * delta, cond + omega * delta)


PAIR_FEATURES = ("log rms of cond", "log rms of uncond", "log rms of cond - uncond", "cosine")


def pair_features(
    cond: Float[Array, "b *dims"], uncond: Float[Array, "b *dims"]
) -> Float[Array, "b f"]:
    """What omega may know of a pair of predictions: `PAIR_FEATURES`.

    Logarithms of root mean squares over the data's axes, floored at 1e-6, and the cosine of the
    angle between cond and uncond.
    """
    flat = [x.reshape(len(x), -1).astype(jnp.float32) for x in (cond, uncond)]
    flat.append(flat[0] - flat[1])
    rms = [jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(x), axis=-1)), 1e-6) for x in flat]
    cosine = jnp.mean(flat[0] * flat[1], axis=-1) / (rms[0] * rms[1])
    return jnp.stack([*(jnp.log(size) for size in rms), cosine], axis=-1)


def takes_features(omega_fn: OmegaFn) -> bool:
    """Whether it is a function of (s, t, c, features), with `pair_features` (b, f), or without."""
    return "features" in inspect.signature(omega_fn).parameters


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


def on_grid(omega_fn: OmegaFn, times: Float[Array, " n"], c: Condition) -> Float[Array, "k b"]:
    """omega of every step of a grid: (num_steps, b), for times (num_steps + 1,), decreasing."""
    batch = jax.tree.leaves(c)[0].shape[0]

    def one_step(t: Float[Array, ""], s: Float[Array, ""]) -> Float[Array, " b"]:
        return omega_fn(s=jnp.full(batch, s), t=jnp.full(batch, t), c=c)

    return jax.vmap(one_step)(times[:-1], times[1:])


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
