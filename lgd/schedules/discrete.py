"""Noise schedules of models that were trained at numbered noise levels, such as Stable Diffusion's.

`Discrete` continues the levels to t in [0, 1]; `timestep` and `time_of` translate between lgd's
time and the number of a level.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

Times = Float[Array, "*s"]
Betas = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
_SNAP = 1e-3  # of a level: a time that float32 rounds is that of the level


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Variance-preserving schedule through N numbered noise levels.

    Level i, from 0, lies at ``t = (i + 1) / N``, and t = 0 is data. Between two levels the ratio
    sigma / alpha is linear in t, as diffusers' Euler and Heun samplers interpolate it, and
    ``alpha^2 + sigma^2 = 1``. Where the last level is pure noise (zero terminal SNR; Lin et al.,
    2023, arXiv 2305.08891), the angle ``arctan(sigma / alpha)`` is linear between the last two.

    ratios: sigma / alpha of the levels, increasing, (N,); the last may be infinite.

    Raises:
      ValueError: for fewer than two levels, or ratios that do not increase from above 0.
    """

    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.asarray((0.0, *self.ratios), np.float64)
        increase = np.diff(values) > 0.0  # false where a value is NaN, or infinite twice
        if len(values) < 3 or not increase.all():
            shown = f"{len(self.ratios)} levels, of ratios {self.ratios[:3]} to {self.ratios[-2:]}"
            raise ValueError(f"expected two or more increasing noise levels above 0, got {shown}")

    def alpha(self, t: Times) -> Times:
        ratio, left = self._parts(t)
        return jnp.where(left < 0.0, jax.lax.rsqrt(1.0 + ratio**2), jnp.sin(left))

    def sigma(self, t: Times) -> Times:
        ratio, left = self._parts(t)
        return jnp.where(left < 0.0, ratio * jax.lax.rsqrt(1.0 + ratio**2), jnp.cos(left))

    def logsnr(self, t: Times) -> Times:
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def t_from_logsnr(self, logsnr: Times) -> Times:
        ratio = jnp.exp(-0.5 * logsnr)
        times, ratios = self._finite()
        inside = jnp.interp(ratio, ratios, times)
        if not self._ends_in_noise:
            return inside
        part = jnp.arctan(1.0 / ratio) / math.atan(1.0 / ratios[-1])  # 1 at the last finite level
        return jnp.where(ratio > ratios[-1], 1.0 - part * (1.0 - times[-1]), inside)

    def _parts(self, t: Times) -> tuple[Times, Times]:
        """The ratio at t; and behind the last finite level the angle that is left to pi / 2."""
        times, ratios = self._finite()
        ratio = jnp.interp(t, times.astype(t.dtype), ratios.astype(t.dtype))
        if not self._ends_in_noise:
            return ratio, jnp.full_like(t, -1.0)
        left = math.atan(1.0 / ratios[-1]) * (1.0 - t) / (1.0 - times[-1])
        return ratio, jnp.where(t > times[-1], left, -1.0)

    def _finite(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and ratios of data and of the levels that are not pure noise."""
        count = len(self.ratios) + (not self._ends_in_noise)
        times = np.arange(count) / len(self.ratios)
        return times, np.asarray((0.0, *self.ratios[: count - 1]))

    @property
    def _ends_in_noise(self) -> bool:
        return math.isinf(self.ratios[-1])


def from_alphas_cumprod(alphas_cumprod: ArrayLike | Sequence[float]) -> Discrete:
    """The schedule of a model with these ``alpha^2``, one for each noise level, decreasing, (N,).

    They are ``scheduler.alphas_cumprod`` of a diffusers scheduler. A last value of 0 is pure noise.

    Raises:
      ValueError: for values outside [0, 1) or that do not decrease.

    >>> import jax.numpy as jnp
    >>> from lgd import schedules
    >>> schedule = schedules.from_alphas_cumprod([0.9, 0.5, 0.1])
    >>> [round(value, 4) for value in (schedule.alpha(jnp.array([0.0, 1/3, 1.0])) ** 2).tolist()]
    [1.0, 0.9, 0.1]
    """
    squares = np.asarray(alphas_cumprod, np.float64)
    if squares.ndim != 1 or not np.all((squares >= 0.0) & (squares < 1.0)):
        raise ValueError(f"alphas_cumprod: expected values (N,) in [0, 1), got {squares.shape}")
    with np.errstate(divide="ignore"):
        return Discrete(tuple(np.sqrt((1.0 - squares) / squares).tolist()))


def discrete(
    num_levels: int = 1000,
    *,
    betas: Betas = "scaled_linear",
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    zero_terminal_snr: bool = False,
) -> Discrete:
    """The schedule of DDPM-like models by the names of diffusers' schedulers.

    ``alpha_i^2 = prod_{j <= i} (1 - beta_j)``; the defaults are Stable Diffusion's.

    Args:
      num_levels: number of noise levels, N.
      betas: "linear" (Ho et al., 2020, arXiv 2006.11239), "scaled_linear", linear in sqrt(beta)
        (Rombach et al., 2022, arXiv 2112.10752), or "squaredcos_cap_v2" (Nichol & Dhariwal, 2021,
        arXiv 2102.09672, Eq. 17, betas capped at .999).
      beta_start: the first beta, of the linear ones.
      beta_end: the last beta, of the linear ones.
      zero_terminal_snr: scale and shift alpha such that the last level is pure noise (Lin et al.,
        2023, arXiv 2305.08891, Algorithm 1).

    Raises:
      ValueError: for another name, or betas outside (0, 1).
    """
    if num_levels < 2:
        raise ValueError(f"num_levels: expected 2 or more, got {num_levels}")
    if betas == "linear":
        each = np.linspace(beta_start, beta_end, num_levels)
    elif betas == "scaled_linear":
        each = np.linspace(beta_start**0.5, beta_end**0.5, num_levels) ** 2
    elif betas == "squaredcos_cap_v2":
        at = np.arange(num_levels + 1) / num_levels
        bar = np.cos((at + 0.008) / 1.008 * math.pi / 2.0) ** 2
        each = np.minimum(1.0 - bar[1:] / bar[:-1], 0.999)
    else:
        raise ValueError(f"betas: expected one of {', '.join(get_args(Betas))}, got {betas!r}")
    if not np.all((each > 0.0) & (each < 1.0)):
        raise ValueError(f"expected betas in (0, 1), got {each.min():g} to {each.max():g}")
    alphas = np.sqrt(np.cumprod(1.0 - each))
    if zero_terminal_snr:
        alphas = (alphas - alphas[-1]) * (alphas[0] / (alphas[0] - alphas[-1]))
    return from_alphas_cumprod(alphas**2)


def timestep(t: Any, num_levels: int) -> Any:
    """The number of the noise level at t, ``N t - 1`` and at least 0, as models take it.

    Levels in between have fractions. A time that is that of a level up to rounding gives a whole
    number, so that a model that truncates does not see the level before. An array of t gives an
    array, and a tensor of PyTorch a tensor, as `lgd.exchange.torch.from_module` needs it.

    >>> import jax.numpy as jnp
    >>> from lgd import schedules
    >>> schedules.timestep(jnp.array([0.001, 0.4985, 1.0]), 1000).tolist()
    [0.0, 497.5, 999.0]
    """
    level = num_levels * (t if hasattr(t, "clip") else jnp.asarray(t)) - 1.0
    rest = level - level.round()
    return (level - rest * (abs(rest) < _SNAP)).clip(0.0)


def time_of(timestep: ArrayLike, num_levels: int) -> Times:
    """The time ``(i + 1) / N`` of noise level i, the inverse of `timestep`."""
    return (jnp.asarray(timestep, jnp.float32) + 1.0) / num_levels
