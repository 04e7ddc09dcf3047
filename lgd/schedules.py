"""Noise schedules ``alpha(t), sigma(t), logsnr(t)`` and the grids of times that samplers walk.

Values and derivatives of alpha and sigma are finite on the closed interval [0, 1]; logsnr is
infinite where alpha or sigma vanishes. What feeds a logsnr to a network goes through
`clipped_logsnr`, whose gradient is finite everywhere.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.types import Scalar, Schedule

LOGSNR_LIMIT = 20.0

Times = Float[Array, "*s"]


@dataclasses.dataclass(frozen=True)
class RectifiedFlow:
    """``alpha = 1 - t, sigma = t`` (Liu et al., 2022; Lipman et al., 2022)."""

    def alpha(self, t: Times) -> Times:
        return 1.0 - t

    def sigma(self, t: Times) -> Times:
        return t

    def logsnr(self, t: Times) -> Times:
        return 2.0 * (jnp.log1p(-t) - jnp.log(t))

    def t_from_logsnr(self, logsnr: Times) -> Times:
        return jax.nn.sigmoid(-0.5 * logsnr)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """``alpha = cos(pi t / 2), sigma = sin(pi t / 2)`` (Nichol & Dhariwal, 2021; no offset)."""

    def alpha(self, t: Times) -> Times:
        return jnp.sin(0.5 * math.pi * (1.0 - t))  # exactly 0 at t = 1, which cos is not

    def sigma(self, t: Times) -> Times:
        return jnp.sin(0.5 * math.pi * t)

    def logsnr(self, t: Times) -> Times:
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def t_from_logsnr(self, logsnr: Times) -> Times:
        return 2.0 / math.pi * jnp.arctan(jnp.exp(-0.5 * logsnr))


@dataclasses.dataclass(frozen=True)
class LinearVP:
    """Variance preserving with a rate linear in t: ``alpha^2 = exp(-B), sigma^2 = 1 - exp(-B)``.

    ``B(t) = beta_min t + (beta_max - beta_min) t^2 / 2`` (Song et al., 2021; Ho et al., 2020).
    sigma grows like sqrt(t) at 0, where its derivative is infinite; 0 is returned there.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0.0 < self.beta_min < self.beta_max:
            raise ValueError(
                f"expected 0 < beta_min < beta_max, got {self.beta_min} and {self.beta_max}"
            )

    def _rate_integral(self, t: Times) -> Times:
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def alpha(self, t: Times) -> Times:
        return jnp.exp(-0.5 * self._rate_integral(t))

    def sigma(self, t: Times) -> Times:
        variance = -jnp.expm1(-self._rate_integral(t))
        positive = variance > 0.0
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)

    def logsnr(self, t: Times) -> Times:
        integral = self._rate_integral(t)
        return -integral - jnp.log(-jnp.expm1(-integral))

    def t_from_logsnr(self, logsnr: Times) -> Times:
        integral = jax.nn.softplus(-logsnr)
        slope = 2.0 * (self.beta_max - self.beta_min)
        return 2.0 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + slope * integral))


@dataclasses.dataclass(frozen=True)
class EDM:
    """``alpha = 1, sigma(t) = (lo + t (hi - lo))^rho``, lo, hi = the rho-th roots of the ends.

    Karras et al. (2022), Eq. 5, with t = 1 the largest noise. sigma(0) = sigma_min > 0: samplers
    end by returning x0_hat.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}"
            )
        if not self.rho > 0.0:
            raise ValueError(f"expected rho > 0, got {self.rho}")

    def _root_ends(self) -> tuple[float, float]:
        return self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)

    def alpha(self, t: Times) -> Times:
        return jnp.ones_like(t)

    def sigma(self, t: Times) -> Times:
        lo, hi = self._root_ends()
        return (lo + t * (hi - lo)) ** self.rho

    def logsnr(self, t: Times) -> Times:
        lo, hi = self._root_ends()
        return -2.0 * self.rho * jnp.log(lo + t * (hi - lo))

    def t_from_logsnr(self, logsnr: Times) -> Times:
        lo, hi = self._root_ends()
        return (jnp.exp(-0.5 * logsnr / self.rho) - lo) / (hi - lo)


def rectified_flow() -> Schedule:
    """Straight paths: ``alpha = 1 - t, sigma = t``."""
    return RectifiedFlow()


def cosine() -> Schedule:
    """Cosine variance-preserving schedule."""
    return Cosine()


def linear_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """Variance-preserving schedule whose rate goes linearly from beta_min to beta_max."""
    return LinearVP(beta_min, beta_max)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """Variance-exploding schedule of EDM, uniform in ``sigma^(1/rho)``."""
    return EDM(sigma_min, sigma_max, rho)


BY_NAME = {
    "rectified_flow": rectified_flow,
    "cosine": cosine,
    "linear_vp": linear_vp,
    "edm": edm,
}


def clipped_logsnr(schedule: Schedule, t: Times) -> Times:
    """logsnr(t) within [-20, 20]; t is clipped, so that gradients stay finite at both ends."""
    ends = schedule.t_from_logsnr(jnp.asarray([LOGSNR_LIMIT, -LOGSNR_LIMIT], t.dtype))
    inside = schedule.logsnr(jnp.clip(t, ends[0], ends[1]))
    return jnp.clip(inside, -LOGSNR_LIMIT, LOGSNR_LIMIT)


def rates(schedule: Schedule, t: Times) -> tuple[Times, Times]:
    """Time derivatives ``(alpha'(t), sigma'(t))``."""
    ones = jnp.ones_like(t)
    return (
        jax.jvp(schedule.alpha, (t,), (ones,))[1],
        jax.jvp(schedule.sigma, (t,), (ones,))[1],
    )


def uniform_times(num_steps: int, *, start: Scalar = 1.0, end: Scalar = 0.0) -> Float[Array, " n"]:
    """num_steps + 1 decreasing times, equally spaced from start to end."""
    _check_grid(num_steps, start, end)
    return jnp.linspace(start, end, num_steps + 1)


def logsnr_times(
    num_steps: int, schedule: Schedule, *, start: Scalar = 1.0, end: Scalar = 0.0
) -> Float[Array, " n"]:
    """num_steps + 1 decreasing times, interior ones equally spaced in logsnr.

    The range of logsnr is clipped to [-20, 20], where a schedule is infinite at its ends; the first
    and last times are start and end exactly.
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
    """num_steps + 1 decreasing times: EDM's rho grid of noise-to-data ratios, then 0.

    Karras et al. (2022), Eq. 5: ``sigma_i = (hi + i/(N-1) (lo - hi))^rho`` for i < N; the ratio
    sigma/alpha of the given schedule takes these values, and the last time is 0. Raises ValueError
    where the schedule does not reach sigma_max, or reaches sigma_min only at t = 0: on `edm` with
    its own ends the rho grid is `uniform_times`.
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
