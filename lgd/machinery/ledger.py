"""A sealed ledger: lines of JSON that are appended, flushed to the disk, and never changed.

A line is sealed: its own sha256, a space, JSON, so that a damaged or truncated line is recognised.
"""

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

from lgd.machinery import digests, files, json_file
from lgd.machinery.words import one_line

logger = logging.getLogger(__name__)

MOST_DAMAGES = 20  # damaged lines that are named; of more, their number


class DamagedError(Exception):
    """A file does not hold what was written to it."""


class Ledger:
    """One file of sealed lines, with one writer at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: dict[str, Any]) -> None:
        """Add a line; it is safe on disk when this returns."""
        before = _content(self.path)
        torn = bool(before) and not before.endswith(b"\n")
        files.append(self.path, b"\n" * torn + seal(line) + b"\n")
        fsync(self.path)
        fsync(self.path.parent)

    def read(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The intact lines, and an error message for every other one, of at most `MOST_DAMAGES`.

        A last line without a line break was never finished and is ignored. A ledger without a file
        is empty. Raises InputFileError for a folder or anything else that is no file.
        """
        lines: list[dict[str, Any]] = []
        damages: list[str] = []
        more = 0
        for raw in _content(self.path).split(b"\n")[:-1]:
            try:
                lines.append(unseal(raw, self.path.name))
            except DamagedError as damage:
                if len(damages) == MOST_DAMAGES:
                    more += 1
                    continue
                logger.warning("%s has an unreadable line: %s", self.path, damage)
                damages.append(str(damage))
        return lines, damages + ([f"{self.path.name}: {more} more damaged lines"] if more else [])


def _content(path: Path) -> bytes:
    """The content of a file, nothing without one."""
    return files.read(path, "a ledger") if os.path.lexists(path) else b""


def seal(value: dict[str, Any]) -> bytes:
    """JSON behind its own sha256. Raises ValueError for what `unseal` would refuse."""
    text = json.dumps(value, sort_keys=True, allow_nan=False).encode()
    json_file.parsed(text)
    return digests.of_bytes(text).encode() + b" " + text


def unseal(raw: bytes, name: str) -> dict[str, Any]:
    """The object that was sealed. Raises DamagedError, naming the file, if a byte has changed."""
    digest, _, text = raw.partition(b" ")
    if digest != digests.of_bytes(text).encode():
        raise DamagedError(f"{name}: its seal does not fit its content")
    try:
        value = json_file.parsed(text)
    except ValueError as error:
        raise DamagedError(f"{name}: {one_line(error)}") from None
    if not isinstance(value, dict):
        raise DamagedError(f"{name}: expected an object, got {type(value).__name__}")
    return value


def check(data: bytes, sha256: str, name: str) -> None:
    """Raise DamagedError for the content of a file that has another sha256."""
    if (got := digests.of_bytes(data)) != sha256:
        raise DamagedError(f"{name}: expected sha256 {sha256}, got {got}")


def read(path: Path) -> bytes:
    """The content of a file. Raises DamagedError if there is none, or one that cannot be read."""
    try:
        return files.read(path, "a file")
    except FileNotFoundError as error:
        raise DamagedError(f"{path.name} is missing") from error
    except files.InputFileError as error:
        trouble = error.__context__
        is_loop = getattr(trouble, "errno", None) == errno.ELOOP
        if isinstance(trouble, MemoryError | OSError) and not is_loop:
            raise trouble from None  # of the machine, which is no damage
        raise DamagedError(str(error)) from error


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are safe on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
