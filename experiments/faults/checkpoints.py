"""Damaged checkpoints of a run that is resumed."""

from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.faults.bench import Bench, Strike
from experiments.faults.damage import flip
from experiments.faults.endings import REFUSED, wrong_end
from lgd.machinery.checkpoint import COMMIT_FILE, LEDGER_FILE, QUARANTINE

STOPPED_AT = 13  # where the runs below are stopped: saved there, and at step 10


def under_a_run(bench: Bench, damage: Callable[[Path], object] = flip) -> Iterator[str]:
    """Damage the newest checkpoint: the run continues from the one before."""
    with bench.copy("denoiser") as workdir:
        store = _stopped(bench, workdir)
        damage(next((store / str(STOPPED_AT) / "state").rglob("manifest.ocdbt")))
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
    """Damage all checkpoints: the run is refused without --restart_damaged."""
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


def in_a_place(bench: Bench, name: str) -> Iterator[str]:
    """Put a file in the place of a folder of the store, or the reverse: the run is refused."""
    with bench.copy("denoiser") as workdir:
        store = _stopped(bench, workdir)
        flip(store / str(STOPPED_AT) / COMMIT_FILE)
        if name == QUARANTINE:
            (store / name).write_text("a file", "utf-8")
        else:
            (store / name).unlink()
            (store / name).mkdir()
        words = {QUARANTINE: "expected a folder, got a file", LEDGER_FILE: "found none"}
        refused = bench.launch(workdir, ["denoiser"])
        yield wrong_end(refused, REFUSED, f"{store / name}: expected", words[name])


def _stopped(bench: Bench, workdir: Path) -> Path:
    """Return the store of a denoiser whose training was stopped at `STOPPED_AT`."""
    strike = Strike("lgd.machinery.parallel:place_batch", STOPPED_AT, "TERM")
    ended = bench.launch(workdir, ["denoiser"], strike=strike)
    store = workdir / "checkpoints" / "denoiser"
    if not (store / str(STOPPED_AT)).is_dir():
        raise RuntimeError(f"expected a checkpoint of step {STOPPED_AT}:\n{ended.out}")
    return store
