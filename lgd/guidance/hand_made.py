"""Guidance schedules written by hand: constants, intervals, ramps.

A schedule is a frozen `HandMade`: the name of its family, its values, and the formula they make,
called as ``omega(*, s, t, c) -> (b,)`` with the times that a step goes to and from and the
condition. Below, ``p = 1 - t`` is the progress of sampling at the start of the step.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import encoders
from lgd.guidance.times import inside
from lgd.machinery import arguments
from lgd.types import Condition, Schedule

Formula = Callable[..., Float[Array, "b *k"]]  # (s, t, c) -> (b,)


@dataclasses.dataclass(frozen=True)
class HandMade:
    """A schedule of a family, for example ``constant(w=0.2)``.

    values: pairs of name and value; a tuple holds one value for each stratum. Schedules are equal
    where family and values are. num_directions: size of the last axis of omega, if above 1. varies:
    whether omega depends on the times or on the condition.
    """

    family: str
    values: tuple[tuple[str, Any], ...]
    formula: Formula = dataclasses.field(compare=False, repr=False)
    num_directions: int = 1
    varies: bool = dataclasses.field(default=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Numbers become floats, so that equal schedules have equal descriptions."""
        values = tuple((name, _as_float(value)) for name, value in self.values)
        object.__setattr__(self, "values", values)

    def __call__(
        self, *, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition
    ) -> Float[Array, "b *k"]:
        """omega(s, t, c) of every query, (b,), or (b, k) for k directions."""
        return self.formula(s, t, c)

    @property
    def num_features(self) -> int:
        """Number of features of the predictions that it takes: none."""
        return 0

    @property
    def schedule(self) -> Schedule | None:
        """The noise schedule that the formula reads; None: none."""
        return dict(self.values).get("schedule")

    @property
    def params(self) -> dict[str, Any]:
        """The values by name, a list where there is one for each stratum."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in self.values}

    @property
    def description(self) -> str:
        """The family with all its values in full, which names the schedule."""
        return f"{self.family}({', '.join(f'{name}={value!r}' for name, value in self.values)})"

    def __str__(self) -> str:
        shown = [
            f"{v:.12g}" if isinstance(v, float) else "..." if isinstance(v, tuple) else str(v)
            for _, v in self.values
        ]
        return f"{self.family}({', '.join(shown)})"


def constant(w: float) -> HandMade:
    """``omega = w`` everywhere; 0: no guidance.

    >>> import lgd
    >>> str(lgd.guidance.constant(0.5))
    'constant(0.5)'
    """
    check_finite(w=w)
    return HandMade("constant", (("w", w),), lambda s, t, c: jnp.full_like(t, w), varies=False)


def limited_interval(w: float, lo: float, hi: float) -> HandMade:
    """``omega = w`` where lo <= t <= hi, else 0; w = 0: no guidance.

    lo and hi are times in [0, 1], both ends included (Kynkäänniemi et al., 2024, arXiv 2404.07724),
    also where a time of a grid is an end up to rounding. Raises ValueError unless lo < hi.
    """
    check_finite(w=w)
    check_interval(lo, hi, in_times=True)

    def formula(s: Array, t: Array, c: Condition) -> Array:
        return jnp.where(inside(t, lo, hi), w, 0.0).astype(t.dtype)

    return HandMade("limited_interval", (("w", w), ("lo", lo), ("hi", hi)), formula)


def limited_interval_per_class(
    w: Sequence[float], lo: Sequence[float], hi: Sequence[float]
) -> HandMade:
    """`limited_interval` with its own (w, lo, hi) for each label; c are labels (b,).

    A label without an interval gets NaN. Raises ValueError for lists of different lengths.
    """
    for name, each in (("w", w), ("lo", lo), ("hi", hi)):
        if not isinstance(each, list | tuple | np.ndarray | jax.Array) or not np.size(each):
            raise arguments.wrong(name, "a list with a number for each label", each)
    if not len(w) == len(lo) == len(hi):
        raise ValueError(f"expected equal lengths, got {len(w)}, {len(lo)} and {len(hi)}")
    for one_w, one_lo, one_hi in zip(w, lo, hi, strict=True):
        check_finite(w=one_w)
        check_interval(one_lo, one_hi, in_times=True)
    values = tuple(tuple(float(one) for one in each) for each in (w, lo, hi))

    def formula(s: Array, t: Array, c: Condition) -> Array:
        weight, lower, upper = (_at_label(jnp.asarray(each, jnp.float32), c) for each in values)
        omega = jnp.where(inside(t, lower, upper), weight, 0.0)
        return jnp.where(jnp.isnan(weight), jnp.nan, omega).astype(t.dtype)

    pairs = tuple(zip(("w", "lo", "hi"), values, strict=True))
    return HandMade("limited_interval_per_class", pairs, formula)


def logsnr_interval(w: float, lo: float, hi: float, *, schedule: Schedule) -> HandMade:
    """``omega = w`` where lo <= logsnr(t) <= hi, else 0; w = 0: no guidance.

    Bounds on the log signal-to-noise ratio of the noise schedule, which may be infinite.
    Raises ValueError unless lo < hi.
    """
    check_finite(w=w)
    check_interval(lo, hi, in_times=False)
    check_schedule_value(schedule)

    def formula(s: Array, t: Array, c: Condition) -> Array:
        return jnp.where(inside(schedule.logsnr(t), lo, hi), w, 0.0).astype(t.dtype)

    values = (("w", w), ("lo", lo), ("hi", hi), ("schedule", schedule))
    return HandMade("logsnr_interval", values, formula)


def linear(cfg_scale: float) -> HandMade:
    """``omega = 2 cfg_scale p - 1``: CFG scale from 0 to 2 cfg_scale (Wang et al., 2024)."""
    check_finite(cfg_scale=cfg_scale)
    return HandMade("linear", (("cfg_scale", cfg_scale),), lambda s, t, c: _linear(cfg_scale, t))


def clamp_linear(cfg_scale: float, cfg_floor: float = 1.0) -> HandMade:
    """``omega = max(cfg_floor, 2 cfg_scale p) - 1`` (Wang et al., 2024). 0 and 1: no guidance."""
    check_finite(cfg_scale=cfg_scale, cfg_floor=cfg_floor)

    def formula(s: Array, t: Array, c: Condition) -> Array:
        return jnp.maximum(_linear(cfg_scale, t), cfg_floor - 1.0)

    return HandMade("clamp_linear", _scale_and_floor(cfg_scale, cfg_floor), formula)


def cosine(cfg_scale: float) -> HandMade:
    """``omega = cfg_scale (1 - cos(pi p)) - 1`` (Wang et al., 2024, arXiv 2404.13040)."""
    check_finite(cfg_scale=cfg_scale)
    return HandMade("cosine", (("cfg_scale", cfg_scale),), lambda s, t, c: _cosine(cfg_scale, t))


def clamp_cosine(cfg_scale: float, cfg_floor: float = 1.0) -> HandMade:
    """``omega = max(cfg_floor, cfg_scale (1 - cos(pi p))) - 1``. 0 and 1: no guidance."""
    check_finite(cfg_scale=cfg_scale, cfg_floor=cfg_floor)

    def formula(s: Array, t: Array, c: Condition) -> Array:
        return jnp.maximum(_cosine(cfg_scale, t), cfg_floor - 1.0)

    return HandMade("clamp_cosine", _scale_and_floor(cfg_scale, cfg_floor), formula)


def power_cosine(cfg_scale: float, power: float) -> HandMade:
    """``omega = (cfg_scale / 2) (1 - cos(pi p^power)) - 1`` (Gao et al., 2023, arXiv 2303.14389).

    Raises ValueError unless power > 0.
    """
    check_finite(cfg_scale=cfg_scale, power=power)
    if not power > 0.0:
        raise ValueError(f"expected power > 0, got {power}")

    def formula(s: Array, t: Array, c: Condition) -> Array:
        return 0.5 * cfg_scale * (1.0 - jnp.cos(math.pi * (1.0 - t) ** power)) - 1.0

    return HandMade("power_cosine", (("cfg_scale", cfg_scale), ("power", power)), formula)


def constant_directions(w: float, v: float) -> HandMade:
    """``omega = (w, v)`` everywhere, for two directions; 0 and 0: no guidance.

    w weighs ``cond - uncond`` and v ``cond - weaker`` of a `denoisers.Directions` (autoguidance;
    Karras et al., 2024, arXiv 2406.02507).
    """
    check_finite(w=w, v=v)

    def formula(s: Array, t: Array, c: Condition) -> Array:
        return jnp.broadcast_to(jnp.asarray([w, v], t.dtype), (len(t), 2))

    return HandMade("constant_directions", (("w", w), ("v", v)), formula, num_directions=2)


def _linear(cfg_scale: float, t: Float[Array, " b"]) -> Float[Array, " b"]:
    return 2.0 * cfg_scale * (1.0 - t) - 1.0


def _cosine(cfg_scale: float, t: Float[Array, " b"]) -> Float[Array, " b"]:
    return cfg_scale * (1.0 - jnp.cos(math.pi * (1.0 - t))) - 1.0


def _scale_and_floor(cfg_scale: float, cfg_floor: float) -> tuple[tuple[str, float], ...]:
    """Values of a clamped family; the usual floor goes without saying."""
    floor = () if cfg_floor == 1.0 else (("cfg_floor", cfg_floor),)
    return (("cfg_scale", cfg_scale), *floor)


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, int | float | np.number) else value


def _at_label(values: Float[Array, " n"], c: Condition) -> Float[Array, " b"]:
    """Value of every label, NaN for one outside. Raises ValueError for other conditions."""
    if not encoders.is_labels(c):
        raise ValueError(f"c: expected integer labels (b,), got {encoders.shown(c)}")
    outside = (c < 0) | (c >= len(values))
    return jnp.where(outside, jnp.nan, values[jnp.where(outside, 0, c)])


def check_finite(**values: float) -> None:
    """Raise ValueError for a value that is no finite number, by its name."""
    for name, value in values.items():
        arguments.finite(name, value)


def checked_bound(name: str, bound: Any) -> Any:
    """A number, infinite at an open end; a traced one as it is. Raises ValueError."""
    is_infinite = isinstance(bound, float | np.floating) and math.isinf(bound)
    return bound if is_infinite else arguments.finite(name, bound)


def check_interval(lo: float, hi: float, *, in_times: bool) -> None:
    """Raise ValueError unless lo < hi, and both in [0, 1] where they are times."""
    if not checked_bound("lo", lo) < checked_bound("hi", hi):
        raise ValueError(f"expected lo < hi, got lo {lo} and hi {hi}")
    if in_times and not (lo >= 0.0 and hi <= 1.0):
        raise ValueError(f"expected times in [0, 1], got lo {lo} and hi {hi}")


def check_schedule_value(schedule: Any) -> None:
    """Raise ValueError unless it is a noise schedule."""
    what = "a noise schedule, for example lgd.schedules.cosine()"
    arguments.having("schedule", schedule, ("alpha", "sigma", "logsnr"), what)
