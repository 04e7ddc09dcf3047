"""Measurements kept in a file, so that an interrupted run does not repeat them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lgd.machinery import digests, stopping, storage
from lgd.machinery.processes import from_main


class JournalError(ValueError):
    """A journal that cannot be read; the message names the file and the line."""


class Journal:
    """Values by key in a file of JSON lines, appended to as they come.

    A value is JSON and is returned as it is read back, so that a run that was interrupted ends like
    one that was not, bit for bit. Of several processes, all compute, and what process 0 measured
    holds for all. Raises JournalError for a file that holds anything else.
    """

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file)
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
        line = json.dumps({"key": key, "value": value})
        with self._file.open("a") as stream:
            stream.write(line + "\n")
        return json.loads(line)["value"]

    def _read(self) -> dict[str, Any]:
        """The values in the file; a last line that a crash cut off is removed from it."""
        if not self._file.exists():
            return {}
        *lines, rest = self._file.read_text(errors="replace").split("\n")
        entries = [self._parsed(number, line) for number, line in enumerate(lines, start=1)]
        if rest:
            kept = "".join(f"{json.dumps(entry)}\n" for entry in entries)
            storage.write(self._file, kept.encode())
        return {entry["key"]: entry["value"] for entry in entries}

    def _parsed(self, number: int, line: str) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        whole = isinstance(entry, dict) and entry.keys() == {"key", "value"}
        if not whole or not isinstance(entry["key"], str):
            raise JournalError(
                f"{self._file}:{number}: expected an object with key and value, got {line[:80]!r}"
            )
        return entry


def schedule_key(guidance: Any) -> str:
    """A short name of whatever samplers take as guidance: a digest of its description."""
    return digests.of_bytes(digests.describe(guidance).encode())[:16]
