"""Size and sha256 of every file of a data set, recorded at first use in lgd-manifest.json.

Formats of images and records have weak checksums or none, and cannot detect that two files changed
places. Later uses are therefore compared with the manifest. A folder that cannot be written to has
no manifest; then only data.json in the workdir of a run identifies its data.
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lgd.data.faults import DataFileError, content, reading, require_regular
from lgd.machinery import digests, json_file, storage
from lgd.machinery.processes import is_main_process
from lgd.machinery.progress import bar
from lgd.machinery.words import one_line, shown

NAME = "lgd-manifest.json"
_LARGEST = 2**30  # bytes, of about 8 million files


class Entry(NamedTuple):
    """Size in bytes and sha256 of a file."""

    size: int
    sha256: str


def pins(root: Path, files: Sequence[str]) -> dict[str, Entry]:
    """Return the manifest's entries of these files of a folder; without a manifest, measure them.

    Names and sizes are compared here, contents by `check`. The main process writes a new manifest.

    Raises:
      DataFileError: naming the file that is missing, new or of another size, or a manifest that is
        no regular file.
    """
    manifest = root / NAME
    require_regular(manifest)
    if not manifest.exists():
        measured = _measure(root, files)
        if is_main_process():
            with contextlib.suppress(OSError):
                storage.write(manifest, json.dumps(measured, indent=1).encode())
        return measured
    with reading(f"{manifest}", "a manifest of lgd"):
        before = _parsed(manifest)
    present = set(files)
    for name in before:
        if name not in present:
            raise DataFileError(
                f"{root}/{one_line(name)}: expected a file, as in {NAME}, got no such file"
            )
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


def check(file: Path, data: bytes, pin: Entry) -> None:
    """Raise DataFileError if the content of a file has another sha256 than its entry."""
    _compare(file, digests.of_bytes(data), pin)


def check_all(root: Path, pinned: dict[str, Entry]) -> None:
    """Read all files, about a second for each GB, and raise DataFileError if a sha256 differs."""
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


def _parsed(manifest: Path) -> dict[str, Entry]:
    value = json_file.parsed(content(manifest, _LARGEST))
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    for name, pair in value.items():
        if not isinstance(pair, list) or [type(part) for part in pair] != [int, str]:
            raise ValueError(f"{shown(name)}: expected size and sha256, got {shown(pair)}")
    return {name: Entry(*pair) for name, pair in value.items()}
