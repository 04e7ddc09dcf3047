"""Schedules by name: from JSON files, from words on a command line, and back into JSON.

A file holds a list of objects with a name, a kind and what the kind takes::

    [{"name": "late", "kind": "limited_interval", "w": 2.4, "lo": 0.0, "hi": 0.15},
     {"name": "mine", "kind": "table", "times": [1.0, 0.5, 0.0], "values": [0.3, 1.2]},
     {"name": "ours", "kind": "guidance", "file": "guidance.safetensors"}]

Every family of `guidance.FAMILIES` is a kind. A table has one value for every step of its times, or
a list of them for each stratum, and is interpolated as `omega.StepTable`. A guidance is a file that
`lgd.save` wrote, its path relative to the working directory. A word is a family and its numbers,
``limited_interval:2.4:0:0.15`` or ``constant:0.5``; ``default`` is `standard_schedules`. Every
mistake is collected; `read` raises one ScheduleError with all.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import guidance
from lgd.exchange.kinds import Kind, ScheduleError, kinds, make_schedule
from lgd.guidance import FAMILIES, HandMade
from lgd.machinery import files, json_file, storage
from lgd.machinery.words import one_line, shown
from lgd.types import OmegaFn, Schedule

MAX_BYTES = 16 * 2**20
_MAX_VALUES = 2**20  # numbers, texts and names of a file
_MAX_ENTRIES = 10_000
_MAX_NAME = 80
_FILE = "a JSON list of schedules"

# (name of the kind, values by field) -> schedule; raises ScheduleError
_Make = Callable[[Any, Mapping[str, Any]], OmegaFn]


def read(
    sources: Sequence[str],
    *,
    num_strata: int | None,
    schedule: Schedule | None = None,
    more_kinds: Mapping[str, Kind] = MappingProxyType({}),
) -> dict[str, OmegaFn]:
    """Schedules of all sources by name.

    Args:
      sources: paths of JSON files, words such as ``constant:0.5``. A source that comes twice counts
        once. Words come before files in the result, named as `HandMade` shows itself.
      num_strata: the number of labels of the examples that the schedules are for; None where
        conditions are no labels, which refuses schedules that differ by label.
      schedule: the noise schedule, which some families take.
      more_kinds: further kinds that files may hold, by name.

    Raises:
      ScheduleError: naming the source, the entry and the field of every mistake.

    >>> from lgd.exchange import schedules
    >>> list(schedules.read(["constant:0.5", "limited_interval:2:0:0.4"], num_strata=None))
    ['constant(0.5)', 'limited_interval(2, 0, 0.4)']
    """
    known = {**kinds(), **more_kinds}
    context = {"schedule": schedule, "num_strata": num_strata}
    named: dict[str, OmegaFn] = {}
    errors: list[str] = []

    def make(kind: Any, values: Mapping[str, Any]) -> OmegaFn:
        return make_schedule(known, context, kind, values)

    for source in sorted(dict.fromkeys(sources), key=lambda source: not _is_word(source)):
        try:
            if source == "default":
                named |= standard_schedules()
            elif _is_word(source):
                word = _of_word(source, make)
                named[str(word)] = word
            else:
                _read_file(source, make, named)
        except ScheduleError as wrong:
            errors += [f"{one_line(source)}: {error}" for error in wrong.errors]
    if errors:
        raise ScheduleError(errors)
    return named


def standard_schedules() -> dict[str, HandMade]:
    """Constants, intervals early, in the middle and late, and clamp-linear: 40 schedules."""
    weights = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
    places = ((0.0, 0.15), (0.0, 0.3), (0.0, 0.5), (0.2, 0.5), (0.2, 0.8), (0.5, 0.8), (0.5, 1.0))
    scales = (0.55, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0)
    schedules = [
        *(guidance.constant(w) for w in weights),
        *(
            guidance.limited_interval(w, lo, hi)
            for w, (lo, hi) in itertools.product((0.4, 1.0, 2.4), places)
        ),
        *(guidance.clamp_linear(scale) for scale in scales),
    ]
    return {str(schedule): schedule for schedule in schedules}


def entry(schedule: HandMade, *, name: str) -> dict[str, Any]:
    """An entry of a file for a schedule of a family.

    A noise schedule among its values is left out: whoever reads the file gives it.

    Raises:
      ScheduleError: for a name, a family or values that no file can hold.
    """
    family = FAMILIES.get(schedule.family)
    if family is None:
        known = ", ".join(FAMILIES)
        raise ScheduleError([f"family: expected one of {known}, got {shown(schedule.family)}"])
    values = {
        field: np.asarray(value, np.float64).tolist()
        for field, value in schedule.values
        if field in family.fields
    }
    return _checked_entry(name, schedule.family, values, dict(schedule.values).get("schedule"))


def table_entry(
    omega_fn: OmegaFn, *, name: str, times: Float[Array, " n"], num_strata: int
) -> dict[str, Any]:
    """An entry of a file with the values of an omega function on a decreasing grid of times.

    On the steps of that grid the table is the function.

    Args:
      omega_fn: a function of (s, t, c), (b,).
      name: that of the entry.
      times: decreasing, (k + 1,).
      num_strata: the number of labels; 0: of a function that does not look at c.

    Raises:
      ScheduleError: for a name or values that no file can hold.
      ValueError: for a function of other arguments, or of several directions.
    """
    c = jnp.arange(max(num_strata, 1), dtype=jnp.int32)
    omegas = np.asarray(guidance.on_grid(omega_fn, times, c))
    if omegas.ndim > 2:
        raise ValueError(f"expected one direction, got {omegas.shape[2]}")
    rows = omegas.T.tolist()
    values = {"times": np.asarray(times).tolist(), "values": rows if num_strata else rows[0]}
    return _checked_entry(name, "table", values)


def write(path: str | Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write a file that `read` takes, as a whole or not at all.

    Raises:
      ValueError: for values that JSON does not have, or more of them than `read` takes.
      OSError: where the disk does not take it.
    """
    path = files.output(path)
    data = (json.dumps(list(entries), indent=2, allow_nan=False) + "\n").encode()
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_BYTES} bytes, got {len(data)}")
    storage.write(path, data)


def _checked_entry(
    name: str, kind: str, values: dict[str, Any], schedule: Schedule | None = None
) -> dict[str, Any]:
    """An entry after it has been read once."""
    try:
        _check_name(name)
    except ValueError as wrong:
        raise ScheduleError([f"name: {wrong}"]) from None
    make_schedule(kinds(), {"schedule": schedule, "num_strata": 1}, kind, values)
    return {"name": name, "kind": kind, **values}


def _words() -> dict[str, tuple[str, ...]]:
    """The families of numbers only, with their fields in the order of a word."""
    return {
        name: tuple(family.fields) for name, family in FAMILIES.items() if not family.is_per_stratum
    }


def _is_word(source: str) -> bool:
    return source == "default" or source.partition(":")[0] in _words()


def _of_word(word: str, make: _Make) -> OmegaFn:
    kind, *texts = word.split(":")
    fields = _words()[kind]
    least = len(fields) - len(FAMILIES[kind].optional)
    if not least <= len(texts) <= len(fields):
        expected = ":".join([kind, *(field.upper() for field in fields)])
        raise ScheduleError([f"expected {expected}, got {len(texts)} numbers"])
    return make(kind, dict(zip(fields, map(_number_or_text, texts), strict=False)))


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _read_file(source: str, make: _Make, named: dict[str, OmegaFn]) -> None:
    """Add the schedules of a file to those named so far. Raises ScheduleError."""
    errors: list[str] = []
    for place, values in enumerate(_entries(source), start=1):
        where = f"entry {place}"
        if not isinstance(values, dict):
            errors.append(f"{where}: expected an object, got {shown(values)}")
            continue
        try:
            name = _check_name(values.pop("name", None))
        except ValueError as wrong:
            errors.append(f"{where}: name: {wrong}")
            continue
        where = f"{where} ({name})"
        if name in named:
            errors.append(f"{where}: name: expected one no other schedule has, got {name!r}")
        try:
            named[name] = make(values.pop("kind", None), values)
        except ScheduleError as wrong:
            errors += [f"{where}: {error}" for error in wrong.errors]
    if errors:
        raise ScheduleError(errors)


def _entries(source: str) -> list[Any]:
    """The JSON list of a file. Raises ScheduleError."""
    try:
        entries = json_file.read(source, _FILE, max_bytes=MAX_BYTES, max_values=_MAX_VALUES)
    except FileNotFoundError:
        words = ", ".join(f"{kind}:..." for kind in _words())
        raise ScheduleError(
            [f"expected a JSON file, default, or one of {words}; got no such file"]
        ) from None
    except files.InputFileError as error:
        raise ScheduleError([str(error).removeprefix(f"{one_line(source, 1000)}: ")]) from None
    if not isinstance(entries, list) or not entries:
        raise ScheduleError([f"expected {_FILE}, got {shown(entries)}"])
    if len(entries) > _MAX_ENTRIES:
        raise ScheduleError([f"expected at most {_MAX_ENTRIES} schedules, got {len(entries)}"])
    return entries


def _check_name(name: Any) -> str:
    fits = isinstance(name, str) and 0 < len(name) <= _MAX_NAME and name == name.strip()
    if not (fits and name.isprintable() and "|" not in name and name != "unguided"):
        raise ValueError(
            f"expected up to {_MAX_NAME} printable characters without '|', other than 'unguided' "
            f"(always there), got {shown(name)}"
        )
    return str(name)
