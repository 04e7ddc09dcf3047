"""The one gate to files by a user's path: regular files of bounded size, opened without waiting.

What is written to is opened here too, never through a link, which would lead out of the folder.
"""

import errno
import os
import shutil
import stat
from io import BufferedReader
from pathlib import Path

from lgd.machinery.paths import InputFileError, local
from lgd.machinery.words import one_line

MAX_BYTES = 2**36  # of a file whose reader has no bound of its own
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


def opened(
    path: str | os.PathLike[str], what: str, *, max_bytes: int = MAX_BYTES
) -> BufferedReader:
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
    file = local(path)
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


def writable(file: Path, flags: int) -> int:
    """The descriptor of a regular file, made where there is none, open for writing.

    Args:
      file: the file; a link in its place is not followed.
      flags: of `os.open`, beside those for this.

    Raises:
      InputFileError: for a link or anything but a regular file.
      OSError: if the disk refuses it.
    """
    always = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(file, flags | always, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            kind = "a link" if file.is_symlink() else "a folder" if file.is_dir() else "a pipe"
            raise InputFileError(f"{file}: expected a file to write to, got {kind}") from None
        raise
    try:
        _check(os.fstat(handle), str(file), "a file to write to", MAX_BYTES)
    except InputFileError:
        os.close(handle)
        raise
    return handle


def append(file: Path, data: bytes) -> None:
    """Append to a file, see `writable`, whose errors it raises."""
    with os.fdopen(writable(file, os.O_WRONLY | os.O_APPEND), "ab") as stream:
        stream.write(data)


def folder(path: Path) -> Path:
    """The folder, made where there is none. Raises InputFileError where something else is."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputFileError(f"{path}: expected a folder, got a file in its way") from None
    return path


def discard(path: Path) -> None:
    """Delete a file, a folder with all that is in it, or a link but not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def output(path: str | os.PathLike[str]) -> Path:
    """The path of a file to write, in a folder that is made where there is none.

    Raises:
      InputFileError: for what is no path of a local file.
      OSError: where a file can never be, or the disk refuses the folder.
    """
    file = local(path)
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
