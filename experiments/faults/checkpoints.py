"""Damaged checkpoints: in copied folders, file by file, and under a run that goes on."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from experiments.faults.bench import Bench, Strike
from experiments.faults.damage import DAMAGES, flip
from lgd.machinery.checkpoint import COMMIT_FILE, QUARANTINE, CheckpointError, CheckpointStore
from lgd.machinery.digests import of_tree

STOPPED_AT = 13  # where the runs below are stopped: saved there, and at step 10


def state(step: int) -> dict[str, np.ndarray]:
    """What the in-process stores hold at a step."""
    draws = np.random.default_rng(step).normal(size=(8, 16)).astype(np.float32)
    return {"params": draws, "count": np.asarray(step, np.int32)}


def saved_twice(folder: Path) -> Path:
    """A store with steps 1 and 2."""
    with CheckpointStore(folder) as store:
        for step in (1, 2):
            store.save(step, state(step))
    return folder


def every_file(bench: Bench, damage: str) -> Iterator[str]:
    """One damage to each file of the newest step in turn: the step before is used, and it is said.

    One of a kind for the launcher is `under_a_run`.
    """
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        whole = saved_twice(Path(folder) / "whole")
        files = [p.relative_to(whole) for p in (whole / "2").rglob("*") if p.is_file()]
        for number, file in enumerate(files):
            root = shutil.copytree(whole, Path(folder) / str(number))
            DAMAGES[damage](root / file)
            yield falls_back(root, str(file))


def falls_back(root: Path, what: str) -> str:
    """Nothing where step 1 is restored, step 2 quarantined, and one warning names it."""
    heard = _Heard()
    logger = logging.getLogger("lgd.machinery.checkpoint")
    logger.addHandler(heard)
    try:
        with CheckpointStore(root) as store:
            restored = store.restore(state(0))
    finally:
        logger.removeHandler(heard)
    if restored is None or restored.step != 1 or of_tree(restored.state) != of_tree(state(1)):
        return f"{what}: expected step 1, got {restored and restored.step}"
    named = [message for message in heard.messages if f"{root}/2 " in message]
    return "" if len(named) == 1 else f"{what}: expected one warning, got {heard.messages}"


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _emptied(root: Path) -> None:
    shutil.rmtree(root / "2")
    (root / "2").mkdir()


def _replaced(name: str) -> Callable[[Path], None]:
    """Something of step 2 replaced by that of step 1."""

    def replace(root: Path) -> None:
        source, target = root / "1" / name, root / "2" / name
        if source.is_file():
            shutil.copy(source, target)
            return
        shutil.rmtree(target)
        shutil.copytree(source, target)

    return replace


FOLDERS: dict[str, Callable[[Path], object]] = {
    "empty folder": _emptied,
    "folder gone": lambda root: shutil.rmtree(root / "2"),
    "no commit file": lambda root: (root / "2" / COMMIT_FILE).unlink(),
    "no state": lambda root: shutil.rmtree(root / "2" / "state"),
    "older step swapped in": _replaced(""),
    "older state swapped in": _replaced("state"),
    "commit of another step": _replaced(COMMIT_FILE),
}


def folder(bench: Bench, damage: str) -> Iterator[str]:
    """Damage to the whole folder of the newest step."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as place:
        root = saved_twice(Path(place) / "store")
        FOLDERS[damage](root)
        yield falls_back(root, damage)


def all_of_them(bench: Bench) -> Iterator[str]:
    """No step left: an error that lists why, every time, unless told to start over."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as place:
        root = saved_twice(Path(place) / "store")
        for step in (1, 2):
            flip(root / str(step) / COMMIT_FILE)
        for _ in range(2):
            with CheckpointStore(root) as store:
                try:
                    yield f"expected an error, got {store.restore(state(0))}"
                except CheckpointError as error:
                    named = all(f"step {step}: " in str(error) for step in (1, 2))
                    yield "" if named else f"expected both reasons, got {error}"
        with CheckpointStore(root, restart_damaged=True) as store:
            restored = store.restore(state(0))
            store.save(1, state(1))
            yield "" if restored is None else f"expected nothing, got {restored}"


def under_a_run(bench: Bench) -> Iterator[str]:
    """The newest checkpoint of a stopped run is damaged: the run goes on from the one before."""
    with bench.copy("denoiser") as workdir:
        store = _stopped(bench, workdir)
        flip(next((store / str(STOPPED_AT) / "state").rglob("manifest.ocdbt")))
        done = bench.launch(workdir, ["denoiser"])
        if done.code != 0:
            yield f"expected exit 0, got {done.code}:\n{done.out}"
        elif f"{STOPPED_AT} is damaged, moved to " not in done.out:
            yield f"expected a line that names the step, got:\n{done.out}"
        elif not (store / QUARANTINE / f"{STOPPED_AT}.0").is_dir():
            yield "expected the damaged step in quarantine"
        else:
            yield bench.difference(workdir, "denoiser")


def under_a_run_all_of_them(bench: Bench) -> Iterator[str]:
    """Every checkpoint of a stopped run is damaged: refused, until told to start over."""
    with bench.copy("denoiser") as workdir:
        store = _stopped(bench, workdir)
        for commit in store.glob("*/" + COMMIT_FILE):
            commit.unlink()
        refused = bench.launch(workdir, ["denoiser"])
        named = all(f"step {step}: COMMIT is missing" in refused.out for step in (10, STOPPED_AT))
        if refused.code != 2 or not named or "Traceback" in refused.out:
            yield f"expected exit 2 and both reasons, got {refused.code}:\n{refused.out}"
            return
        yield ""
        again = bench.launch(workdir, ["denoiser"], "--restart_damaged")
        yield (
            bench.difference(workdir, "denoiser")
            if again.code == 0
            else f"expected exit 0 with --restart_damaged, got {again.code}:\n{again.out}"
        )


def _stopped(bench: Bench, workdir: Path) -> Path:
    """The store of a denoiser that was stopped at `STOPPED_AT`."""
    strike = Strike("lgd.machinery.parallel:place_batch", STOPPED_AT, "TERM")
    ended = bench.launch(workdir, ["denoiser"], strike=strike)
    store = workdir / "checkpoints" / "denoiser"
    if not (store / str(STOPPED_AT)).is_dir():
        raise RuntimeError(f"expected a checkpoint of step {STOPPED_AT}:\n{ended.out}")
    return store
