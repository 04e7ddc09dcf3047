"""Reading and writing of single files by process 0."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lgd.machinery import files, json_file, processes, storage
from lgd.machinery.words import one_line, shown


class WorkdirError(RuntimeError):
    """The folder does not fit this run; the message says what was expected and what to do."""


@processes.by_main
def exists(file: Path) -> bool:
    """Whether the file exists, as process 0 sees it."""
    return file.exists()


@processes.by_main
def read_json(file: Path, *names: str) -> dict:
    """The JSON object in a file, which has these names.

    Raises WorkdirError for a missing or damaged file, or one of something else.
    """
    try:
        value = json_file.parsed(files.read(file, "a JSON file"), strict=False)
    except FileNotFoundError:
        raise WorkdirError(f"{file}: expected a JSON file, found none") from None
    except files.InputFileError as error:
        raise WorkdirError(str(error)) from None
    except ValueError as error:
        raise WorkdirError(
            f"{file}: expected JSON, got a damaged file: {one_line(error)}"
        ) from None
    if not isinstance(value, dict):
        raise WorkdirError(f"{file}: expected a JSON object, got {type(value).__name__}")
    if missing := [name for name in names if name not in value]:
        raise WorkdirError(f"{file}: expected an object with {', '.join(names)}, got one without "
                           f"{', '.join(missing)}")  # fmt: skip
    return value


@processes.by_main
def read_lines(file: Path, fields: Mapping[str, type] = MappingProxyType({})) -> list[dict]:
    """The objects of a JSON-lines file, if it exists, without a last line that a crash cut off.

    Raises WorkdirError for a line that is no object, or lacks a field of one of these types.
    """
    try:
        lines = files.read(file, "lines of JSON").decode(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    except files.InputFileError as error:
        raise WorkdirError(str(error)) from None
    lines = lines[:-1] if not lines[-1] else lines
    objects = []
    for number, line in enumerate(lines, start=1):
        value = _parsed(line)
        if isinstance(value, dict) and all(type(value.get(n)) is t for n, t in fields.items()):
            objects.append(value)
        elif number < len(lines):
            expected = " with ".join(["a JSON object", *([", ".join(fields)] if fields else [])])
            raise WorkdirError(f"{file}:{number}: expected {expected}, got {shown(line)}")
    return objects


def _parsed(line: str) -> object:
    """The value of a line of JSON, or None if the line is not JSON."""
    try:
        return json_file.parsed(line.encode(), strict=False)
    except ValueError:
        return None


def write_json(file: Path, value: Mapping) -> None:
    """Write a JSON object with indentation, atomically."""
    write_text(file, json.dumps(value, indent=2) + "\n")


@processes.by_main
def write_text(file: Path, text: str) -> None:
    """Write a text file atomically, in process 0."""
    storage.write(file, text.encode())
