"""What every command shares at its outside: how it starts, what it says, how it ends.

A command is `command(main)`. It shows what the terminal can, and replaces the rest; an error that
is not a mistake of ours ends it in words, with an exit code of the README; a signal ends it with
one too, from its first moment to its last.
"""

import argparse
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from lgd.machinery import paths
from lgd.machinery.words import one_line

BAD_INPUT = 2  # exit codes; argparse has this one too
CANNOT_GO_ON = 3
STOPPED = 75  # that of `lgd.machinery.stopping`, which needs JAX
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_NO_DEVICES = (RuntimeError, AssertionError)  # what JAX raises where it finds none
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def command(main: Callable[[], object]) -> None:
    """Run a command, of which nothing else is left to do afterwards."""
    for number in _SIGNALS:
        signal.signal(number, _leave)  # until `stopping.on_signals` knows what to save
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        with in_words():
            main()
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # all is done but to end


def say(text: object) -> None:
    """Print a line at once, also into a pipe; where nobody reads it any more, to nobody."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def refuse(*errors: object) -> NoReturn:
    """End with the mistakes in what was given, one a line."""
    end(BAD_INPUT, "\n".join(map(str, errors)))


def end(code: int, message: str = "") -> NoReturn:
    """End with a message, which of several processes only process 0 prints."""
    if message and _speaks():
        print(message, file=sys.stderr)
    sys.exit(code)


def local_path(text: str) -> Path:
    """The path that an argument of argparse names."""
    try:
        return paths.local(text)
    except paths.InputFileError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@contextlib.contextmanager
def in_words(*refused: type[Exception]) -> Iterator[None]:
    """End the command with words for errors of its input and of its machine.

    refused: further errors that are mistakes in what was given.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        ending = (BAD_INPUT, str(error)) if isinstance(error, refused) else _ending(error)
        if ending is None:
            raise
        end(*ending)


def _ending(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the words for an error; None for one that is ours to mend."""
    if isinstance(error, OSError):
        return _of_system(error)
    from experiments.config import ConfigError
    from experiments.workdir.files import WorkdirError
    from lgd.data.faults import DataFileError
    from lgd.exchange.schedules import ScheduleError
    from lgd.gram import StatisticsError
    from lgd.machinery import processes, stopping
    from lgd.machinery.checkpoint import CheckpointError, NotSavedError
    from lgd.machinery.failures import DeviceMemoryError, NonFiniteError, OtherTrainingError

    if isinstance(error, NotSavedError | NonFiniteError | DeviceMemoryError):
        return CANNOT_GO_ON, f"{type(error).__name__}: {error}"
    if isinstance(error, stopping.Stopped):
        return STOPPED, f"{error}; the same command goes on from there"
    if isinstance(error, KeyboardInterrupt):
        return STOPPED, ""
    if isinstance(error, processes.MainProcessError):  # which prints the message
        return BAD_INPUT, ""
    wrong = (ConfigError, WorkdirError, DataFileError, ScheduleError, StatisticsError)
    more = (CheckpointError, OtherTrainingError, paths.InputFileError)
    if isinstance(error, wrong + more):
        return BAD_INPUT, str(error)
    return _of_platform() if isinstance(error, _NO_DEVICES) else None


def _of_system(error: OSError) -> tuple[int, str] | None:
    """The words for what the disk refuses, or for a file of a wrong kind; not for a timeout."""
    if error.errno in DISK_ERRORS:
        return CANNOT_GO_ON, f"cannot write: {error}"
    if error.filename is not None:
        return BAD_INPUT, f"{one_line(error.filename, 1000)}: {error.strerror}"
    named = isinstance(error, FileNotFoundError | FileExistsError | IsADirectoryError)
    return (BAD_INPUT, str(error)) if named else None


def _of_platform() -> tuple[int, str] | None:
    """The words for devices that JAX does not find."""
    import jax

    try:
        jax.devices()
    except _NO_DEVICES as error:
        asked, got = os.environ.get("JAX_PLATFORMS", ""), one_line(str(error) or "none")
        return BAD_INPUT, f"JAX_PLATFORMS: expected devices of {asked!r}, got {got}"
    return None


def _speaks() -> bool:
    """Whether this process prints for all."""
    processes: Any = sys.modules.get("lgd.machinery.processes")
    try:
        return processes is None or processes.is_main_process()
    except _NO_DEVICES:
        return True


def _leave(number: int, frame: object) -> None:
    """End at once where there is nothing to save."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(STOPPED)
