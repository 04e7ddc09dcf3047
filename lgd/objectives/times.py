"""Laws of the two times of a step, which goes from t to s."""

import dataclasses
import itertools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.omega import Support, grid_support
from lgd.types import PRNGKey


@runtime_checkable
class StepLaw(Protocol):
    """A law of (s, t) given by the density of t and a way to draw s once t is known.

    What was collected at times t of another law serves it too, weighted by the ratio of densities.
    """

    @property
    def support(self) -> Support:
        """The range of (s, t) where the law has mass."""

    def density(self, t: Float[Array, " b"]) -> Float[Array, " b"]:
        """Density of t on [0, 1]; 0 outside the support."""

    def sample_s(self, key: PRNGKey, t: Float[Array, " b"]) -> Float[Array, " b"]:
        """Draw s given times t of positive density."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeLaw:
    """``s ~ U[s_min, 1 - zeta - delta], dt ~ U[delta, 1 - zeta - s], t = s + dt`` (Alg. 1).

    The paper sweeps delta (best about .1) and s_min, and does not state zeta. With
    ``v = 1 - zeta - t`` and ``w = 1 - zeta - delta - s_min``, the density of t is
    ``log(w / v) / w`` for 0 < v < w, and given t, ``1 - zeta - delta - s`` is log-uniform on
    [v, w].

    Args:
      s_min: the smallest s.
      delta: the smallest step t - s.
      zeta: the distance of the largest t from 1.
    """

    s_min: float = 0.01
    delta: float = 0.1
    zeta: float = 0.01

    def __post_init__(self) -> None:
        if min(self.s_min, self.zeta) < 0.0 or self.delta <= 0.0:
            raise ValueError(f"expected s_min, zeta >= 0 and delta > 0, got {self}")
        if self.s_min >= 1.0 - self.zeta - self.delta:
            raise ValueError(f"expected s_min < 1 - zeta - delta, got {self}")

    @property
    def support(self) -> Support:
        """The range of (s, t) where the law has mass."""
        return Support(s_min=self.s_min, t_max=self.t_max, gap_min=self.delta)

    @property
    def t_max(self) -> float:
        """The largest t."""
        return 1.0 - self.zeta

    @property
    def _width(self) -> float:
        return 1.0 - self.zeta - self.delta - self.s_min

    def sample(self, key: PRNGKey, batch: int) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """Draw times s and t, (b,) both."""
        s_key, gap_key = jax.random.split(key)
        s = jax.random.uniform(
            s_key, (batch,), minval=self.s_min, maxval=1.0 - self.zeta - self.delta
        )
        gap = jax.random.uniform(gap_key, (batch,), minval=self.delta, maxval=1.0 - self.zeta - s)
        return s, s + gap

    def sample_t(self, key: PRNGKey, batch: int) -> Float[Array, " b"]:
        """Draw times t alone, (b,)."""
        return self.sample(key, batch)[1]

    def density(self, t: Float[Array, " b"]) -> Float[Array, " b"]:
        """Density of t on [0, 1]; 0 outside the support."""
        v = 1.0 - self.zeta - t
        inside = (v > 0.0) & (v < self._width)
        return jnp.where(inside, jnp.log(self._width / jnp.where(inside, v, 1.0)), 0.0) / (
            self._width
        )

    def sample_s(self, key: PRNGKey, t: Float[Array, " b"]) -> Float[Array, " b"]:
        """Draw s given times t of positive density."""
        v = jnp.clip(1.0 - self.zeta - t, 1e-7, self._width)
        u = jax.random.uniform(key, t.shape)
        s = 1.0 - self.zeta - self.delta - v * (self._width / v) ** u
        return jnp.clip(s, self.s_min, jnp.maximum(self.s_min, t - self.delta))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridLaw:
    """The steps of a sampler: t uniform over the range of a grid of times, s one step below it.

    At a time of the grid s is the next one; between two of them the step is interpolated. s = 0 is
    included, since sampling ends there.

    Args:
      times: the grid, decreasing.
      zeta: the distance of the largest t from 1.
    """

    times: tuple[float, ...]
    zeta: float = 0.001

    def __post_init__(self) -> None:
        if len(self.times) < 2 or any(t <= s for t, s in itertools.pairwise(self.times)):
            raise ValueError(f"expected at least two decreasing times, got {self.times}")
        if not self._lowest < self._highest:
            raise ValueError(f"expected a range of times below 1 - zeta to step from, got {self}")

    @property
    def support(self) -> Support:
        """Range of times and gaps of the grid."""
        return grid_support(self.times)._replace(t_max=self._highest)

    @property
    def _lowest(self) -> float:
        return self.times[-2]

    @property
    def _highest(self) -> float:
        return min(self.times[0], 1.0 - self.zeta)

    def density(self, t: Float[Array, " b"]) -> Float[Array, " b"]:
        """Density of t: uniform from the last but one time of the grid to the first."""
        inside = (t >= self._lowest) & (t <= self._highest)
        return jnp.where(inside, 1.0 / (self._highest - self._lowest), 0.0)

    def sample_s(self, key: PRNGKey, t: Float[Array, " b"]) -> Float[Array, " b"]:
        """The time s that the step from t goes to; nothing is random."""
        ascending = np.asarray(self.times[::-1], np.float32)
        return jnp.interp(t, jnp.asarray(ascending[1:]), jnp.asarray(ascending[:-1]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformTimes:
    """Times t uniform on [t_min, t_max], to collect at when the law of (s, t) is left open."""

    t_min: float = 0.01
    t_max: float = 0.999

    def __post_init__(self) -> None:
        if not 0.0 <= self.t_min < self.t_max <= 1.0:
            raise ValueError(f"expected 0 <= t_min < t_max <= 1, got {self}")

    def sample_t(self, key: PRNGKey, batch: int) -> Float[Array, " b"]:
        """Draw times t, (b,)."""
        return jax.random.uniform(key, (batch,), minval=self.t_min, maxval=self.t_max)

    def density(self, t: Float[Array, " b"]) -> Float[Array, " b"]:
        """Density of t on [0, 1]; 0 outside the support."""
        inside = (t >= self.t_min) & (t <= self.t_max)
        return jnp.where(inside, 1.0 / (self.t_max - self.t_min), 0.0)
