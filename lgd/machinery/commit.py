"""What the files of a checkpoint store hold, checked before anything is done with it."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from lgd.machinery.ledger import DamagedError, Ledger
from lgd.machinery.words import shown

STATE = "state"  # the folder of a step's arrays


def lines_of(ledger: Ledger) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of steps that were committed or found damaged; a message for every other one."""
    lines, damages = ledger.read()
    others = [f"{ledger.path.name}: got the line {shown(x)}" for x in lines if not _is_line(x)]
    return list(filter(_is_line, lines)), damages + others


def check_commit(commit: Mapping[str, Any], name: str) -> None:
    """Raise DamagedError for other than four fields that name files of the state, each once."""
    if not _is_commit(commit):
        raise DamagedError(f"{name}: expected what a save writes, got {shown(commit)}")


def _is_line(line: Mapping[str, Any]) -> bool:
    said = [line[key] for key in ("commit", "damage") if key in line]
    return _is_step(line.get("step")) and len(said) == 1 and isinstance(said[0], str)


def _is_commit(commit: Mapping[str, Any]) -> bool:
    if commit.keys() != {"step", "metadata", "leaves", "files"} or not _is_step(commit["step"]):
        return False
    tables = (commit["leaves"], commit["files"])
    if not all(isinstance(each, dict) for each in (commit["metadata"], *tables)):
        return False
    texts = all(isinstance(value, str) for table in tables for value in table.values())
    return texts and all(map(_is_inside, commit["files"]))


def _is_step(step: Any) -> bool:
    return type(step) is int and 0 <= step < 2**63


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return str(path) == name and path.parts[:1] == (STATE,) and ".." not in path.parts
