"""Schedules by name: from JSON files, from words on a command line, and back into JSON.

A file holds a list of objects with a name, a kind and what the kind takes::

    [{"name": "late", "kind": "limited_interval", "w": 2.4, "lo": 0.0, "hi": 0.15},
     {"name": "mine", "kind": "table", "times": [1.0, 0.5, 0.0], "values": [0.3, 1.2]},
     {"name": "ours", "kind": "learned", "workdir": "runs/digits", "method": "trajectory"}]

A table has one value for every step of its times, or a list of them for each class, and is
interpolated as `omega.StepTable`. A word is a kind and its numbers, ``limited_interval:2.4:0:0.15``
or ``constant:0.5``; ``default`` is `standard_schedules`. `table_entry` turns any omega function
into an entry of a file. Every mistake is collected; `read` raises one ScheduleError with all.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments import learned_schedules
from experiments.workdir import write_text
from lgd import guidance, omega
from lgd.types import OmegaFn

LIMIT = 1000.0  # of guidance weights, either sign: beyond it float32 losses overflow
_MAX_NAME = 80


class ScheduleError(ValueError):
    """Everything that is wrong with the schedules asked for, one line each."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


class _WrongError(Exception):
    """One mistake in one field."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kind:
    """How an entry of one kind becomes a schedule: a check for each field, then a maker."""

    make: Callable[..., OmegaFn]
    fields: Mapping[str, Callable[[Any], Any]]
    optional: frozenset[str] = frozenset()
    per_class: Callable[[Mapping[str, Any]], int | None] = lambda fields: None


def read(sources: Sequence[str], *, num_classes: int | None) -> dict[str, OmegaFn]:
    """Schedules of all sources by name: paths of JSON files, words such as ``constant:0.5``.

    Args:
      sources: a word that comes twice counts once. Words come before files in the result.
      num_classes: of the examples that the schedules are for; None where conditions are no labels,
        which refuses schedules that differ by class.

    Raises:
      ScheduleError: naming the entry and the field of every mistake.
    """
    found: dict[str, OmegaFn] = {}
    errors: list[str] = []
    files = [source for source in dict.fromkeys(sources) if not _is_word(source)]
    for source in sources:
        if source == "default":
            found |= standard_schedules()
        elif _is_word(source):
            _read_word(source, found, errors)
    for source in files:
        _read_file(source, num_classes, found, errors)
    if errors:
        raise ScheduleError(errors)
    return found


def standard_schedules() -> dict[str, OmegaFn]:
    """Constants, intervals early, in the middle and late, and clamp-linear: 40 schedules."""
    words = [f"constant:{w:g}" for w in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)]
    places = ((0.0, 0.15), (0.0, 0.3), (0.0, 0.5), (0.2, 0.5), (0.2, 0.8), (0.5, 0.8), (0.5, 1.0))
    words += [
        f"limited_interval:{w:g}:{lo:g}:{hi:g}"
        for w, (lo, hi) in itertools.product((0.4, 1.0, 2.4), places)
    ]
    words += [
        f"clamp_linear:{scale:g}" for scale in (0.55, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0)
    ]
    return read(words, num_classes=None)


def table_entry(
    omega_fn: OmegaFn, *, name: str, times: Float[Array, " n"], num_classes: int
) -> dict[str, Any]:
    """An entry of a file with the values of an omega function on a decreasing grid of times.

    On the steps of that grid the table is the function. num_classes = 0: of a function that does
    not look at c.
    """
    c = jnp.arange(max(num_classes, 1), dtype=jnp.int32)
    values = np.asarray(guidance.on_grid(omega_fn, times, c)).T.tolist()
    rows = values if num_classes else values[0]
    return {"name": name, "kind": "table", "times": np.asarray(times).tolist(), "values": rows}


def write(file: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """A file that `read` takes."""
    write_text(file, json.dumps(list(entries), indent=2) + "\n")


def _is_word(source: str) -> bool:
    return source == "default" or source.partition(":")[0] in _SHORT


def _read_word(word: str, found: dict[str, OmegaFn], errors: list[str]) -> None:
    kind, *texts = word.split(":")
    names = _SHORT[kind]
    least = len([name for name in names if name not in _KINDS[kind].optional])
    if not least <= len(texts) <= len(names):
        expected = ":".join([kind, *(name.upper() for name in names)])
        errors.append(f"{word}: expected {expected}, got {len(texts)} numbers")
        return
    values: dict[str, Any] = {}
    for field, text in zip(names, texts, strict=False):
        try:
            values[field] = float(text)
        except ValueError:
            values[field] = text
    made = _made(word, kind, values, None, errors)
    if made is not None:
        found[f"{kind}({', '.join(f'{value:.12g}' for value in values.values())})"] = made


def _read_file(
    source: str, num_classes: int | None, found: dict[str, OmegaFn], errors: list[str]
) -> None:
    try:
        entries = _parsed(source)
    except _WrongError as wrong:
        errors.append(f"{source}: {wrong}")
        return
    for number, entry in enumerate(entries, start=1):
        where = f"{source}: entry {number}"
        if not isinstance(entry, dict):
            errors.append(f"{where}: expected an object, got {_shown(entry)}")
            continue
        entry = dict(entry)
        try:
            name = _name(entry.pop("name", None))
        except _WrongError as wrong:
            errors.append(f"{where}: name: {wrong}")
            continue
        where = f"{where} ({name})"
        if name in found:
            errors.append(f"{where}: name: expected one no other schedule has, got {name!r}")
        made = _made(where, entry.pop("kind", None), entry, num_classes, errors)
        if made is not None:
            found[name] = made


def _parsed(source: str) -> list[Any]:
    expected = "expected a JSON list of schedules"
    try:
        text = Path(source).read_text(encoding="utf-8")
    except FileNotFoundError:
        words = ", ".join(f"{kind}:..." for kind in _SHORT)
        raise _WrongError(
            f"expected a JSON file, default, or one of {words}; got no such file"
        ) from None
    except (OSError, ValueError) as error:
        raise _WrongError(f"{expected}, got {_line(error)}") from None
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _WrongError(f"{expected}, got {_line(error)}") from None
    if not isinstance(entries, list) or not entries:
        raise _WrongError(f"{expected}, got {_shown(entries)}")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} twice in one object")
    return values


def _made(
    where: str,
    kind_name: Any,
    values: Mapping[str, Any],
    num_classes: int | None,
    errors: list[str],
) -> OmegaFn | None:
    """The schedule of an entry; or None, and its mistakes added to the errors."""
    if not isinstance(kind_name, str) or kind_name not in _KINDS:
        errors.append(
            f"{where}: kind: expected one of {', '.join(_KINDS)}, got {_shown(kind_name)}"
        )
        return None
    kind, good, before = _KINDS[kind_name], {}, len(errors)
    for field in [*kind.fields, *(name for name in values if name not in kind.fields)]:
        if field not in kind.fields:
            known = ", ".join(kind.fields)
            errors.append(f"{where}: expected the fields {known}, got also {_shown(field)}")
        elif field in values:
            try:
                good[field] = kind.fields[field](values[field])
            except _WrongError as wrong:
                errors.append(f"{where}: {field}: {wrong}")
        elif field not in kind.optional:
            errors.append(f"{where}: {field}: expected a value, got nothing")
    if len(errors) > before:
        return None
    try:
        made = kind.make(**good)
        _check_classes(kind.per_class(good), num_classes)
    except (_WrongError, ValueError, learned_schedules.LearnedError) as error:
        errors.append(f"{where}: {_line(error, limit=1000)}")
        return None
    return made


def _check_classes(rows: int | None, num_classes: int | None) -> None:
    if rows is None:
        return
    if num_classes is None:
        raise _WrongError(f"expected one schedule for all conditions, got {rows} classes")
    if rows < num_classes:
        raise _WrongError(f"expected at least the {num_classes} classes of the data, got {rows}")


def _name(value: Any) -> str:
    fits = isinstance(value, str) and 0 < len(value) <= _MAX_NAME and value == value.strip()
    if not (fits and value.isprintable() and "|" not in value and value != "unguided"):
        raise _WrongError(
            f"expected up to {_MAX_NAME} printable characters without '|', other than 'unguided' "
            f"(always there), got {_shown(value)}"
        )
    return str(value)


def _number(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # of nan, nothing holds
            raise _WrongError(f"expected a number from {low:g} to {high:g}, got {_shown(value)}")
        return float(value)

    return check


def _positive(value: Any) -> float:
    number = _number(0.0, LIMIT)(value)
    if not number > 1e-6:
        raise _WrongError(f"expected a number above 1e-06, got {_shown(value)}")
    return number


def _numbers(low: float, high: float) -> Callable[[Any], list[float]]:
    each = _number(low, high)

    def check(value: Any) -> list[float]:
        if not isinstance(value, list) or not value:
            raise _WrongError(f"expected a list of numbers, got {_shown(value)}")
        found = []
        for i, one in enumerate(value, start=1):
            try:
                found.append(each(one))
            except _WrongError as wrong:
                raise _WrongError(f"number {i}: {wrong}") from None
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
        except _WrongError as wrong:
            raise _WrongError(f"class {label}: {wrong}") from None
    return found


def _times(value: Any) -> list[float]:
    times = _numbers(0.0, 1.0)(value)
    as_used = np.asarray(times, np.float32)
    if len(times) < 2 or not np.all(np.diff(as_used) < 0.0):
        raise _WrongError(f"expected at least two decreasing times, got {_shown(value)}")
    return times


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _WrongError(f"expected text, got {_shown(value)}")
    return value


def _step(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _WrongError(f"expected a step of training, got {_shown(value)}")
    return value


def _table(times: list[float], values: list[list[float]]) -> OmegaFn:
    steps = len(times) - 1
    for label, row in enumerate(values):
        if len(row) != steps:
            raise _WrongError(
                f"values: expected {steps} numbers, one a step of the times, got {len(row)} "
                f"(class {label})"
            )
    rows = len(values) if len(values) > 1 else 0
    model = omega.StepTable(times=tuple(times), num_classes=rows)
    return omega.bind(model, {"values": jnp.asarray(values, jnp.float32)})


_weight, _time = _number(-LIMIT, LIMIT), _number(0.0, 1.0)
_weights, _fractions = _numbers(-LIMIT, LIMIT), _numbers(0.0, 1.0)
_KINDS: dict[str, _Kind] = {
    "constant": _Kind(make=guidance.constant, fields={"w": _weight}),
    "limited_interval": _Kind(
        make=guidance.limited_interval, fields={"w": _weight, "lo": _time, "hi": _time}
    ),
    "limited_interval_per_class": _Kind(
        make=guidance.limited_interval_per_class,
        fields={"w": _weights, "lo": _fractions, "hi": _fractions},
        per_class=lambda fields: len(fields["w"]),
    ),
    "clamp_linear": _Kind(
        make=guidance.clamp_linear,
        fields={"cfg_scale": _weight, "cfg_floor": _weight},
        optional=frozenset({"cfg_floor"}),
    ),
    "linear": _Kind(make=guidance.linear, fields={"cfg_scale": _weight}),
    "cosine": _Kind(make=guidance.cosine, fields={"cfg_scale": _weight}),
    "clamp_cosine": _Kind(
        make=guidance.clamp_cosine,
        fields={"cfg_scale": _weight, "cfg_floor": _weight},
        optional=frozenset({"cfg_floor"}),
    ),
    "power_cosine": _Kind(
        make=guidance.power_cosine, fields={"cfg_scale": _weight, "power": _positive}
    ),
    "table": _Kind(
        make=_table,
        fields={"times": _times, "values": _rows},
        per_class=lambda fields: len(fields["values"]) if len(fields["values"]) > 1 else None,
    ),
    "learned": _Kind(
        make=learned_schedules.load,
        fields={"workdir": _text, "method": _text, "step": _step},
        optional=frozenset({"step"}),
        per_class=lambda fields: learned_schedules.num_classes(fields["workdir"]),
    ),
}
_SHORT = {  # kinds that are numbers only, in the order of a word
    name: tuple(kind.fields)
    for name, kind in _KINDS.items()
    if name not in ("limited_interval_per_class", "table", "learned")
}


def _shown(value: Any) -> str:
    try:
        return _line(repr(value))
    except ValueError:  # integers of more than 4,300 digits
        return f"a value of type {type(value).__name__}"


def _line(value: Any, limit: int = 120) -> str:
    """One printable line."""
    text = " ".join(str(value).split())
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= limit else f"{text[:limit]}..."
