"""Settings of a search along the sampler's path."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lgd import schedules
from lgd.guidance.times import checked_times
from lgd.machinery.arguments import finite, flag, positive_int, whole, wrong
from lgd.types import FeatureFn

_COARSE, _COARSE_FEATURES = 16, 8  # weights of the first look at a step


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathSettings:
    """How weights are chosen along the path.

    Args:
      num_steps: uniform steps of the sampler, where times is None.
      times: grid of the sampler, (num_steps + 1,), decreasing.
      num_particles: samples of each stratum that walk, and as many real examples.
      num_sweeps: populations that walk one after another; their weights are averaged.
      beta: power of the distances, in (0, 2].
      churn: noise of a step, see `sampling.sample`.
      features: phi(x) (n, *dims) -> (n, f), to compare by; None: the data themselves. Before the
        last step they are taken of x0_hat at s, at the price of a conditional call for each weight
        that is tried.
      omega_min: the least weight, in [-1, 0].
      omega_max: the greatest weight.
      strata_at_once: strata that walk together; memory grows with them.
      progress: show a bar.
      check: see `learn_guidance`.
    """

    num_steps: int = 25
    times: Sequence[float] | None = None
    num_particles: int = 200
    num_sweeps: int = 3
    beta: float = 1.0
    churn: float = 0.0
    features: FeatureFn | None = None
    omega_min: float = 0.0
    omega_max: float = 10.0
    strata_at_once: int = 16
    progress: bool = True
    check: bool = True

    def __post_init__(self) -> None:
        positive_int("num_steps", self.num_steps)
        positive_int("num_sweeps", self.num_sweeps)
        positive_int("strata_at_once", self.strata_at_once)
        whole("num_particles", self.num_particles, low=2)
        if finite("beta", self.beta, low=0.0, high=2.0) == 0.0:
            raise ValueError("beta: expected a power in (0, 2], got 0")
        finite("churn", self.churn, low=0.0, high=1.0)
        finite("omega_max", self.omega_max)
        if self.features is not None and not callable(self.features):
            raise wrong("features", "a function of (n, *dims), or None", self.features)
        flag("progress", self.progress)
        flag("check", self.check)
        if self.times is not None:
            checked_times(self.times)

    @property
    def grid(self) -> tuple[float, ...]:
        """The times of the sampler."""
        grid = schedules.uniform_times(self.num_steps) if self.times is None else self.times
        return tuple(float(t) for t in np.asarray(grid))

    @property
    def weights(self) -> Float[np.ndarray, " w"]:
        """The weights of a first look, denser near 0."""
        count = _COARSE if self.features is None else _COARSE_FEATURES
        above = self.omega_max * np.linspace(0.0, 1.0, count) ** 2
        return np.concatenate([[self.omega_min] if self.omega_min < 0.0 else [], above])
