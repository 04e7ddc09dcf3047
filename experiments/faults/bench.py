"""A small run, started as users start it, whose results are compared bit for bit."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lgd.machinery import digests

INJECTED = "injected at "  # precedes the time in the report of `inject`
ROOT = Path(__file__).resolve().parents[2]
STAGES = ("denoiser", "collect", "guidance", "evaluate", "report")
TIMEOUT = 900  # seconds after which a run counts as hanging
STEPS, SAVE_EVERY = 20, 5  # of the denoiser
TINY = (
    "data.num_train=160",
    "data.num_validation=80",
    "data.num_test=80",
    f"denoiser.num_steps.under={STEPS}",
    "denoiser.width=8",
    "denoiser.depth=1",
    "denoiser.batch_size=16",
    "sampling.num_steps=3",
    "statistics.num_examples=64",
    "statistics.num_held_out=32",
    "statistics.batch_size=16",
    "statistics.shard_examples=32",
    "guidance.methods=self_consistency,trajectory",
    "guidance.num_snapshots=2",
    "guidance.omega.width=8",
    "guidance.omega.depth=1",
    "guidance.one_step.num_steps=6",
    "guidance.one_step.batch_size=16",
    "guidance.trajectory.num_steps=4",
    "guidance.trajectory.num_particles=2",
    "guidance.trajectory.num_targets=2",
    "evaluation.num_samples=40",
    "evaluation.num_screening=40",
    "evaluation.num_finalists=1",
    "evaluation.validation_seeds=1",
    "evaluation.test_seeds=2",
    "evaluation.constant_weights=0,0.5,1",
    "evaluation.interval_weights=0.5",
    "evaluation.interval_lower=0.2",
    "evaluation.interval_upper=0.8",
    "evaluation.clamp_linear_scales=0.8",
    f"training.save_every={SAVE_EVERY}",
    "training.log_every=1",
)


class Ended(NamedTuple):
    """The end of a process: exit code, negative for a signal; output; seconds since the fault."""

    code: int
    out: str
    seconds: float


class Strike(NamedTuple):
    """An action at the n-th call of a function, see `inject`; place is ``module:name``."""

    place: str
    number: int
    action: str


class Bench:
    """A folder of runs that share a cache of compiled functions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        self._before: dict[str, Path] = {}
        self._seconds: dict[str, float] = {}

    def argv(
        self, workdir: Path, stages: Sequence[str], *flags: str, strike: Strike | None = None
    ) -> list[str]:
        """Return the command line of a run of some stages."""
        module = ["experiments.run"]
        if strike is not None:
            module = ["experiments.faults.inject", *map(str, strike), "--"]
        settings = [f"--config={ROOT}/configs/mixture.py", f"--workdir={workdir}"]
        settings += [f"--config.{override}" for override in TINY]
        settings.append(f"--stages={','.join(stages)}")
        return [sys.executable, "-m", *module, *settings, *flags]

    def launch(
        self,
        workdir: Path,
        stages: Sequence[str],
        *flags: str,
        strike: Strike | None = None,
        during: Callable[[subprocess.Popen], None] | None = None,
        **settings: Any,
    ) -> Ended:
        """Run stages to the end.

        Args:
          workdir: the folder of the run.
          stages: names of the stages.
          *flags: further flags of the launcher.
          strike: a fault inside the process.
          during: called with the process, to act on it from outside.
          **settings: arguments of `subprocess.Popen`.
        """
        argv = self.argv(workdir, stages, *flags, strike=strike)
        with started(argv, **{"env": self.environment, **settings}) as (process, output):
            if during is not None:
                during(process)
            process.wait(timeout=TIMEOUT)
            ended, text = time.time(), output()
        at = [line for line in text.splitlines() if line.startswith(INJECTED)]
        since = float(at[-1].removeprefix(INJECTED)) if at else ended
        return Ended(process.returncode, text, ended - since)

    def before(self, stage: str) -> Path:
        """Return a workdir in which all stages before this one are done; do not change it."""
        if stage not in self._before:
            self._before[stage] = self._prepare(stage)
        return self._before[stage]

    def _prepare(self, stage: str) -> Path:
        folder = self.folder / f"before-{stage}"
        index = STAGES.index(stage)
        if index == 0:
            folder.mkdir(parents=True)
            return folder
        shutil.copytree(self.before(STAGES[index - 1]), folder)
        self._finish(folder, STAGES[index - 1])
        return folder

    def _finish(self, workdir: Path, stage: str) -> None:
        start = time.monotonic()
        done = self.launch(workdir, [stage])
        self._seconds[stage] = time.monotonic() - start
        if done.code != 0:
            raise RuntimeError(
                f"stage {stage} without any fault ended with {done.code}:\n{done.out}"
            )

    def after(self, stage: str) -> Path:
        """Return a workdir in which this stage is done without any fault; do not change it."""
        following = {name: STAGES[i + 1] for i, name in enumerate(STAGES[:-1])}
        if stage in following:
            return self.before(following[stage])
        if "end" not in self._before:
            folder = shutil.copytree(self.before(stage), self.folder / "end")
            self._finish(folder, stage)
            self._before["end"] = folder
        return self._before["end"]

    def seconds(self, stage: str) -> float:
        """Return the duration of a stage without a fault, in seconds."""
        self.after(stage)
        return self._seconds[stage]

    @contextlib.contextmanager
    def copy(self, stage: str) -> Iterator[Path]:
        """Yield a copy of a workdir in which all stages before this one are done."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield shutil.copytree(self.before(stage), Path(folder) / "run")

    def difference(self, workdir: Path, stage: str) -> str:
        """Return a text naming the files that differ from a run without a fault, or ""."""
        actual, expected = outcome(workdir), outcome(self.after(stage))
        differing = [n for n in sorted(actual | expected) if actual.get(n) != expected.get(n)]
        return f"{', '.join(differing)} differ" if differing else ""


@contextlib.contextmanager
def started(
    argv: Sequence[str], **settings: Any
) -> Iterator[tuple[subprocess.Popen, Callable[[], str]]]:
    """Start a process, and yield it with a function that returns its output; kill it at the end."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(argv, **{"cwd": ROOT, **pipes, **settings})
    lines: list[bytes] = []

    def read() -> None:
        assert process.stdout is not None
        lines.extend(process.stdout)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def output() -> str:
        if process.poll() is not None:
            reader.join(timeout=10)
        return b"".join(lines).decode(errors="replace")

    try:
        yield process, output
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        reader.join(timeout=10)
        if process.stdout is not None:
            process.stdout.close()


def outcome(workdir: Path) -> dict[str, str]:
    """Return digests, by name, of everything in a workdir that interruptions must not change."""
    names = [workdir / name for name in ("metrics.jsonl", "measured.jsonl", "results.json")]
    names += [*workdir.glob("params/**/*.safetensors"), *workdir.glob("report/*")]
    names = [file for file in names if file.suffix != ".html"]  # which says how long things took
    names += [file for file in workdir.glob("statistics/**/*") if file.is_file()]
    sums = {
        str(file.relative_to(workdir)): digests.of_file(file) for file in names if file.exists()
    }
    for ledger in workdir.glob("checkpoints/**/LEDGER"):
        sums[str(ledger.parent.relative_to(workdir))] = json.dumps(newest_state(ledger.parent))
    return sums


def newest_state(store: Path) -> Mapping[str, Any]:
    """Return the step of the newest checkpoint and the digests of its arrays; {} without one."""
    commits = list(store.glob("[0-9]*/COMMIT"))
    if not commits:
        return {}
    newest = max(commits, key=lambda commit: int(commit.parent.name))
    value = json.loads(newest.read_bytes().partition(b" ")[2])
    return {name: value[name] for name in ("step", "leaves")}
