"""Grids of decreasing times, which samplers walk."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.schedules.continuous import EDM, clipped_logsnr
from lgd.types import Scalar, Schedule


def uniform_times(num_steps: int, *, start: Scalar = 1.0, end: Scalar = 0.0) -> Float[Array, " n"]:
    """Return num_steps + 1 decreasing times, equally spaced from start to end.

    >>> from lgd import schedules
    >>> schedules.uniform_times(4).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]

    Raises:
      ValueError: for num_steps < 1, or unless 0 <= end < start <= 1.
    """
    _check_grid(num_steps, start, end)
    return jnp.linspace(start, end, num_steps + 1)


def logsnr_times(
    num_steps: int, schedule: Schedule, *, start: Scalar = 1.0, end: Scalar = 0.0
) -> Float[Array, " n"]:
    """Return num_steps + 1 decreasing times whose interior is equally spaced in logsnr.

    The first and last times are start and end exactly. The spacing uses `clipped_logsnr`, because
    logsnr may be infinite at 0 and 1.

    Raises:
      ValueError: for num_steps < 1, or unless 0 <= end < start <= 1.
    """
    _check_grid(num_steps, start, end)
    ends = jnp.asarray([start, end], jnp.float32)
    first, last = clipped_logsnr(schedule, ends)
    return _with_ends(schedule.t_from_logsnr(jnp.linspace(first, last, num_steps + 1)), ends)


def edm_times(
    num_steps: int,
    schedule: Schedule,
    *,
    sigma_min: Scalar = 0.002,
    sigma_max: Scalar = 80.0,
    rho: Scalar = 7.0,
) -> Float[Array, " n"]:
    """Return N + 1 decreasing times: EDM's rho grid of N noise-to-data ratios, then 0.

    The ratio sigma/alpha of the schedule takes the values
    ``sigma_i = (hi + i/(N-1) (lo - hi))^rho`` for i < N, with lo and hi the rho-th roots of
    sigma_min and sigma_max (Karras et al., 2022, arXiv 2206.00364, Eq. 5).

    Args:
      num_steps: N, at least 2.
      schedule: the schedule that is sampled from.
      sigma_min: smallest ratio above 0.
      sigma_max: largest ratio, the first one.
      rho: exponent; larger values put more steps at small noise.

    Raises:
      ValueError: where the schedule does not reach sigma_max, or reaches sigma_min only at t = 0.
        The latter holds for `edm` with the same ends, where `uniform_times` is the rho grid.
    """
    if num_steps < 2:
        raise ValueError(f"expected num_steps >= 2, got {num_steps}")
    grid = EDM(float(sigma_min), float(sigma_max), float(rho))
    _check_reach(schedule, grid)
    ratios = grid.sigma(jnp.linspace(1.0, 0.0, num_steps))
    times = jnp.minimum(schedule.t_from_logsnr(-2.0 * jnp.log(ratios)), 1.0)
    return jnp.concatenate([times, jnp.zeros(1)])


def _with_ends(times: Float[Array, " n"], ends: Float[Array, "2"]) -> Float[Array, " n"]:
    return times.at[0].set(ends[0]).at[-1].set(ends[1])


def _check_grid(num_steps: int, start: Scalar, end: Scalar) -> None:
    if num_steps < 1:
        raise ValueError(f"expected num_steps >= 1, got {num_steps}")
    if not 0.0 <= float(end) < float(start) <= 1.0:
        raise ValueError(f"expected 0 <= end < start <= 1, got start {start} and end {end}")


def _check_reach(schedule: Schedule, grid: EDM) -> None:
    with jax.ensure_compile_time_eval():
        ends = jnp.exp(-0.5 * schedule.logsnr(jnp.asarray([0.0, 1.0], jnp.float32)))
        smallest, largest = float(ends[0]), float(ends[1])
    rounding = 1.0 + 1e-4
    if not (smallest * rounding < grid.sigma_min and grid.sigma_max <= largest * rounding):
        raise ValueError(
            f"expected noise-to-data ratios above {smallest} and up to {largest}, the schedule's, "
            f"got {grid.sigma_min} and {grid.sigma_max}"
        )
