"""The folder of a run, its lock, its loggers and the provenance of its results."""

from experiments.workdir.changes import MAY_CHANGE
from experiments.workdir.files import (
    WorkdirError,
    exists,
    read_json,
    read_lines,
    write_json,
    write_text,
)
from experiments.workdir.folder import Workdir
from experiments.workdir.opening import saved_config

__all__ = [
    "MAY_CHANGE",
    "Workdir",
    "WorkdirError",
    "exists",
    "read_json",
    "read_lines",
    "saved_config",
    "write_json",
    "write_text",
]
