"""How every command starts, what it says and how it ends."""

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from experiments import console, run
from experiments.config import ConfigError
from experiments.pipeline import MisfitError
from experiments.publish import study
from experiments.workdir import WorkdirError
from lgd.exchange.schedules import ScheduleError
from lgd.gram import StatisticsError
from lgd.machinery import processes, stopping
from lgd.machinery.checkpoint import CheckpointError, NotSavedError
from lgd.machinery.failures import DeviceMemoryError, NonFiniteError, OtherTrainingError
from lgd.machinery.paths import InputFileError

ROOT = Path(__file__).resolve().parents[1]


def ended(code, **environment):
    """A process of its own, which knows `console` and ``end``, a signal to itself."""
    start = "import os, signal, sys, threading\nfrom experiments import console\n"
    settings = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, env=settings, timeout=100
    )


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError(["a", "b"]), 2, "a\nb\n"),
        (MisfitError(["mesh: a"]), 2, "mesh: a\n"),
        (WorkdirError("a"), 2, "a\n"),
        (CheckpointError("a"), 2, "a\n"),
        (StatisticsError("a"), 2, "a\n"),
        (ScheduleError(["a"]), 2, "a\n"),
        (OtherTrainingError("a"), 2, "a\n"),
        (InputFileError("a"), 2, "a\n"),
        (processes.MainProcessError("a"), 2, ""),
        (NotSavedError("a"), 3, "NotSavedError: a\n"),
        (NonFiniteError("a"), 3, "NonFiniteError: a\n"),
        (DeviceMemoryError("a"), 3, "DeviceMemoryError: a\n"),
        (OSError(errno.ENOSPC, "no room", "f"), 3, "cannot write: [Errno 28] no room: 'f'\n"),
        (IsADirectoryError(errno.EISDIR, "a folder", "f"), 2, "f: a folder\n"),
        (OSError(errno.ELOOP, "a loop", "f"), 2, "f: a loop\n"),
        (
            FileNotFoundError("f: expected a file, found none"),
            2,
            "f: expected a file, found none\n",
        ),
        (stopping.Stopped("stopped after a"), 75, "stopped after a; the same command goes on"),
        (KeyboardInterrupt(), 75, ""),
    ],
)
def test_errors_of_input_and_machine_end_in_words(error, code, words, capsys):
    with pytest.raises(SystemExit) as stop, console.in_words():
        raise error
    assert stop.value.code == code
    said = capsys.readouterr().err
    assert said.startswith(words)
    assert bool(said) == bool(words)


@pytest.mark.parametrize("error", [RuntimeError("a"), ValueError("a"), TimeoutError("a")])
def test_errors_of_ours_keep_their_traceback(error):
    with pytest.raises(type(error)), console.in_words():
        raise error


def test_a_command_names_further_errors_of_input(capsys):
    with pytest.raises(SystemExit), console.in_words(ValueError):
        raise ValueError("expected a, got b")
    assert capsys.readouterr().err == "expected a, got b\n"


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize"), AssertionError()])
def test_devices_that_are_not_there_are_named(error, monkeypatch, capsys):
    def no_devices():
        raise error

    monkeypatch.setattr(jax, "devices", no_devices)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    with pytest.raises(SystemExit) as stop, console.in_words():
        jax.devices()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("JAX_PLATFORMS: expected devices of 'tpu', got ")


def test_an_argument_that_is_no_path_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert console.local_path("~/a") == tmp_path / "a"
    with pytest.raises(argparse.ArgumentTypeError, match="gs://a: expected a local path"):
        console.local_path("gs://a")


def test_a_terminal_with_few_characters_shows_the_rest():
    done = ended(
        "def main():\n"
        "    console.say('Fr\\u00e9chet \\u2193')\n"
        "    print('\\u00b1', file=sys.stderr)\n"
        "console.command(main)",
        LC_ALL="C",
        PYTHONUTF8="0",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Fr?chet ?\n", b"?\n")


def test_a_reader_that_is_gone_ends_no_run():
    code = (
        "from experiments import console\nconsole.command(lambda: [*map(console.say, range(9999))])"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("console.command(end)", 75),
        ("console.command(lambda: threading.__dict__.update(_shutdown=end))", 0),
        ("console.command(lambda: (threading.__dict__.update(_shutdown=end), sys.exit(3)))", 3),
    ],
    ids=["start", "end", "end in words"],
)
def test_a_signal_ends_a_command_with_a_code_of_the_readme(name, code, expected):
    """Before there is anything to save, and when all is done."""
    done = ended(f"def end():\n    os.kill(os.getpid(), signal.{name})\n{code}")
    assert done.returncode == expected
    assert b"Traceback" not in done.stderr


def test_commands_are_recorded_as_they_can_be_repeated(monkeypatch):
    monkeypatch.setattr(run, "_CONFIG", SimpleNamespace(value="my configs/a.py"))
    assert run._command(["data.path=a b", "guidance.methods=(l2,)", "seed=1"]) == (
        "python -m experiments.run '--config=my configs/a.py' '--config.data.path=a b' "
        "'--config.guidance.methods=(l2,)' --config.seed=1"
    )
    words = ["--workdir=my runs", "--out", "my place", "--name", "n", "--set=data.path=x y"]
    more = ["--set", "a.b=1 2", "--only=beta"]
    assert study._command("python -m experiments.studies floor", [*words, *more]) == (
        "python -m experiments.studies floor --workdir=... --out=... '--set=a.b=1 2' --only=beta"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    ["run", "studies", "benchmarks", "faults", "publish", "publish.documents", "convert_inception"],
)
def test_every_command_explains_itself_on_any_terminal(module):
    settings = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    argv = [sys.executable, "-m", f"experiments.{module}", "--help"]
    done = subprocess.run(argv, capture_output=True, cwd=ROOT, env=settings, timeout=100)
    assert done.returncode == 0
    assert done.stdout
    assert b"Traceback" not in done.stderr
