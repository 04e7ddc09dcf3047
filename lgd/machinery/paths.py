"""The one place where the path that a user gives becomes one of this machine."""

import os
import re
from pathlib import Path

from lgd.machinery.words import one_line

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # also as Path writes it, with one slash


class InputFileError(ValueError):
    """A file cannot be read, or is not what was asked for: "file: expected ..., got ..."."""


def local(path: str | os.PathLike[str]) -> Path:
    """The path of a local file or folder, with ``~`` as the home folder.

    Raises InputFileError for a URL, or what nothing can be called.

    >>> from lgd.machinery import paths
    >>> paths.local("some/file.json").name
    'file.json'
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise InputFileError(f"expected the path of a file, got {type(path).__name__}")
    if _URL.match(os.fspath(path)):
        raise InputFileError(
            f"{one_line(path)}: expected a local path, got a URL: mount it, or copy what is there"
        )
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise InputFileError(f"{one_line(path)}: expected the path of a file, got none")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # a user without a home
        raise InputFileError(f"{one_line(path)}: expected a path: {error}") from None


def is_local(path: str) -> bool:
    """Whether a text is a path that `local` takes, or empty."""
    try:
        return not path or bool(local(path))
    except InputFileError:
        return False
