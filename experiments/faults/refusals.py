"""Mistakes in a config, and changes of the config of a workdir."""

import os
from collections.abc import Iterator

from experiments.faults.bench import Bench
from experiments.faults.endings import REFUSED

SECONDS = 3.0  # of computing, for a config with mistakes

MISTAKES = (
    "seed=-1",
    "data.name=Digits",
    "data.num_train=nan",
    "data.num_validation=0",
    "data.num_test=1e3",
    "schedule=vp",
    "denoiser.level=good",
    "denoiser.num_steps.under=0",
    "denoiser.kind=V",
    "denoiser.width=-4",
    "denoiser.batch_size=many",
    "denoiser.learning_rate=nan",
    "denoiser.ema_decay=1",
    "denoiser.label_dropout=-.1",
    "denoiser.times=normal",
    "sampling.num_steps=2",
    "sampling.grid=karras",
    "sampling.solver=rk4",
    "sampling.churn=inf",
    "guidance.methods=l3",
    "guidance.start=here",
    "guidance.omega.output=tanh",
    "guidance.omega.max=-1",
    "guidance.one_step.beta=2.5",
    "guidance.one_step.lam=nan",
    "guidance.one_step.coupling=none",
    "guidance.trajectory.learning_rate=0",
    "guidance.trajectory.grid_scales=2",
    "evaluation.test_seeds=1",
    "evaluation.constant_weights=0,2,1",
    "evaluation.interval_weights=()",
    "evaluation.interval_upper=1.5",
    "classifier.width=1.5",
    "training.save_every=0",
    "training.loggers=disk",
    "training.clip=",
    "mesh.fsdp=0",
    "sede=1",
    "gidance.methods=l2",
    "data=3",
)

CHANGES = (  # of data, batch, optimizer, model and schedule
    "seed=7",
    "data.num_train=152",
    "denoiser.batch_size=8",
    "denoiser.learning_rate=0.01",
    "denoiser.ema_decay=0.9",
    "denoiser.width=9",
    "denoiser.kind=x0",
    "schedule=cosine",
    "training.clip=2",
)
HARMLESS = (
    "training.save_every=7",
    "training.max_skipped=3",
    "training.stall_seconds=5",
    "mesh.data=1",
)


def mistakes(bench: Bench) -> Iterator[str]:
    """Make many mistakes: all are listed at once, quickly, before JAX is imported."""
    with bench.copy("denoiser") as workdir:
        before = os.times()
        flags = [f"--config.{mistake}" for mistake in MISTAKES]
        environment = bench.environment | {"PYTHONPROFILEIMPORTTIME": "1"}
        ended = bench.launch(workdir, ["denoiser"], *flags, env=environment)
        after = os.times()
    lines = ended.out.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time")}
    messages = [line for line in lines if not line.startswith("import time")]
    seconds = sum(
        getattr(after, n) - getattr(before, n) for n in ("children_user", "children_system")
    )
    if ended.code != REFUSED or imported & {"jax", "numpy"} or seconds > SECONDS:
        yield f"expected exit 2 within {SECONDS} s without JAX, got {ended.code}, {seconds:.1f} s"
    for mistake in MISTAKES:
        field = mistake.partition("=")[0]
        count = sum(line.startswith(f"{field}: expected ") for line in messages)
        yield "" if count == 1 else f"expected one line about {field}, got {count}: {messages}"
    right = len(messages) == len(MISTAKES)
    yield "" if right else f"expected {len(MISTAKES)} lines, got {messages}"


def changes(bench: Bench) -> Iterator[str]:
    """Change the config of a workdir: all differences are named; harmless ones are accepted."""
    with bench.copy("guidance") as workdir:
        before = (workdir / "config.json").read_bytes()
        flags = [f"--config.{change}" for change in (*CHANGES, *HARMLESS)]
        ended = bench.launch(workdir, ["denoiser"], *flags)
        kept = (workdir / "config.json").read_bytes() == before
        yield "" if ended.code == REFUSED and kept else f"expected exit 2, got {ended}"
        for change in CHANGES:
            field = change.partition("=")[0]
            named = f"  {field}: " in ended.out and " -> " in ended.out
            yield "" if named else f"expected {field} to be named, got {ended.out}"
        flags = [f"--config.{change}" for change in HARMLESS]
        harmless = bench.launch(workdir, ["denoiser"], *flags)
        same = bench.difference(workdir, "collect")
        yield same if harmless.code == 0 else f"expected exit 0, got {harmless}"
