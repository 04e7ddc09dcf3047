"""What the files of a data set were when they were first used: lgd-manifest.json beside them.

Formats of images and of records have weak checksums or none, and nothing in them tells that two
files changed places. So the size and the sha256 of every file are written down once, and compared
ever after. Where the folder cannot be written to, there is no manifest; a run is then bound to its
data by the data.json of its workdir alone.
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lgd.data.image_files import DataFileError, reading
from lgd.machinery import digests, storage
from lgd.machinery.processes import is_main_process
from lgd.machinery.progress import bar

NAME = "lgd-manifest.json"


class Entry(NamedTuple):
    """Size in bytes and sha256 of a file."""

    size: int
    sha256: str


def pins(root: Path, files: Sequence[str]) -> dict[str, Entry]:
    """What each of these files in a folder has to be: from its manifest, or measured now.

    Names and sizes are compared at once; `check` compares contents. Raises DataFileError naming the
    file that is missing, new or of another size.
    """
    manifest = root / NAME
    if not manifest.exists():
        found = _measure(root, files)
        if is_main_process():
            with contextlib.suppress(OSError):
                storage.write(manifest, json.dumps(found, indent=1).encode())
        return found
    with reading(f"{manifest}", "a manifest of lgd"):
        before = {
            name: Entry(int(each[0]), str(each[1])) for name, each in _parsed(manifest).items()
        }
    present = set(files)
    for name in before:
        if name not in present:
            raise DataFileError(f"{root / name}: expected a file, as in {NAME}, got no such file")
    for name in files:
        if name not in before:
            raise DataFileError(
                f"{root / name}: expected only files of {NAME}, got another; {_NEW}"
            )
        size = (root / name).stat().st_size
        if size != before[name].size:
            raise DataFileError(
                f"{root / name}: size: expected {before[name].size} bytes, as in {NAME}, "
                f"got {size}; {_NEW}"
            )
    return {name: before[name] for name in files}


_NEW = f"if the data were changed on purpose, remove {NAME}"


def check(file: Path, content: bytes, pin: Entry) -> None:
    """Raises DataFileError for the content of another file."""
    _compare(file, digests.of_bytes(content), pin)


def check_all(root: Path, pinned: dict[str, Entry]) -> None:
    """Read every file once and compare; a second or so for each GB. Raises DataFileError."""
    with bar(f"verify {root.name}", len(pinned), show=_is_large(pinned)) as advance:
        for name, pin in pinned.items():
            _compare(root / name, digests.of_file(root / name), pin)
            advance("")


def _compare(file: Path, got: str, pin: Entry) -> None:
    if got != pin.sha256:
        raise DataFileError(
            f"{file}: sha256: expected {pin.sha256}, as in {NAME}, got {got}; {_NEW}"
        )


def _measure(root: Path, files: Sequence[str]) -> dict[str, Entry]:
    sizes = {name: Entry((root / name).stat().st_size, "") for name in files}
    with bar(f"measure {root.name}", len(files), show=_is_large(sizes)) as advance:
        for name in files:
            sizes[name] = sizes[name]._replace(sha256=digests.of_file(root / name))
            advance("")
    return sizes


def _is_large(pinned: dict[str, Entry]) -> bool:
    return sum(pin.size for pin in pinned.values()) > 2**32


def _parsed(manifest: Path) -> dict[str, list]:
    value = json.loads(manifest.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value
