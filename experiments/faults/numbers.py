"""NaN, a full device, a blocked data loader and a logger that fails."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from experiments.faults.bench import STAGES, STEPS, Bench, Strike, newest_state
from experiments.faults.endings import CANNOT_GO_ON, not_resumed, wrong_end

BATCHES = "lgd.data.pipeline:IndexedBatches.__call__"


def one_step(bench: Bench) -> Iterator[str]:
    """Return NaN in one batch: the step is skipped and counted, and the run ends normally."""
    with bench.copy("denoiser") as workdir:
        ended = bench.launch(workdir, ["denoiser"], strike=Strike(BATCHES, 9, "nan:1"))
        lines = [
            json.loads(line) for line in (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
        ]
        counts = [line.get("skipped", 0) for line in lines]
        finite = np.isfinite([value for line in lines[:7] for value in list(line.values())[1:]])
        params = load_file(workdir / "params" / "denoiser.safetensors")
        whole = finite.all() and all(np.isfinite(value).all() for value in params.values())
        right = ended.code == 0 and counts == [0] * 7 + [1] * (STEPS - 7) and whole
        yield "" if right else f"expected one skipped step, got {counts}, {ended}"


def many_steps(bench: Bench) -> Iterator[str]:
    """Return NaN in all batches from a step on: the run ends with the parameters before it."""
    with bench.copy("denoiser") as workdir:
        strike = Strike(BATCHES, 9, f"nan:{STEPS}")
        ended = bench.launch(workdir, ["denoiser"], strike=strike)
        yield wrong_end(ended, CANNOT_GO_ON, "steps 8 to 17: expected finite")
        noted = json.loads((workdir / "non_finite.json").read_text("utf-8"))
        ids = noted["examples"]
        right = noted["steps"] == list(range(8, 18)) and {len(batch) for batch in ids} == {16}
        yield "" if right else f"expected the steps and their examples, got {noted}"
        before = newest_state(workdir / "checkpoints" / "denoiser")
        again = bench.launch(workdir, ["denoiser"])
        went_on = again.code == 0 and before["step"] == 15
        yield "" if went_on else f"expected to go on from step 15, got {before['step']}, {again}"


def denoiser(bench: Bench, stage: str) -> Iterator[str]:
    """Make the denoiser return NaN: the error names t, and no sample is measured."""
    with bench.copy(stage) as workdir:
        strike = Strike("lgd.denoisers.network:NetworkDenoiser.apply", 1, "nan:1000")
        ended = bench.launch(workdir, [stage], strike=strike)
        message = ", t from " if stage == "collect" else "inf at t = "
        yield wrong_end(ended, CANNOT_GO_ON, message)
        yield not_resumed(bench, workdir, stage)


def memory(bench: Bench, stage: str, place: str) -> Iterator[str]:
    """Run out of device memory: the error says which setting to reduce, and the run can go on."""
    with bench.copy(stage) as workdir:
        ended = bench.launch(workdir, [stage], strike=Strike(place, 2, "oom"))
        yield wrong_end(ended, CANNOT_GO_ON, "batch size", "jax.checkpoint") or not_resumed(
            bench, workdir, stage
        )


def blocked_loader(bench: Bench) -> Iterator[str]:
    """Block the data loader: the run reports where it waits and for how long, and continues."""
    with bench.copy("denoiser") as workdir:
        strike = Strike(BATCHES, 9, "sleep:3")
        ended = bench.launch(
            workdir, ["denoiser"], "--config.training.stall_seconds=1", strike=strike
        )
        _, report, stacks = ended.out.partition("the last: step 7. Every thread is here:")
        where = report and "inject.py" in stacks and "training/loop.py" in stacks
        wrong = "" if where and ended.code == 0 else f"expected a report, got {ended.out}"
        yield wrong or bench.difference(workdir, "denoiser")


def logger(bench: Bench) -> Iterator[str]:
    """TensorBoard fails in the middle: it is dropped with a warning, and nothing else changes."""
    with bench.copy("denoiser") as workdir:
        strike = Strike("tensorboardX:SummaryWriter.add_scalar", 9, "raise")
        flags = ["--config.training.loggers=tensorboard"]
        ended = bench.launch(workdir, ["denoiser"], *flags, strike=strike)
        yield wrong_end(ended, 0, "TensorBoard failed and is left out: injected") or (
            bench.difference(workdir, "denoiser")
        )


def no_logger(bench: Bench) -> Iterator[str]:
    """Hide the package of TensorBoard: a warning names it, and nothing else changes."""
    with bench.copy("denoiser") as workdir, tempfile.TemporaryDirectory() as packages:
        (Path(packages) / "tensorboardX.py").write_text(
            "raise ModuleNotFoundError('tensorboardX')", "utf-8"
        )
        path = os.pathsep.join([packages, os.environ.get("PYTHONPATH", "")])
        environment = bench.environment | {"PYTHONPATH": path}
        flags = ["--config.training.loggers=tensorboard"]
        ended = bench.launch(workdir, ["denoiser"], *flags, env=environment)
        yield wrong_end(ended, 0, "tensorboard is left out: expected the package tensorboardX") or (
            bench.difference(workdir, "denoiser")
        )


def nothing(bench: Bench) -> Iterator[str]:
    """Inject nothing: a run of all stages equals one stage by stage, figures included."""
    with bench.copy("denoiser") as workdir:
        ended = bench.launch(workdir, STAGES)
        yield wrong_end(ended, 0) or bench.difference(workdir, "report")
