"""Kinds of schedules in files: what an entry of each takes, checked, and how it is made."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.config import shown
from experiments.studies import learned_schedules
from lgd import guidance, omega
from lgd.types import OmegaFn

LIMIT = 1000.0  # of guidance weights, either sign: beyond it float32 losses overflow


class WrongError(Exception):
    """One mistake in one field."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """How an entry of one kind becomes a schedule: a check for each field, then a maker."""

    make: Callable[..., OmegaFn]
    fields: Mapping[str, Callable[[Any], Any]]
    optional: frozenset[str] = frozenset()
    per_class: Callable[[Mapping[str, Any]], int | None] = lambda fields: None


def _number(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # of nan, nothing holds
            raise WrongError(f"expected a number from {low:g} to {high:g}, got {shown(value)}")
        return float(value)

    return check


def _positive(value: Any) -> float:
    number = _number(0.0, LIMIT)(value)
    if not number > 1e-6:
        raise WrongError(f"expected a number above 1e-06, got {shown(value)}")
    return number


def _numbers(low: float, high: float) -> Callable[[Any], list[float]]:
    each = _number(low, high)

    def check(value: Any) -> list[float]:
        if not isinstance(value, list) or not value:
            raise WrongError(f"expected a list of numbers, got {shown(value)}")
        found = []
        for i, one in enumerate(value, start=1):
            try:
                found.append(each(one))
            except WrongError as wrong:
                raise WrongError(f"number {i}: {wrong}") from None
        return found

    return check


def _rows(value: Any) -> list[list[float]]:
    """Values of a table: one list of numbers, or one for each class."""
    check = _numbers(-LIMIT, LIMIT)
    if not isinstance(value, list) or not value or not isinstance(value[0], list):
        return [check(value)]
    found = []
    for label, row in enumerate(value):
        try:
            found.append(check(row))
        except WrongError as wrong:
            raise WrongError(f"class {label}: {wrong}") from None
    return found


def _times(value: Any) -> list[float]:
    times = _numbers(0.0, 1.0)(value)
    as_used = np.asarray(times, np.float32)
    if len(times) < 2 or not np.all(np.diff(as_used) < 0.0):
        raise WrongError(f"expected at least two decreasing times, got {shown(value)}")
    return times


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise WrongError(f"expected text, got {shown(value)}")
    return value


def _step(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WrongError(f"expected a step of training, got {shown(value)}")
    return value


def _table(times: list[float], values: list[list[float]]) -> OmegaFn:
    steps = len(times) - 1
    for label, row in enumerate(values):
        if len(row) != steps:
            raise WrongError(
                f"values: expected {steps} numbers, one a step of the times, got {len(row)} "
                f"(class {label})"
            )
    rows = omega.ByLabel(len(values)) if len(values) > 1 else omega.One()
    model = omega.StepTable(times=tuple(times), rows=rows)
    return omega.bind(model, {"values": jnp.asarray(values, jnp.float32)})


_weight, _time = _number(-LIMIT, LIMIT), _number(0.0, 1.0)
_weights, _fractions = _numbers(-LIMIT, LIMIT), _numbers(0.0, 1.0)
KINDS: dict[str, Kind] = {
    "constant": Kind(make=guidance.constant, fields={"w": _weight}),
    "limited_interval": Kind(
        make=guidance.limited_interval, fields={"w": _weight, "lo": _time, "hi": _time}
    ),
    "limited_interval_per_class": Kind(
        make=guidance.limited_interval_per_class,
        fields={"w": _weights, "lo": _fractions, "hi": _fractions},
        per_class=lambda fields: len(fields["w"]),
    ),
    "clamp_linear": Kind(
        make=guidance.clamp_linear,
        fields={"cfg_scale": _weight, "cfg_floor": _weight},
        optional=frozenset({"cfg_floor"}),
    ),
    "linear": Kind(make=guidance.linear, fields={"cfg_scale": _weight}),
    "cosine": Kind(make=guidance.cosine, fields={"cfg_scale": _weight}),
    "clamp_cosine": Kind(
        make=guidance.clamp_cosine,
        fields={"cfg_scale": _weight, "cfg_floor": _weight},
        optional=frozenset({"cfg_floor"}),
    ),
    "power_cosine": Kind(
        make=guidance.power_cosine, fields={"cfg_scale": _weight, "power": _positive}
    ),
    "table": Kind(
        make=_table,
        fields={"times": _times, "values": _rows},
        per_class=lambda fields: len(fields["values"]) if len(fields["values"]) > 1 else None,
    ),
    "learned": Kind(
        make=learned_schedules.load,
        fields={"workdir": _text, "method": _text, "step": _step},
        optional=frozenset({"step"}),
        per_class=lambda fields: learned_schedules.num_classes(fields["workdir"]),
    ),
}
SHORT = {  # kinds that are numbers only, in the order of a word
    name: tuple(kind.fields)
    for name, kind in KINDS.items()
    if name not in ("limited_interval_per_class", "table", "learned")
}
