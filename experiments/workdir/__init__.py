"""A run's folder and what is written there."""

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
