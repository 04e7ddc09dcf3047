"""The folder of a run, its lock, its loggers and the provenance of its results."""

from experiments.workdir.folder import (
    MAY_CHANGE,
    Workdir,
    WorkdirError,
    exists,
    read_json,
    read_lines,
    write_json,
    write_text,
)

__all__ = [
    "MAY_CHANGE",
    "Workdir",
    "WorkdirError",
    "exists",
    "read_json",
    "read_lines",
    "write_json",
    "write_text",
]
