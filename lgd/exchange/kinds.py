"""Kinds of schedules in files: what an entry of each holds, and how it becomes a schedule.

Every family of `guidance.FAMILIES` is a kind; ``table`` and ``guidance`` are two more.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgd import guidance, omega
from lgd.guidance.families import LIMIT, Family
from lgd.machinery.words import one_line, shown
from lgd.types import Condition, OmegaFn

_MAX_ERROR = 1000  # characters
_MAX_SHOWN = 100  # mistakes in one message, of together at most
_MAX_MESSAGE = 10_000  # characters

Check = Callable[[Any], Any]  # the value of a field -> the same, checked; raises ValueError


class ScheduleError(ValueError):
    """Everything that is wrong with the schedules asked for, one line each."""

    def __init__(self, errors: Sequence[str]) -> None:
        lengths = itertools.accumulate(len(error) + 1 for error in errors[:_MAX_SHOWN])
        count = max(1, sum(length <= _MAX_MESSAGE for length in lengths))
        more = [f"and {len(errors) - count} more"] if len(errors) > count else []
        super().__init__("\n".join([*errors[:count], *more]))
        self.errors = list(errors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """How an entry of one kind becomes a schedule.

    make: a function of the fields by name, and of what ``takes`` names: "schedule", the noise
    schedule, and "num_strata", the number of labels of the examples, or None. It raises ValueError
    or OSError. fields: the check of each. optional: the fields that ``make`` has defaults for.
    """

    make: Callable[..., OmegaFn]
    fields: Mapping[str, Check]
    optional: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()


def kinds() -> dict[str, Kind]:
    """The kinds of the library by name; they read a file of guidance once."""
    table = Kind(
        make=_table,
        fields={"times": _times, "values": _rows},
        takes=frozenset({"num_strata"}),
    )
    saved = Kind(make=_once(_guidance), fields={"file": text}, takes=frozenset({"num_strata"}))
    families = {name: _of_family(family) for name, family in guidance.FAMILIES.items()}
    return families | {"table": table, "guidance": saved}


def make_schedule(
    known: Mapping[str, Kind], context: Mapping[str, Any], name: Any, values: Mapping[str, Any]
) -> OmegaFn:
    """The schedule of a kind with the values of an entry.

    Args:
      known: kinds by name.
      context: what kinds may take beside the values: "schedule" and "num_strata".
      name: that of the kind, of any type.
      values: by field.

    Raises:
      ScheduleError: with every mistake, without the place of the entry.
    """
    if not isinstance(name, str) or name not in known:
        raise ScheduleError([f"kind: expected one of {', '.join(known)}, got {shown(name)}"])
    kind, arguments, errors = known[name], {}, []
    for field, check in kind.fields.items():
        try:
            if field in values:
                arguments[field] = check(values[field])
            elif field not in kind.optional:
                raise ValueError("expected a value, got nothing")
        except ValueError as wrong:
            errors.append(f"{field}: {wrong}")
    if others := [field for field in values if field not in kind.fields]:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        fields = ", ".join(kind.fields)
        errors.append(f"expected the fields {fields}, got also {shown(others[0])}{more}")
    if "schedule" in kind.takes and context["schedule"] is None:
        errors.append(f"kind: expected the noise schedule that {name} needs, got none")
    if errors:
        raise ScheduleError(errors)
    try:
        return kind.make(**arguments, **{field: context[field] for field in kind.takes})
    except (ValueError, OSError) as error:
        raise ScheduleError([one_line(error, limit=_MAX_ERROR)]) from None


def check_strata(count: int, num_strata: int | None) -> None:
    """Raise ValueError unless a schedule with weights for ``count`` labels fits the examples.

    num_strata: the number of labels of the examples; None: their conditions are no labels.
    """
    if num_strata is None:
        raise ValueError(f"expected one schedule for all conditions, got {count} strata")
    if count < num_strata:
        raise ValueError(f"expected at least the {num_strata} strata of the data, got {count}")


def number(low: float, high: float) -> Check:
    """The check of a number from low to high."""

    def check(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # no comparison holds for NaN
            raise ValueError(f"expected a number from {low:g} to {high:g}, got {shown(value)}")
        return float(value)

    return check


def numbers(low: float, high: float) -> Check:
    """The check of a list of numbers from low to high, one or more."""
    check_one = number(low, high)

    def check(value: Any) -> list[float]:
        if not isinstance(value, list) or not value:
            raise ValueError(f"expected a list of numbers, got {shown(value)}")
        return _checked(value, check_one, "number", first=1)

    return check


def whole(low: int) -> Check:
    """The check of an integer of at least low."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(f"expected a whole number >= {low}, got {shown(value)}")
        return value

    return check


def text(value: Any) -> str:
    """The check of a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected text, got {shown(value)}")
    return value


def _checked(values: list[Any], check: Check, what: str, *, first: int) -> list[Any]:
    """The values after a check of each, whose place a mistake names."""
    results = []
    for place, value in enumerate(values, start=first):
        try:
            results.append(check(value))
        except ValueError as wrong:
            raise ValueError(f"{what} {place}: {wrong}") from None
    return results


def _rows(value: Any) -> list[list[float]]:
    """Values of a table: one list of numbers, or one for each stratum."""
    check_row = numbers(-LIMIT, LIMIT)
    if not isinstance(value, list) or not value or not isinstance(value[0], list):
        return [check_row(value)]
    return _checked(value, check_row, "stratum", first=0)


def _times(value: Any) -> list[float]:
    times: list[float] = numbers(0.0, 1.0)(value)
    if len(times) < 2 or not np.all(np.diff(np.asarray(times, np.float32)) < 0.0):
        raise ValueError(f"expected at least two decreasing times, got {shown(value)}")
    return times


def _of_family(family: Family) -> Kind:
    """The kind of a family of hand-made schedules."""

    def make(num_strata: int | None, **values: Any) -> OmegaFn:
        schedule = family.make(**values)
        for name, field in family.fields.items():
            if field.per_stratum and name in values:
                check_strata(len(values[name]), num_strata)
        return schedule

    fields = {
        name: (numbers if field.per_stratum else number)(field.low, field.high)
        for name, field in family.fields.items()
    }
    schedule = {"schedule"} if family.takes_schedule else set()
    takes = frozenset({"num_strata"} | schedule)
    return Kind(make=make, fields=fields, optional=family.optional, takes=takes)


def _table(times: list[float], values: list[list[float]], num_strata: int | None) -> OmegaFn:
    steps, count = len(times) - 1, len(values)
    for stratum, row in enumerate(values):
        if len(row) != steps:
            raise ValueError(
                f"values: expected {steps} numbers, one a step of the times, got {len(row)} "
                f"(stratum {stratum})"
            )
    if count > 1:
        check_strata(count, num_strata)
    rows = omega.ByLabel(count) if count > 1 else omega.One()
    model = omega.StepTable(times=tuple(times), rows=rows)
    return omega.bind(model, {"values": jnp.asarray(values, jnp.float32)})


def _once(make: Callable[..., OmegaFn]) -> Callable[..., OmegaFn]:
    """A function that reads every file once, whether it can or not, and however it is spelled."""
    known: dict[str, OmegaFn | Exception] = {}

    def read(file: str, num_strata: int | None) -> OmegaFn:
        place = os.path.realpath(os.path.expanduser(file))
        if place not in known:
            try:
                known[place] = make(file, num_strata)
            except (ValueError, OSError) as error:
                known[place] = error
        schedule = known[place]
        if isinstance(schedule, Exception):
            raise schedule
        return schedule

    return read


def _guidance(file: str, num_strata: int | None) -> OmegaFn:
    """The omega function of a saved guidance, of labels where the examples have some."""
    from lgd.exchange import files

    omega_fn = files.load(file).omega_fn
    if num_strata is None:
        if _takes(omega_fn, jnp.zeros(1, jnp.int32)) and not _takes(omega_fn, jnp.zeros((1, 1))):
            raise ValueError("expected one schedule for all conditions, got a guidance by label")
    elif not guidance.takes_features(omega_fn):
        labels = jnp.arange(num_strata, dtype=jnp.int32)
        guidance.on_grid(omega_fn, jnp.asarray([1.0, 0.0], jnp.float32), labels)
    return omega_fn


def _takes(omega_fn: Any, c: Condition) -> bool:
    """Whether a learned omega function takes conditions (1, ...) like these."""
    time = jax.ShapeDtypeStruct((1,), jnp.float32)
    count = omega_fn.num_features
    extra = {"features": jnp.zeros((1, count))} if count else {}
    try:
        jax.eval_shape(lambda s, t: omega_fn(s=s, t=t, c=c, **extra), time, time)
    except ValueError:
        return False
    return True
