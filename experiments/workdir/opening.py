"""What a start of a run does with a workdir that an earlier start left."""

import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import config as configs
from experiments.workdir import changes
from experiments.workdir.files import WorkdirError, read_json
from experiments.workdir.ledger import FileLedger
from lgd.machinery.checkpoint import LEDGER_FILE
from lgd.machinery.ledger import DamagedError

CHECKPOINTS = "checkpoints/"
_READ_BACK = ("results.json", "params/**/*.safetensors")  # stages that find these are done
_OTHERS = ("*.json", "*.jsonl", "guidance/*", "reference/*", f"{CHECKPOINTS}**/{LEDGER_FILE}")
_ADVICE = (
    "Put back what was there; or make it again with --redo=STAGE, which deletes what STAGE "
    f"({', '.join(changes.STAGES)}) and those after it made (results.json, measured.jsonl, "
    "report/, guidance/ and reference/ may simply be deleted); or let --adopt take all files as "
    "they are, as for networks of another run or the folder of an older version."
)

_log = logging.getLogger(__name__)


def saved_config(folder: str | Path) -> ConfigDict:
    """The config of a run, from its folder. Raises WorkdirError or ConfigError, naming the file."""
    file = Path(folder) / "config.json"
    values = read_json(file)
    try:
        return configs.from_dict(values)
    except configs.ConfigError as error:
        raise configs.ConfigError([f"{file}: {line}" for line in error.errors]) from None


def refuse_changes(
    folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], redo: str
) -> set[str]:
    """Names of the fields that changed. Raises WorkdirError if files depend on one of them."""
    lines = {line.partition(":")[0]: line for line in configs.diff(old, new)}
    refused = [
        field
        for field in lines
        if not changes.harmless(field, old, new) and not changes.is_redone(field, redo)
    ]
    if not refused:
        return set(lines)
    shown = "\n  ".join(lines.values())
    stages = {changes.first_stage(field) for field in refused}
    first = min(stages, key=changes.STAGES.index)
    again = f", or --redo={first}, which keeps what comes before" * (first != changes.STAGES[0])
    raise WorkdirError(
        f"{folder}: made with another config (config.json -> now):\n  {shown}\n"
        f"Use another --workdir, or the config it was made with{again}."
    )


def opened(ledger: FileLedger, *, adopt: bool = False) -> None:
    """Read the ledger. Raises WorkdirError; with ``adopt`` one that does not hold is empty."""
    try:
        ledger.open()
    except DamagedError as error:
        if not adopt:
            raise WorkdirError(f"{ledger.path}: {error}\n{_ADVICE}") from None
        _log.warning("%s: %s; begun anew", ledger.path, error)


def verify(folder: Path, ledger: FileLedger, *, restart_damaged: bool) -> None:
    """Raise WorkdirError, which names every file that is not as the run wrote it.

    Files that are made again may be gone, and so may a whole store of checkpoints, which a training
    that is done does not need. With ``restart_damaged`` stores judge themselves.
    """
    again = ledger.names(*changes.MADE_AGAIN)
    ledger.forget(name for name in again if not (folder / name).exists())
    kept = _stores(ledger) if restart_damaged else [
        store for store in _stores(ledger) if not (folder / store).exists()
    ]  # fmt: skip
    names = [name for name in ledger.names("") if not name.startswith(tuple(kept))]
    lines = ledger.damaged(names) + [
        f"{file}: expected only what this run wrote, got a file that it did not write"
        for file in _found(folder, _READ_BACK)
        if file not in ledger
    ]
    if lines:
        raise WorkdirError("\n".join([*lines, _ADVICE]))


def adopt(folder: Path, ledger: FileLedger) -> None:
    """Let the ledger know all files as they are, and say which ones it did not know like that."""
    present = {*_found(folder, _READ_BACK + _OTHERS)}
    present |= {folder / name for name in ledger.names("") if (folder / name).is_file()}
    inside = {file for file in present if _is_inside_store(file.relative_to(folder).as_posix())}
    names = ledger.names("")
    damaged = {name for name in names if ledger.damaged([name])}
    for file in sorted(present - inside):
        if file not in ledger or file.relative_to(folder).as_posix() in damaged:
            _log.warning("%s is taken as it is", file)
    ledger.forget({name for name in names if folder / name not in present - inside})
    ledger.note(*sorted(present - inside))


def delete(folder: Path, ledger: FileLedger, beginnings: Iterable[str]) -> None:
    """Delete files and folders by the beginnings of their names; report/ is only forgotten.

    A kill in between leaves files that are gone but known, so that the same start goes on.
    """
    for beginning in beginnings:
        path = folder / beginning
        if path.is_dir() and beginning != "report/":
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    ledger.forget(ledger.names(*beginnings))


def open_store(file: Path, ledger: FileLedger, *, may_start_over: bool) -> None:
    """Before a training goes on, know of its store only the beginning of the ledger, ``file``.

    Raises WorkdirError where a ledger that is known is gone, unless the training may start over.
    """
    if file in ledger and not file.exists() and not may_start_over:
        raise WorkdirError(
            f"{file.parent}: expected the checkpoints that this run saved, found none: put them "
            "back, or start the training over with --restart_damaged"
        )
    folder = f"{file.parent.relative_to(ledger.path.parent).as_posix()}/"
    if known := ledger.names(folder):
        ledger.forget(name for name in known if name != f"{folder}{file.name}")
        note_store(file, ledger)


def note_store(file: Path, ledger: FileLedger) -> None:
    """Know the beginning of the ledger of a store, or forget one that starts over."""
    if file.exists():
        ledger.note(file, grows=True)
    else:
        ledger.forget([file.relative_to(ledger.path.parent).as_posix()])


def _stores(ledger: FileLedger) -> list[str]:
    """Folders of checkpoints, each with a "/" at the end."""
    names = ledger.names(CHECKPOINTS)
    return [name.removesuffix(LEDGER_FILE) for name in names if name.endswith(f"/{LEDGER_FILE}")]


def _is_inside_store(name: str) -> bool:
    return name.startswith(CHECKPOINTS) and not name.endswith(f"/{LEDGER_FILE}")


def _found(folder: Path, patterns: Iterable[str]) -> list[Path]:
    files = {file for pattern in patterns for file in folder.glob(pattern)}
    return sorted(file for file in files if file.is_file())
