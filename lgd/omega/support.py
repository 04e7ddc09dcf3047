"""The range of (s, t) that a weight was trained on, into which queries are clamped."""

import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.guidance.hand_made import checked_bound
from lgd.guidance.times import checked_times
from lgd.machinery.arguments import finite


class Support(NamedTuple):
    """Where (s, t) was seen in training: s >= s_min, t <= t_max, gap_min <= t - s <= gap_max."""

    s_min: float = 0.0
    t_max: float = 1.0
    gap_min: float = 0.0
    gap_max: float = 1.0

    def clamp(
        self, s: Float[Array, " b"], t: Float[Array, " b"]
    ) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """The nearest supported pair that keeps t, where the denoiser is called, if it can."""
        t = jnp.clip(t, self.s_min + self.gap_min, self.t_max)
        s = jnp.clip(s, jnp.maximum(self.s_min, t - self.gap_max), t - self.gap_min)
        return s, t


def grid_support(times: tuple[float, ...]) -> Support:
    """The support of a model trained on the steps of one decreasing grid of times."""
    gaps = [t - s for t, s in itertools.pairwise(times)]
    return Support(s_min=times[-1], t_max=times[0], gap_min=min(gaps), gap_max=max(gaps))


def check_support(support: Support) -> None:
    """Raise ValueError for bounds between which no step lies."""
    s_min, t_max, gap_min, gap_max = (finite(n, v) for n, v in support._asdict().items())
    if not (0.0 <= s_min < t_max <= 1.0 and 0.0 <= gap_min <= gap_max):
        raise ValueError(f"support: expected times and gaps in [0, 1], got {support}")


def checked_grid(times: Any) -> tuple[float, ...]:
    """A grid of times as floats. Raises ValueError unless they decrease within [0, 1]."""
    checked_times(times)
    return tuple(float(t) for t in times)


def check_range(omega_min: float, init_omega: float, omega_max: float) -> None:
    """Raise ValueError unless -1 <= omega_min <= 0 and omega_min < init_omega < omega_max."""
    lowest = finite("omega_min", omega_min, low=-1.0, high=0.0)
    if not lowest < finite("init_omega", init_omega) < checked_bound("omega_max", omega_max):
        raise ValueError(
            f"expected {lowest:g} < init_omega < omega_max, "
            f"got {init_omega} and omega_max {omega_max}"
        )
