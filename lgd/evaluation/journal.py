"""Measurements kept in a file, so that an interrupted run does not repeat them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lgd.machinery import digests, files, json_file, stopping, storage
from lgd.machinery.paths import local
from lgd.machinery.processes import from_main


class JournalError(ValueError):
    """A journal that cannot be read; the message names the file and the line."""


class Journal:
    """Values by key in a file of JSON lines, appended to as they come.

    A value is JSON and is returned as it is read back, so that a run that was interrupted ends like
    one that was not, bit for bit. Of several processes, all compute, and what process 0 measured
    holds for all.

    A line is sealed: it holds a sha256 of its key, its value, the seal of the line before, and
    ``binding``, a text that names all else the values depend on. Raises JournalError for a file
    that holds anything else: a line that changed, was moved or removed, or has another binding.
    """

    def __init__(self, file: str | Path, *, binding: str = "") -> None:
        self._file, self._last = local(file), binding
        self._values: dict[str, Any] = from_main(self._read)

    def __call__(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value of a key, computed if missing. Raises Stopped if a signal asked to stop."""
        if key not in self._values:
            stopping.check("a measurement")
            value = compute()
            self._values[key] = from_main(lambda: self._append(key, value))
        return self._values[key]

    def __contains__(self, key: str) -> bool:
        """Whether a value is there."""
        return key in self._values

    def _append(self, key: str, value: Any) -> Any:
        line, seal = _sealed(key, value, self._last)
        kept = json_file.parsed(line.encode(), strict=False)["value"]
        files.append(self._file, f"{line}\n".encode())
        self._last = seal
        return kept

    def _read(self) -> dict[str, Any]:
        """The values in the file; a last line that a crash cut off is removed from it."""
        try:
            content = files.read(self._file, "lines of JSON")
        except FileNotFoundError:
            return {}
        except files.InputFileError as error:
            raise JournalError(str(error)) from None
        *lines, rest = content.decode(errors="replace").split("\n")
        values = dict(self._parsed(number, line) for number, line in enumerate(lines, start=1))
        if rest:
            self._refuse_more_than_a_line(len(lines) + 1, rest)
            kept = "".join(f"{line}\n" for line in lines)
            storage.write(self._file, kept.encode())
        return values

    def _parsed(self, number: int, line: str) -> tuple[str, Any]:
        entry = _entry(line)
        if entry is None:
            raise JournalError(
                f"{self._file}:{number}: expected an object with key, value and seal, "
                f"got {line[:80]!r}"
            )
        expected, seal = _sealed(entry["key"], entry["value"], self._last)
        if line != expected:
            raise JournalError(
                f"{self._file}:{number}: expected a line that was measured here, after the one "
                "before it, of the same denoiser and settings; got one that changed, was moved, or "
                f"belongs to others: {line[:80]!r}"
            )
        self._last = seal
        return entry["key"], entry["value"]

    def _refuse_more_than_a_line(self, number: int, rest: str) -> None:
        """A crash leaves less than a line; a whole one with a character behind it was changed."""
        entry = _entry(rest) or _entry(rest[:-1])
        if entry is not None and rest != json.dumps(entry):
            raise JournalError(f"{self._file}:{number}: expected a line break, got {rest[-1]!r}")


def _entry(line: str) -> dict[str, Any] | None:
    """The object of a line, or None where it is no sealed line."""
    try:
        entry = json_file.parsed(line.encode(), strict=False)
    except ValueError:
        return None
    whole = isinstance(entry, dict) and entry.keys() == {"key", "value", "seal"}
    return entry if whole and isinstance(entry["key"], str) else None


def _sealed(key: str, value: Any, before: str) -> tuple[str, str]:
    """A line, and its seal, which is also that of all lines before it."""
    entry = {"key": key, "value": value}
    seal = digests.of_bytes(f"{json.dumps(entry)} {before}".encode())
    return json.dumps(entry | {"seal": seal}), seal


def schedule_key(guidance: Any) -> str:
    """A short name of whatever samplers take as guidance: a digest of its description."""
    return digests.of_bytes(digests.describe(guidance).encode())[:16]
