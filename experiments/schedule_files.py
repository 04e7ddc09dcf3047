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

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.config import one_line, shown
from experiments.schedule_kinds import KINDS, SHORT, WrongError
from experiments.studies import learned_schedules
from experiments.workdir import write_text
from lgd import guidance
from lgd.types import OmegaFn

_MAX_NAME = 80


class ScheduleError(ValueError):
    """Everything that is wrong with the schedules asked for, one line each."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


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
    return source == "default" or source.partition(":")[0] in SHORT


def _read_word(word: str, found: dict[str, OmegaFn], errors: list[str]) -> None:
    kind, *texts = word.split(":")
    names = SHORT[kind]
    least = len([name for name in names if name not in KINDS[kind].optional])
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
    except WrongError as wrong:
        errors.append(f"{source}: {wrong}")
        return
    for number, entry in enumerate(entries, start=1):
        where = f"{source}: entry {number}"
        if not isinstance(entry, dict):
            errors.append(f"{where}: expected an object, got {shown(entry)}")
            continue
        entry = dict(entry)
        try:
            name = _name(entry.pop("name", None))
        except WrongError as wrong:
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
        words = ", ".join(f"{kind}:..." for kind in SHORT)
        raise WrongError(
            f"expected a JSON file, default, or one of {words}; got no such file"
        ) from None
    except (OSError, ValueError) as error:
        raise WrongError(f"{expected}, got {one_line(error)}") from None
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise WrongError(f"{expected}, got {one_line(error)}") from None
    if not isinstance(entries, list) or not entries:
        raise WrongError(f"{expected}, got {shown(entries)}")
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
    if not isinstance(kind_name, str) or kind_name not in KINDS:
        errors.append(f"{where}: kind: expected one of {', '.join(KINDS)}, got {shown(kind_name)}")
        return None
    kind, good, before = KINDS[kind_name], {}, len(errors)
    for field in [*kind.fields, *(name for name in values if name not in kind.fields)]:
        if field not in kind.fields:
            known = ", ".join(kind.fields)
            errors.append(f"{where}: expected the fields {known}, got also {shown(field)}")
        elif field in values:
            try:
                good[field] = kind.fields[field](values[field])
            except WrongError as wrong:
                errors.append(f"{where}: {field}: {wrong}")
        elif field not in kind.optional:
            errors.append(f"{where}: {field}: expected a value, got nothing")
    if len(errors) > before:
        return None
    try:
        made = kind.make(**good)
        _check_classes(kind.per_class(good), num_classes)
    except (WrongError, ValueError, learned_schedules.LearnedError) as error:
        errors.append(f"{where}: {one_line(error, limit=1000)}")
        return None
    return made


def _check_classes(rows: int | None, num_classes: int | None) -> None:
    if rows is None:
        return
    if num_classes is None:
        raise WrongError(f"expected one schedule for all conditions, got {rows} classes")
    if rows < num_classes:
        raise WrongError(f"expected at least the {num_classes} classes of the data, got {rows}")


def _name(value: Any) -> str:
    fits = isinstance(value, str) and 0 < len(value) <= _MAX_NAME and value == value.strip()
    if not (fits and value.isprintable() and "|" not in value and value != "unguided"):
        raise WrongError(
            f"expected up to {_MAX_NAME} printable characters without '|', other than 'unguided' "
            f"(always there), got {shown(value)}"
        )
    return str(value)
