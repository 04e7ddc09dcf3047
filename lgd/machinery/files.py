"""The one gate to files by a user's path: regular files of bounded size, opened without waiting."""

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from lgd.machinery.words import one_line

MAX_BYTES = 2**36  # of a file whose reader has no bound of its own
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # also as Path writes it, with one slash
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


class InputFileError(ValueError):
    """A file cannot be read, or is not what was asked for: "file: expected ..., got ..."."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path of a local file, with ``~`` as the home folder.

    Raises InputFileError for a URL, or what no file can be called.

    >>> from lgd.machinery import files
    >>> files.expanded("some/file.json").name
    'file.json'
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise InputFileError(f"expected the path of a file, got {type(path).__name__}")
    if _URL.match(os.fspath(path)):
        raise InputFileError(f"{one_line(path)}: expected a local path, got a URL: copy the file")
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise InputFileError(f"{one_line(path)}: expected the path of a file, got none")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # a user without a home
        raise InputFileError(f"{one_line(path)}: expected a path: {error}") from None


def opened(path: str | os.PathLike[str], what: str, *, max_bytes: int = MAX_BYTES) -> BinaryIO:
    """A regular file, open for reading bytes.

    A pipe may wait for ever and a device may never end, or do something when it is opened: neither
    is opened.

    Args:
      path: the file.
      what: what it should be, for messages.
      max_bytes: the largest size that is taken.

    Raises:
      FileNotFoundError: where there is no file.
      InputFileError: for anything but a regular file of that size that may be read.
    """
    file = expanded(path)
    name = one_line(file, 1000)
    try:
        _check(os.stat(file), name, what, max_bytes)
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{name}: expected {what}, found none") from None
    except InputFileError:
        raise
    except (OSError, ValueError) as error:
        raise InputFileError(f"{name}: expected {what}, got {_reason(error)}") from None
    try:
        _check(os.fstat(handle), name, what, max_bytes)  # another file may have come between
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read(path: str | os.PathLike[str], what: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a file, see `opened`, whose errors it raises."""
    with opened(path, what, max_bytes=max_bytes) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            content = stream.read(size + 1)
        except (OSError, MemoryError) as error:
            raise InputFileError(
                f"{one_line(path, 1000)}: expected {what}, got {_reason(error)}"
            ) from None
    if len(content) > size:
        name = one_line(path, 1000)
        raise InputFileError(f"{name}: expected {what}, got one that grows while it is read")
    return content


def output(path: str | os.PathLike[str]) -> Path:
    """The path of a file to write, in a folder that is made where there is none.

    Raises:
      InputFileError: for what is no path of a local file.
      OSError: where a file can never be, or the disk refuses the folder.
    """
    file = expanded(path)
    if file.is_dir():
        raise IsADirectoryError(f"{file}: expected the path of a file to write, got a folder")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"{file}: expected a folder to write to: {_reason(error)}") from None
    return file


def _check(status: os.stat_result, name: str, what: str, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for fits, kind in _KINDS if fits(status.st_mode)), "something else")
        raise InputFileError(f"{name}: expected {what}, got no regular file: {kind}")
    if status.st_size > max_bytes:
        raise InputFileError(
            f"{name}: expected {what} of at most {max_bytes} bytes, got {status.st_size}"
        )


def _reason(error: BaseException) -> str:
    return one_line(getattr(error, "strerror", None) or error)
