"""SIGTERM, SIGINT and SIGKILL at all kinds of moments of every stage."""

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.faults.bench import INJECTED, STEPS, Bench, Ended, Strike, newest_state
from experiments.faults.endings import STOPPED, not_resumed, wrong_end

LIMIT = 10.0  # seconds from the signal to the end, on an idle processor

MOMENTS: dict[str, tuple[str, Strike]] = {
    "the start": ("denoiser", Strike("experiments.run:_join", 1, "")),
    "first compile": ("denoiser", Strike("lgd.training.loop:make_step", 1, "")),
    "data fetch": ("denoiser", Strike("lgd.data.pipeline:IndexedBatches.__call__", 9, "")),
    "step": ("denoiser", Strike("lgd.machinery.parallel:place_batch", 8, "")),
    "before the first commit": ("denoiser", Strike("lgd.machinery.checkpoint:fsync", 3, "")),
    "save": ("denoiser", Strike("lgd.machinery.checkpoint:CheckpointStore._record", 2, "")),
    "last step": ("denoiser", Strike("lgd.machinery.parallel:place_batch", STEPS, "")),
    "final parameters": ("denoiser", Strike("lgd.machinery.storage:packed", 1, "")),
    "collection": ("collect", Strike("lgd.machinery.parallel:place_batch", 3, "")),
    "second shard": ("collect", Strike("lgd.gram.collect:_append", 2, "")),
    "fit from statistics": ("guidance", Strike("lgd.gram.fit:_run", 1, "")),
    "start schedules": ("guidance", Strike("lgd.omega:StepTable.tabulate", 3, "")),
    "guidance step": ("guidance", Strike("lgd.machinery.parallel:place_batch", 7, "")),
    "guidance save": ("guidance", Strike("lgd.machinery.checkpoint:fsync", 10, "")),
    "sampling": ("evaluate", Strike("lgd.sampling:sample", 5, "")),
    "evaluation": ("evaluate", Strike("lgd.evaluation.journal:Journal._append", 9, "")),
    "measuring": ("evaluate", Strike("lgd.evaluation.measures:EnergyMeasure.__call__", 3, "")),
    "results": ("evaluate", Strike("experiments.workdir.folder:write_json", 1, "")),
    "report": ("report", Strike("lgd.plots:save", 2, "")),
}


def interrupt(bench: Bench, moment: str, signal: str) -> Iterator[str]:
    """Send a signal at a moment, then run the same command again."""
    stage, strike = MOMENTS[moment]
    with bench.copy(stage) as workdir:
        first = bench.launch(workdir, [stage], strike=strike._replace(action=signal))
        wrong = _killed(first) if signal == "KILL" else _stopped(first)
        if not wrong and signal != "KILL" and moment in ("step", "data fetch"):
            wrong = _unsaved(workdir, strike.number)
        yield wrong or not_resumed(bench, workdir, stage)


def at_the_end(bench: Bench, signal: str) -> Iterator[str]:
    """Send a signal when all is done and Python ends: the run has ended well."""
    with bench.copy("collect") as workdir:  # whose denoiser is there
        strike = Strike("threading:_shutdown", 1, signal)
        yield wrong_end(bench.launch(workdir, ["denoiser"], strike=strike), 0, INJECTED)


def twice(bench: Bench) -> Iterator[str]:
    """Send two signals: the second one ends a run that does not respond to the first."""
    strike = Strike("lgd.machinery.parallel:place_batch", 8, "TERM+sleep:1+INT+sleep:60")
    yield from _deaf(bench, strike, code=130, limit=3.0)


def no_answer(bench: Bench) -> Iterator[str]:
    """Send one signal during a step that does not end, such as a long compilation."""
    strike = Strike("lgd.training.loop:make_step", 1, "TERM+sleep:60")
    yield from _deaf(bench, strike, code=STOPPED, limit=LIMIT)


def _deaf(bench: Bench, strike: Strike, *, code: int, limit: float) -> Iterator[str]:
    with bench.copy("denoiser") as workdir:
        ended = bench.launch(workdir, ["denoiser"], strike=strike)
        wrong = _expected(ended, code, limit)
        yield wrong or not_resumed(bench, workdir, "denoiser")


def random_kill(bench: Bench, stage: str, seed: int) -> Iterator[str]:
    """Kill the run at a random time of a stage."""
    with bench.copy(stage) as workdir:
        whole = bench.seconds(stage)
        wait = random.Random(seed).uniform(0.2, 1.0) * whole

        def kill(process: subprocess.Popen) -> None:
            time.sleep(wait)
            process.kill()

        ended = bench.launch(workdir, [stage], during=kill)
        wrong = "" if ended.code in (0, -9) else f"expected exit -9, got {ended.code}"
        yield wrong or not_resumed(bench, workdir, stage)


def _unsaved(workdir: Path, number: int) -> str:
    """Return "" if the step before the n-th is saved, or the n-th, which may have begun."""
    step = newest_state(workdir / "checkpoints" / "denoiser").get("step")
    return "" if step in (number - 1, number) else f"expected step {number - 1} saved, got {step}"


def _stopped(ended: Ended) -> str:
    return _expected(ended, STOPPED, LIMIT)


def _killed(ended: Ended) -> str:
    return _expected(ended, -9, LIMIT)


def _expected(ended: Ended, code: int, limit: float) -> str:
    if INJECTED not in ended.out:
        return f"the moment did not come:\n{ended.out}"
    if ended.code != code:
        return f"expected exit {code}, got {ended.code}:\n{ended.out}"
    shared = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # processes on each processor
    if ended.seconds > limit * shared:
        return f"expected an end within {limit:g} s, got {ended.seconds:.1f} s (load {shared:.1f})"
    return "" if "Traceback" not in ended.out else f"expected no traceback, got:\n{ended.out}"
