"""Disks that are full, read-only or in use, and damaged files of a run."""

import ctypes
import pickle
import resource
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.faults.bench import INJECTED, TIMEOUT, Bench, Strike, started
from experiments.faults.damage import DAMAGES, flip
from experiments.faults.endings import CANNOT_GO_ON, REFUSED, not_resumed, wrong_end

LARGE = 6_000  # bytes of a file that the limited disk refuses: a checkpoint, not config.json

FULL: dict[str, tuple[str, Strike]] = {
    "a save": ("denoiser", Strike("lgd.machinery.checkpoint:fsync", 30, "full")),
    "the first save": ("denoiser", Strike("lgd.machinery.checkpoint:fsync", 2, "full")),
    "the final parameters": ("denoiser", Strike("lgd.machinery.storage:packed", 1, "full")),
    "metrics": ("denoiser", Strike("experiments.workdir.lines:append", 7, "full")),
    "a snapshot": ("guidance", Strike("lgd.machinery.storage:packed", 2, "full")),
    "a measurement": ("evaluate", Strike("lgd.evaluation.journal:Journal._append", 5, "full")),
    "the results": ("evaluate", Strike("experiments.workdir.folder:write_json", 1, "full")),
    "the report": ("report", Strike("lgd.plots:save", 3, "full")),
}


def full(bench: Bench, moment: str) -> Iterator[str]:
    """Fill the disk at one write: the run ends with a message, and continues with more space."""
    stage, strike = FULL[moment]
    with bench.copy(stage) as workdir:
        ended = bench.launch(workdir, [stage], strike=strike)
        came = "" if INJECTED in ended.out else f"the moment did not come:\n{ended.out}"
        yield (
            came
            or wrong_end(ended, CANNOT_GO_ON, "No space left")
            or not_resumed(bench, workdir, stage)
        )


def limited(bench: Bench) -> Iterator[str]:
    """Refuse all large files, as a full disk does, wherever the program writes them."""

    def limit() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE, hard))

    # A cache of compiled programs, if there is one, would be left with half of them.
    environment = bench.environment | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    with bench.copy("denoiser") as workdir:
        ended = bench.launch(workdir, ["denoiser"], preexec_fn=limit, env=environment)
        yield wrong_end(ended, CANNOT_GO_ON, "was not saved") or not_resumed(
            bench, workdir, "denoiser"
        )


def read_only(bench: Bench) -> Iterator[str]:
    """Deny writing to a workdir, new or existing: the run is refused."""
    with bench.copy("denoiser") as workdir:
        for path in (workdir, workdir / "new"):
            workdir.chmod(0o555)
            ended = bench.launch(path, ["denoiser"], preexec_fn=_obey_permissions)
            workdir.chmod(0o755)
            yield wrong_end(ended, REFUSED, f"{path}: expected a folder to write to")
        yield not_resumed(bench, workdir, "denoiser")


def _obey_permissions() -> None:
    """Drop the privileges by which root writes to read-only folders."""
    prctl, drop_capability = ctypes.CDLL(None).prctl, 24
    for override in (1, 2, 3):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
        prctl(drop_capability, override, 0, 0, 0)


def locked(bench: Bench) -> Iterator[str]:
    """Start a second run in a workdir: a live run locks it, the lock of a dead run is ignored."""
    strike = Strike("lgd.machinery.parallel:place_batch", 8, f"sleep:{TIMEOUT}")
    with bench.copy("denoiser") as workdir:
        argv = bench.argv(workdir, ["denoiser"], strike=strike)
        with started(argv, env=bench.environment) as (process, output):
            _wait(lambda: INJECTED in output())
            second = bench.launch(workdir, ["denoiser"])
            yield wrong_end(
                second, REFUSED, f"expected no other run in it, got process {process.pid}"
            )
            process.send_signal(signal.SIGKILL)
        yield not_resumed(bench, workdir, "denoiser")


def _wait(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("the moment did not come")
        time.sleep(0.05)


class _Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return subprocess.call, (["touch", str(self.trace)],)


def _as_pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps(_Payload(file.with_name("ran"))))


def _as_torch(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Payload(file.with_name("ran"))))


WEIGHTS: dict[str, Callable[[Path], object]] = {
    "with a flipped bit": flip,
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "as a pickle": _as_pickle,
    "as a PyTorch file": _as_torch,
}


def weights(bench: Bench, damage: str) -> Iterator[str]:
    """Damage the denoiser's parameters, or replace them by a file that runs code when unpickled."""
    with bench.copy("guidance") as workdir:
        file = workdir / "params" / "denoiser.safetensors"
        WEIGHTS[damage](file)
        ended = bench.launch(workdir, ["guidance"])
        ran = file.with_name("ran").exists()
        said = f"{file}: expected what this run wrote"
        yield "the code in it ran" if ran else wrong_end(ended, REFUSED, said)


def shards(bench: Bench, damage: str) -> Iterator[str]:
    """Damage every file of the statistics in turn: the run refuses them."""
    with bench.copy("guidance") as workdir:
        for file in sorted((workdir / "statistics" / "train-copies").iterdir()):
            whole = file.read_bytes()
            DAMAGES[damage](file)
            ended = bench.launch(workdir, ["guidance"])
            file.write_bytes(whole)
            yield wrong_end(ended, REFUSED, "train-copies")
        yield not_resumed(bench, workdir, "guidance")


def swapped_shards(bench: Bench) -> Iterator[str]:
    """Swap two shards of the statistics: the run refuses them."""
    with bench.copy("guidance") as workdir:
        folder = workdir / "statistics" / "train-copies"
        one, other = sorted(folder.glob("*.safetensors"))[:2]
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
        yield wrong_end(bench.launch(workdir, ["guidance"]), REFUSED, "train-copies")


def other_data(bench: Bench) -> Iterator[str]:
    """Change the recorded digests of the data: the run is refused."""
    with bench.copy("guidance") as workdir:
        file = workdir / "data.json"
        text = file.read_text("utf-8")
        file.write_text(text.replace(text[40:44], "0000"), "utf-8")
        yield wrong_end(
            bench.launch(workdir, ["guidance"]), REFUSED, f"{file}: expected what this run wrote"
        )
