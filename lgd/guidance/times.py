"""Times of a grid as users write them, and the share of its noise that a step keeps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from lgd.machinery.arguments import wrong
from lgd.machinery.words import shown
from lgd.types import Schedule

ROUNDING = 2e-6  # of a bound of size 1: a time or a logsnr of a grid is off by some float32 steps
SMALLEST_LOG_RATIO = -80.0  # exp of it is a float32, and 1 beside it


def checked_times(times: ArrayLike | Sequence[float]) -> Float[Array, " n"]:
    """A grid of times as float32; traced ones are checked for their shape alone.

    Raises ValueError unless there are at least two, which decrease within [0, 1].
    """
    if isinstance(times, jax.core.Tracer):
        if times.ndim != 1 or len(times) < 2:
            raise wrong("times", "at least two decreasing times", times)
        return times.astype(jnp.float32)
    try:
        grid = np.asarray(times)
        grid = grid if grid.dtype == object else grid.astype(np.float32)
    except (TypeError, ValueError):  # words, lists of different lengths, traced entries
        raise wrong("times", "at least two decreasing times", times) from None
    if grid.dtype != np.float32 or grid.ndim != 1 or len(grid) < 2:
        raise wrong("times", "at least two decreasing times", times)
    rising = np.flatnonzero(~(np.diff(grid) < 0))
    if rising.size:
        pair = shown(grid[rising[0] : rising[0] + 2].tolist())
        raise ValueError(f"times: expected at least two decreasing times, got {pair} among them")
    if not 0.0 <= grid[-1] < grid[0] <= 1.0:
        raise ValueError(f"times: expected times within [0, 1], got {grid[0]} to {grid[-1]}")
    return jnp.asarray(grid)


def inside(x: Float[Array, " b"], lo: ArrayLike, hi: ArrayLike) -> Bool[Array, " b"]:
    """Whether lo <= x <= hi, both ends included up to rounding."""
    return (x >= rounded_down(lo).astype(x.dtype)) & (x <= rounded_up(hi).astype(x.dtype))


def rounded_down(bound: ArrayLike) -> Float[Array, "..."]:
    """The least float32 that is the bound up to rounding: what a grid may hold in its place."""
    bound = jnp.asarray(bound, jnp.float32)
    return jnp.where(jnp.isinf(bound), bound, bound - ROUNDING * jnp.maximum(1.0, jnp.abs(bound)))


def rounded_up(bound: ArrayLike) -> Float[Array, "..."]:
    """The largest float32 that is the bound up to rounding."""
    return -rounded_down(-jnp.asarray(bound, jnp.float32))


def log_noise_ratio(
    s: Float[Array, " b"], t: Float[Array, " b"], schedule: Schedule
) -> Float[Array, " b"]:
    """``log r``, r the noise over the signal at s over that at t; -80 stands for r = 0.

    r = 0 where s = 0: samplers end by returning x0_hat, whatever noise the schedule has there.
    """
    ratio = 0.5 * (schedule.logsnr(t) - schedule.logsnr(s))
    ratio = jnp.where(s == 0.0, SMALLEST_LOG_RATIO, ratio)
    return jnp.clip(ratio, SMALLEST_LOG_RATIO, 0.0)
