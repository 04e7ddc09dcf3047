"""What a model may take other than was declared: times, schedules, ranges of data, labels."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from lgd import schedules
from lgd.types import Schedule


@dataclasses.dataclass(frozen=True)
class World:
    """What a model may take.

    subject: what differs from what was declared; says, advice: in words; time: of (t, schedule);
    runs_back: a velocity has the other sign; schedule: None: as declared; the data that it takes
    are scale x0 + offset; shift: of labels.
    """

    subject: str
    says: str
    advice: str
    time: Callable[[Any, Schedule], Any] = lambda t, schedule: t
    runs_back: bool = False
    schedule: Schedule | None = None
    scale: float = 1.0
    offset: float = 0.0
    shift: int = 0


DECLARED = World("", "", "")


_TIMES = (
    World(
        "time",
        "as if time ran from 0, noise, to 1, data",
        "hand it 1 - t",
        time=lambda t, schedule: 1.0 - t,
        runs_back=True,
    ),
    World(
        "time",
        "as if it took timesteps up to 1000 in place of t in [0, 1]",
        "hand it 1000 * t",
        time=lambda t, schedule: 1000.0 * t,
    ),
    World(
        "time",
        "as if it took timesteps that run back, from 1000, data, to 0, noise",
        "hand it 1000 * (1 - t)",
        time=lambda t, schedule: 1000.0 * (1.0 - t),
        runs_back=True,
    ),
    World(
        "time",
        "as if it took the noise level sigma in place of t",
        "hand it schedule.sigma(t)",
        time=lambda t, schedule: schedule.sigma(t),
    ),
    World(
        "time",
        "as if it took logsnr in place of t",
        "hand it lgd.schedules.clipped_logsnr(schedule, t)",
        time=lambda t, schedule: schedules.clipped_logsnr(schedule, t),
    ),
    World(
        "time",
        "as if it took log(sigma) / 4 in place of t",
        "hand it jnp.log(schedule.sigma(t)) / 4",
        time=lambda t, schedule: 0.25 * jnp.log(schedule.sigma(t)),
    ),
)


_RANGES = (  # scale, offset, what the model takes
    (2.0, -1.0, "2 x0 - 1, as of x0 in [0, 1]"),
    (1.0 / 127.5, -1.0, "x0 / 127.5 - 1, as of x0 in 0..255"),
    (1.0 / 255.0, 0.0, "x0 / 255, as of x0 in 0..255"),
    (0.5, 0.5, "(x0 + 1) / 2, as of x0 in [-1, 1]"),
    (127.5, 127.5, "127.5 (x0 + 1), as of x0 in [-1, 1]"),
    (255.0, 0.0, "255 x0, as of x0 in [0, 1]"),
)


def worlds(
    schedule: Schedule, mean: float, std: float, shifts: tuple[int, ...]
) -> tuple[World, ...]:
    """Worlds that differ from the declared one in one thing.

    Args:
      schedule: the noise schedule that was declared.
      mean: of the numbers of the data.
      std: their standard deviation.
      shifts: of labels that are to be tried.
    """
    processes = [
        World(
            "schedule",
            f"as if its noise schedule were {name}",
            f"pass schedule=lgd.schedules.{name}()",
            schedule=make(),
        )
        for name, make in schedules.BY_NAME.items()
        if make() != schedule
    ]
    standard = (1.0 / std, -mean / std, f"(x0 - {mean:.4g}) / {std:.4g}, standardised data")
    ranges = [rescaled(*each) for each in (*_RANGES, standard)]
    labels = [
        World("labels", f"as if labels were c{shift:+d}", f"pass labels c{shift:+d}", shift=shift)
        for shift in shifts
    ]
    return (*_TIMES, *processes, *ranges, *labels)


def rescaled(scale: float, offset: float, says: str | None = None) -> World:
    """The world of a model whose data are scale x0 + offset."""
    says = (
        f"{scale:.4g} x0 {'+' if offset >= 0 else '-'} {abs(offset):.4g}" if says is None else says
    )
    return World(
        "data",
        f"as if its data were {says}",
        "hand learn_guidance, compare and measures the data that the model was trained on",
        scale=scale,
        offset=offset,
    )
