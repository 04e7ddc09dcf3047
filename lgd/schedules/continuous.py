"""Noise schedules as formulas of t."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.types import Schedule

LOGSNR_LIMIT = 20.0

Times = Float[Array, "*s"]


@dataclasses.dataclass(frozen=True)
class RectifiedFlow:
    """Schedule of straight paths, ``alpha = 1 - t, sigma = t``.

    Liu et al., 2022, arXiv 2209.03003; Lipman et al., 2022, arXiv 2210.02747.
    """

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
    """Variance-preserving schedule ``alpha = cos(pi t / 2), sigma = sin(pi t / 2)``.

    Nichol & Dhariwal, 2021, arXiv 2102.09672, Eq. 17 with offset 0.
    """

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
    """Variance-preserving schedule ``alpha^2 = exp(-B), sigma^2 = 1 - exp(-B)``, B' linear in t.

    ``B(t) = beta_min t + (beta_max - beta_min) t^2 / 2`` (Ho et al., 2020, arXiv 2006.11239;
    Song et al., 2021, arXiv 2011.13456, Appendix C). sigma grows like sqrt(t) at t = 0, where its
    derivative is infinite; `rates` returns 0 there.

    Raises:
      ValueError: unless 0 < beta_min < beta_max.
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
    """Variance-exploding schedule ``alpha = 1, sigma(t) = (lo + t (hi - lo))^rho``.

    lo and hi are the rho-th roots of sigma_min and sigma_max (Karras et al., 2022,
    arXiv 2206.00364, Eq. 5, with t = 1 the largest noise). sigma(0) = sigma_min > 0: samplers end
    by returning x0_hat.

    Raises:
      ValueError: unless 0 < sigma_min < sigma_max and rho > 0.
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
    """Return the schedule of straight paths ``alpha = 1 - t, sigma = t``; see `RectifiedFlow`.

    >>> import jax.numpy as jnp
    >>> from lgd import schedules
    >>> schedule = schedules.rectified_flow()
    >>> schedule.alpha(jnp.array([0.0, 0.25, 1.0])).tolist()
    [1.0, 0.75, 0.0]
    >>> schedule.logsnr(jnp.array(0.5)).item()
    0.0
    """
    return RectifiedFlow()


def cosine() -> Schedule:
    """Return the schedule ``alpha = cos(pi t / 2), sigma = sin(pi t / 2)``; see `Cosine`."""
    return Cosine()


def linear_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """Return the schedule whose rate rises linearly from beta_min to beta_max; see `LinearVP`."""
    return LinearVP(beta_min, beta_max)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """Return the schedule of EDM, where t is uniform in ``sigma^(1/rho)``; see `EDM`.

    >>> import jax.numpy as jnp
    >>> from lgd import schedules
    >>> schedule = schedules.edm(sigma_min=0.25, sigma_max=4.0, rho=2.0)
    >>> sigma = schedule.sigma(jnp.array([0.0, 0.5, 1.0]))
    >>> [round(value, 4) for value in sigma.tolist()]  # squares of 0.5, 1.25 and 2
    [0.25, 1.5625, 4.0]
    """
    return EDM(sigma_min, sigma_max, rho)


BY_NAME = {
    "rectified_flow": rectified_flow,
    "cosine": cosine,
    "linear_vp": linear_vp,
    "edm": edm,
}


def clipped_logsnr(schedule: Schedule, t: Times) -> Times:
    """Return logsnr(t), in nats, clipped to [-20, 20].

    t itself is clipped to where logsnr is in that range, so that gradients stay finite at t = 0
    and t = 1.
    """
    ends = schedule.t_from_logsnr(jnp.asarray([LOGSNR_LIMIT, -LOGSNR_LIMIT], t.dtype))
    inside = schedule.logsnr(jnp.clip(t, ends[0], ends[1]))
    return jnp.clip(inside, -LOGSNR_LIMIT, LOGSNR_LIMIT)


def rates(schedule: Schedule, t: Times) -> tuple[Times, Times]:
    """Return the time derivatives ``(alpha'(t), sigma'(t))``, each of the shape of t."""
    ones = jnp.ones_like(t)
    return (
        jax.jvp(schedule.alpha, (t,), (ones,))[1],
        jax.jvp(schedule.sigma, (t,), (ones,))[1],
    )
