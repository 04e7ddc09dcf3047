"""Faults of files of data, in words that name the file, and checks before files are read."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from lgd.machinery import paths
from lgd.machinery.words import one_line


class DataFileError(ValueError):
    """A file cannot be read or does not fit: "file: field: expected ..., got ..."."""


def local(path: str | Path, expected: str) -> Path:
    """The path of a local file or folder.

    Raises DataFileError for a URL, with what the path should be of.
    """
    try:
        return paths.local(path)
    except paths.InputFileError as error:
        reason = str(error).removeprefix(f"{one_line(path)}: ")
        raise DataFileError(f"{path}: expected {expected}: {reason}") from None


@contextlib.contextmanager
def all_faults() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Give a context manager that notes a DataFileError; in the end raise all that were noted."""
    faults: dict[str, None] = {}  # in order, each once

    @contextlib.contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        except DataFileError as fault:
            faults[str(fault)] = None

    yield noted
    if faults:
        raise DataFileError("\n".join(faults))


def require_regular(file: Path, largest: int | None = None) -> None:
    """Raise DataFileError for a FIFO, device or folder, which may never end when it is read.

    Likewise for a file of more than `largest` bytes, where that is given.
    """
    if not file.exists():
        return
    if not file.is_file():
        raise DataFileError(f"{file}: expected a regular file, got another")
    if largest is not None and file.stat().st_size > largest:
        raise DataFileError(
            f"{file}: size: expected at most {largest} bytes, got {file.stat().st_size}"
        )


@contextlib.contextmanager
def reading(where: str, expected: str) -> Iterator[None]:
    """Turn any exception into a DataFileError, because parsers fail in many ways on damaged files.

    Args:
      where: file, or file and field, at the beginning of the message.
      expected: what the file should be, for the message.
    """
    try:
        yield
    except DataFileError:
        raise
    except FileNotFoundError:
        raise DataFileError(f"{where}: expected {expected}, got no such file") from None
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataFileError(
            f"{where}: expected {expected}, got one that cannot be read ({reason})"
        ) from None


def content(file: Path, largest: int) -> bytes:
    """Return the bytes of a regular file, at most `largest`.

    Raises:
      DataFileError: for a FIFO, device or folder, or more bytes.
      OSError: if it cannot be read.
    """
    require_regular(file, largest)
    return file.read_bytes()
