"""Settings of searches along the path of the sampler, and by its samples."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from lgd import schedules
from lgd.guidance.times import checked_times
from lgd.machinery.arguments import finite, flag, one_of, positive_int, whole, wrong
from lgd.types import FeatureFn

Match = Literal["energy", "moments"]
Policy = Literal["own", "data"]

_COARSE, _COARSE_FEATURES = 16, 8  # weights of the first look at a step


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathSettings:
    """How weights are chosen along the path.

    Args:
      num_steps: uniform steps of the sampler, where times is None.
      times: grid of the sampler, (num_steps + 1,), decreasing.
      num_particles: samples of each stratum that walk, and as many real examples.
      num_sweeps: populations that walk one after another; their weights are averaged.
      match: "energy": the least energy distance; "moments": the means of what is compared and of
        its squares, by least squares (the weak form), at the price of a few derivatives instead of
        many weights.
      policy: "own": samples walk by the weights that they choose; "data": each step starts from
        noised real examples, as with the objectives that look at single steps.
      residuals: while weights are compared, add to every sample the error of the model at a noised
        real example, with a random sign, at the price of a call. A step with ``x0_hat``, a mean, in
        place of a draw loses variance; so weights do not make up for that, and are those of the
        model rather than of the number of steps.
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
    match: Match = "energy"
    policy: Policy = "own"
    residuals: bool = False
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
        one_of("match", self.match, get_args(Match))
        one_of("policy", self.policy, get_args(Policy))
        flag("residuals", self.residuals)
        if finite("beta", self.beta, low=0.0, high=2.0) == 0.0:
            raise ValueError("beta: expected a power in (0, 2], got 0")
        finite("churn", self.churn, low=0.0, high=1.0)
        _check_range(self.omega_min, self.omega_max)
        if self.features is not None and not callable(self.features):
            raise wrong("features", "a function of (n, *dims), or None", self.features)
        flag("progress", self.progress)
        flag("check", self.check)
        if self.times is not None:
            checked_times(self.times)

    @property
    def grid(self) -> tuple[float, ...]:
        """The times of the sampler."""
        return _grid(self.num_steps, self.times)

    @property
    def weights(self) -> Float[np.ndarray, " w"]:
        """The weights of a first look, denser near 0."""
        count = _COARSE if self.features is None else _COARSE_FEATURES
        above = self.omega_max * np.linspace(0.0, 1.0, count) ** 2
        return np.concatenate([[self.omega_min] if self.omega_min < 0.0 else [], above])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How weights are searched by samples.

    Args:
      num_steps: uniform steps of the sampler, where times is None.
      times: grid of the sampler, (num_steps + 1,), decreasing.
      num_knots: weights of a stratum that are searched, evenly over the steps; between them the
        change of omega is linear.
      num_samples: samples of each stratum in a run.
      num_sweeps: how often the search goes through the knots.
      step: first step of a knot, in units of max(1, mean weight of the stratum at the start).
      omega_min: the least weight, in [-1, 0].
      omega_max: the greatest weight.
      seed: of the noise of the first run; later runs count on from it.
      progress: show a bar.
    """

    num_steps: int = 25
    times: Sequence[float] | None = None
    num_knots: int = 7
    num_samples: int = 200
    num_sweeps: int = 4
    step: float = 0.5
    omega_min: float = 0.0
    omega_max: float = 10.0
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_knots", "num_samples", "num_sweeps"):
            positive_int(name, getattr(self, name))
        if finite("step", self.step, low=0.0) == 0.0:
            raise ValueError("step: expected a number above 0, got 0")
        _check_range(self.omega_min, self.omega_max)
        whole("seed", self.seed, low=0)
        flag("progress", self.progress)
        if self.times is not None:
            checked_times(self.times)

    @property
    def grid(self) -> tuple[float, ...]:
        """The times of the sampler."""
        return _grid(self.num_steps, self.times)


def _grid(num_steps: int, times: Sequence[float] | None) -> tuple[float, ...]:
    grid = schedules.uniform_times(num_steps) if times is None else times
    return tuple(float(t) for t in np.asarray(grid))


def _check_range(low: float, high: float) -> None:
    finite("omega_min", low, low=-1.0, high=0.0)
    finite("omega_max", high, low=0.0)
    if not low < high:
        raise ValueError(f"omega_max: expected a number above omega_min = {low:g}, got {high:g}")
