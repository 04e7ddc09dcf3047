"""Learn guidance, compare it with tuned hand-made schedules, write a report.

    python -m experiments.run --config=configs/digits.py --workdir=runs/digits

Stages (--stages=denoiser,collect,guidance,evaluate,report) that are done are skipped, interrupted
ones resumed. Any field of the config can be set: --config.denoiser.level=well. configs/default.py
documents the fields. Several processes: docs/scale-out.md.

Exit codes: 0 done; 2 a mistake in the arguments, or a folder that cannot be used; 3 numbers that
are not finite, or too little memory or disk; 75 stopped by SIGTERM or Ctrl-C with everything saved;
128 + n ended by a second signal n. The same command resumes a run.
"""

import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict

from experiments import config as configs
from experiments import console
from lgd.machinery import paths

STAGES = ("denoiser", "collect", "guidance", "evaluate", "report")

_CONFIG = flags.DEFINE_string("config", "", "Config file, for example configs/digits.py.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder for everything the run leaves behind.")
_STAGES = flags.DEFINE_list("stages", list(STAGES), f"Stages to run, of {', '.join(STAGES)}.")
_RESTART_DAMAGED = flags.DEFINE_bool(
    "restart_damaged",
    False,
    "Start a training over whose every checkpoint is damaged or gone, instead of refusing to.",
)
_REDO = flags.DEFINE_string(
    "redo", "", "A stage whose files, and those of later stages, are deleted and made again."
)
_ADOPT = flags.DEFINE_bool(
    "adopt",
    False,
    "Take the files in the workdir as they are: networks of another run, the folder of an older "
    "version, changes by hand. The ledger of the workdir then knows them.",
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes of Slurm, Open MPI or a TPU pod."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "host:port of process 0, for processes started by hand."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "With --coordinator: how many.")
_START_SECONDS = flags.DEFINE_integer(
    "start_seconds", 120, "How long the processes wait for the last of them to start."
)
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "With --coordinator: which one, from 0.")


def main(argv: Sequence[str], overrides: Sequence[str]) -> None:
    """Run the stages; cheap checks come first, before JAX is imported."""
    config, workdir = _checked(argv, overrides)
    from lgd.machinery import progress

    with progress.phase("start"):
        from experiments import pipeline
        from lgd.machinery import processes, stopping

        logging.set_verbosity(logging.WARNING)
        _join()
    if not processes.is_main_process():
        logging.set_verbosity(logging.ERROR)  # process 0 warns for all
    stages = [name for name in STAGES if name in _STAGES.value]
    with processes.leaving_at_once(), stopping.on_signals(), console.in_words():
        pipeline.run(
            config,
            str(workdir),
            stages,
            command=_command(overrides),
            restart_damaged=_RESTART_DAMAGED.value,
            redo=_REDO.value,
            adopt=_ADOPT.value,
        )


def _join() -> None:
    """Join the other processes, if there are any."""
    from lgd.machinery import processes

    if not (_COORDINATOR.value or _DISTRIBUTED.value):
        return
    for number in (signal.SIGTERM, signal.SIGINT):  # no Python runs while JAX waits for the others
        signal.signal(number, signal.SIG_DFL)
    given = bool(_COORDINATOR.value)
    try:
        processes.initialize(
            _COORDINATOR.value or None,
            _NUM_PROCESSES.value if given else None,
            _PROCESS_ID.value if given else None,
            _START_SECONDS.value,
        )
    except processes.CountError as error:
        console.refuse(f"--num_processes: {error}")
    except ValueError as error:
        console.refuse(f"--distributed: expected Slurm, Open MPI or a TPU pod, got none: {error}")


def _command(overrides: Sequence[str]) -> str:
    """Return the command that repeats this run, without its workdir."""
    fields = [f"--config.{override}" for override in overrides]
    return shlex.join(["python", "-m", "experiments.run", f"--config={_CONFIG.value}", *fields])


def _checked(argv: Sequence[str], overrides: Sequence[str]) -> tuple[ConfigDict, Path]:
    """Return the config and the workdir, or exit with all mistakes in one message."""
    errors = [f"expected no positional arguments, got {arg!r}" for arg in argv[1:]]
    errors += [
        f"--stages: expected names of {', '.join(STAGES)}, got {name!r}"
        for name in _STAGES.value
        if name not in STAGES
    ]
    if _REDO.value not in ("", *STAGES):
        errors.append(f"--redo: expected one of {', '.join(STAGES)}, got {_REDO.value!r}")
    errors += _wrong_process()
    workdir = Path()
    try:
        workdir = paths.local(_WORKDIR.value or "~")
    except paths.InputFileError as error:
        errors.append(f"--workdir: {error}")
    if not _WORKDIR.value:
        errors.append("--workdir: expected a folder, got none, for example --workdir=runs/digits")
    if not _CONFIG.value:
        errors.append("--config: expected a file, got none, for example configs/digits.py")
        console.refuse(*errors)
    try:
        config = configs.load(_CONFIG.value, overrides)
    except configs.ConfigError as error:
        console.refuse(*errors, *error.errors)
    if errors:
        console.refuse(*errors)
    return config, workdir


def _wrong_process() -> list[str]:
    """Return the mistakes in the flags for several processes."""
    count, index = _NUM_PROCESSES.value, _PROCESS_ID.value
    if not _COORDINATOR.value:
        alone = [f"--{flag.name}" for flag in (_NUM_PROCESSES, _PROCESS_ID) if flag.present]
        return [f"{name}: expected together with --coordinator, got it alone" for name in alone]
    errors = []
    if ":" not in _COORDINATOR.value:
        errors.append(f"--coordinator: expected host:port, got {_COORDINATOR.value!r}")
    if count < 1:
        errors.append(f"--num_processes: expected a number >= 1, got {count}")
    if not 0 <= index < max(count, 1):
        errors.append(f"--process_id: expected a number in [0, {count}), got {index}")
    return errors


def _parsed(argv: Sequence[str]) -> list[str]:
    """What the flags leave of the arguments."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        console.refuse(error)
    except SystemExit:  # --help, where absl ends with 1
        sys.exit(0)


def launch(given: Callable[[], Sequence[str]] = tuple) -> None:
    """Start from the command line; overrides of the config are removed before absl parses it.

    given: overrides that further flags stand for, which come before those of the command line.
    """
    overrides, rest = configs.split_overrides(sys.argv)
    app.run(lambda argv: main(argv, [*given(), *overrides]), argv=rest, flags_parser=_parsed)


if __name__ == "__main__":
    console.command(launch)
