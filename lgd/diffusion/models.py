"""What a model must have to be one, and the latest time at which it can be asked."""

import copy
import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.diffusion.kinds import Kind
from lgd.machinery import arguments, digests
from lgd.types import Denoiser, Schedule, t_max

SMALLEST_ALPHA = 1e-3  # relative to alpha(0), where x0 follows from eps or score well enough

_WITHOUT_X0 = ("eps", "score")  # kinds that say nothing of x0 where alpha = 0
_MAPS = ("alpha", "sigma", "logsnr", "t_from_logsnr")
_SCHEDULE = "a noise schedule, for example lgd.schedules.rectified_flow()"
_NUMBERS = itertools.count()
_METHODS = ("schedule", "apply", "null")
_EXAMPLE = "a denoiser, for example lgd.denoisers.from_function(...)"


@dataclasses.dataclass(frozen=True, eq=False)
class HeldSchedule:
    """A copy of a schedule that cannot be hashed, equal to copies of the same description."""

    schedule: Schedule
    description: str

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return self.schedule.alpha(t)

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return self.schedule.sigma(t)

    def logsnr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return self.schedule.logsnr(t)

    def t_from_logsnr(self, logsnr: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return self.schedule.t_from_logsnr(logsnr)

    def __hash__(self) -> int:
        return hash(self.description)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HeldSchedule) and self.description == other.description


def checked_schedule(schedule: Any) -> Schedule:
    """A noise schedule that can be hashed; of one that cannot, such as a plain dataclass, a copy.

    Raises ValueError for what is no schedule.
    """
    arguments.having("schedule", schedule, _MAPS, _SCHEDULE)
    try:
        hash(schedule)
    except TypeError:
        return HeldSchedule(copy.deepcopy(schedule), _described(schedule))
    return schedule


def _described(schedule: Schedule) -> str:
    """The contents of a schedule in words, or a name of its own where they have none."""
    try:
        return digests.describe(schedule)
    except ValueError:
        return f"{type(schedule).__name__} {next(_NUMBERS)}"


def latest_time(schedule: Schedule, kind: Kind) -> float:
    """The latest time, in thousandths, at which x0 follows from a prediction of a kind.

    1, but for eps and score on schedules whose alpha falls below 1e-3: there an error of eps of
    1e-3 becomes one of x0 as large as the data. For rectified flow and cosine it is 0.999.
    """
    if kind not in _WITHOUT_X0:
        return 1.0
    with jax.ensure_compile_time_eval():
        times = np.linspace(0.0, 1.0, 1001)
        alpha = np.asarray(schedule.alpha(jnp.asarray(times, jnp.float32)))
    smallest = SMALLEST_ALPHA * (1.0 - 1e-3) * alpha.max()  # 1 - 0.999 in float32 is below 1e-3
    return float(times[alpha >= smallest][-1])


def check_start(denoiser: Denoiser, times: Any) -> None:
    """Raise ValueError for times (n,), not traced, of which the first is later than `t_max`."""
    if isinstance(times, jax.core.Tracer):
        return
    latest, first = t_max(denoiser), np.asarray(times, np.float32)[0]
    if first > np.float32(latest):
        raise ValueError(
            f"times: expected a first time <= {latest:g}, got {first:g}: alpha is nearly 0 there, "
            "and models of eps or score say nothing of x0; start at "
            f"times=lgd.schedules.uniform_times(25, start={latest:g})"
        )


def checked_denoiser(denoiser: Any) -> Denoiser:
    """A denoiser, which can be hashed. Raises ValueError for anything else."""
    arguments.having("denoiser", denoiser, _METHODS, _EXAMPLE)
    try:
        hash(denoiser)
    except TypeError:
        expected = "a denoiser that can be hashed (a dataclass has frozen=True) and holds no arrays"
        raise ValueError(f"denoiser: expected {expected}, got {type(denoiser).__name__}") from None
    return denoiser
