"""A lock that allows one run at a time in a workdir; the system frees that of a dead process."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from experiments.workdir import WorkdirError
from lgd.machinery import files, processes

LOCK = "lock"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Create the folder and hold its lock; with several processes, process 0 holds it for all.

    Raises WorkdirError, which names the process that has the lock, or why nothing can be written.
    """
    files: list[int] = []
    processes.from_main(lambda: files.append(_taken(folder)))
    try:
        yield
    finally:
        for file in files:
            os.close(file)


def _taken(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = files.writable(folder / LOCK, os.O_RDWR)
    except files.InputFileError as error:
        raise WorkdirError(str(error)) from None
    except OSError as error:
        raise WorkdirError(f"{folder}: expected a folder to write to: {error}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(file, 200, 0).decode(errors="replace").strip()
        os.close(file)
        raise WorkdirError(
            f"{folder}: expected no other run in it, got {owner or 'one'}; "
            "wait for it, end it, or use another --workdir"
        ) from None
    with contextlib.suppress(OSError):  # a full disk is no reason not to start
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return file
