"""Stage 3: tune every opponent on validation data, then measure every row once on test data."""

import importlib.metadata
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import build
from experiments import config as configs
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import guidance as guidance_stage
from experiments.stages.measure import PRIMARY, Measure, guided_weight, squared_gap
from experiments.workdir import Workdir, write_json
from lgd import guidance
from lgd.data import Dataset
from lgd.evaluation import (
    Found,
    Generator,
    Grid,
    Screened,
    paired_difference,
    search,
    search_per_class,
    summary,
)
from lgd.metrics.energy import ClassEnergyDistance
from lgd.progress import bar
from lgd.types import OmegaFn

TEST_SEED = 1_000_000  # test noise starts here, validation noise at 0
HAND_MADE = ("constant", "limited_interval", "limited_interval_per_class", "clamp_linear")


class Candidates(NamedTuple):
    """Selected schedules by row name, and the first looks that the report draws."""

    found: dict[str, Found]
    screened: dict[str, Screened]


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Write results.json."""
    if (workdir.path / "results.json").exists():
        return
    generator = make_generator(config, workdir, dataset)
    with workdir.timed("tune"):
        candidates = tune(config, workdir, dataset, generator)
    with workdir.timed("test"):
        rows = _measure_rows(config, workdir, dataset, generator, candidates)
    write_json(workdir.path / "results.json", _results(config, workdir.command, rows, candidates))


def make_generator(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> Generator:
    """The sampler that every row uses."""
    denoiser, params = denoiser_stage.load(config, workdir, dataset)
    return Generator(
        denoiser=denoiser,
        params=params,
        shape=dataset.shape,
        num_classes=dataset.num_classes,
        times=build.times(config),
        churn=config.sampling.churn,
        solver=config.sampling.solver,
    )


def tune(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, generator: Generator
) -> Candidates:
    """Select every row's parameters by the primary metric on validation data."""
    settings = config.evaluation
    real = ClassEnergyDistance(dataset.validation, dataset.num_classes)
    full = settings.num_samples // dataset.num_classes
    screening = settings.num_screening // dataset.num_classes

    def score(omega_fn: OmegaFn, per_class: int) -> np.ndarray:
        seeds = range(settings.validation_seeds if per_class == full else 1)
        return np.mean([real(generator(omega_fn, per_class, seed=seed)) for seed in seeds], axis=0)

    found = {"unguided": Found({}, guidance.constant(0.0), float("nan"))}
    screened: dict[str, Screened] = {}
    with bar("tune hand-made schedules", _num_candidates(config)) as advance:
        for name, grid in _grids(config).items():
            found[name], screened[name] = search(
                grid,
                score,
                screening=screening if name == "limited_interval" else full,
                full=full,
                finalists=settings.num_finalists,
                advance=advance,
            )
        per_class = search_per_class(
            screened["limited_interval"],
            guidance.limited_interval_per_class,
            score,
            full=full,
            finalists=settings.num_finalists,
            advance=advance,
        )
    found["limited_interval_per_class"] = per_class
    for method in config.guidance.methods:
        found[f"learned:{method}"] = _select(config, workdir, dataset, method, score, full)
    order = ["unguided", *HAND_MADE, *(f"learned:{method}" for method in config.guidance.methods)]
    return Candidates({name: found[name] for name in order}, screened)


def _grids(config: ConfigDict) -> dict[str, Grid]:
    settings, unbounded = config.evaluation, (0.0, float("inf"))
    return {
        "constant": Grid(
            make=guidance.constant, axes={"w": settings.constant_weights}, bounds={"w": unbounded}
        ),
        "limited_interval": Grid(
            make=guidance.limited_interval,
            axes={
                "w": settings.interval_weights,
                "lo": settings.interval_lower,
                "hi": settings.interval_upper,
            },
            bounds={"w": unbounded, "lo": (0.0, 1.0), "hi": (0.0, 1.0)},
        ),
        "clamp_linear": Grid(
            make=guidance.clamp_linear,
            axes={"cfg_scale": settings.clamp_linear_scales},
            bounds={"cfg_scale": (0.5, float("inf"))},  # 0.5 is no guidance
        ),
    }


def _num_candidates(config: ConfigDict) -> int:
    points = sum(len(grid.points()) for grid in _grids(config).values())
    return points + 2 * config.evaluation.num_finalists


def _select(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    method: str,
    score: Callable[[OmegaFn, int], np.ndarray],
    full: int,
) -> Found:
    """The best snapshot of a training, by the same score and sample count as its opponents."""
    found = []
    for step in guidance_stage.snapshot_steps(config, method):
        omega_fn = guidance_stage.load(config, workdir, dataset, method, step)
        found.append(Found({"step": step}, omega_fn, float(score(omega_fn, full).mean())))
    return min(found, key=lambda each: each.score)


def _measure_rows(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    generator: Generator,
    candidates: Candidates,
) -> list[dict]:
    """One row for each method: all metrics on test data, over the test seeds."""
    measure = Measure(config, workdir, dataset)
    per_class = config.evaluation.num_samples // dataset.num_classes
    seeds = [TEST_SEED + i for i in range(config.evaluation.test_seeds)]
    gap, c = squared_gap(generator, dataset), jax.numpy.asarray(dataset.test.labels)
    rows = []
    with bar("measure on test data", len(candidates.found) * len(seeds)) as advance:
        for name, found in candidates.found.items():
            runs = []
            for seed in seeds:
                runs.append(measure(generator(found.omega_fn, per_class, seed=seed)))
                advance(name)
            rows.append(
                {
                    "method": name,
                    "params": found.params,
                    "metrics": {key: summary([run[key] for run in runs]) for key in runs[0]},
                    "num_samples": per_class * dataset.num_classes,
                    "num_steps": config.sampling.num_steps,
                    "nfe": generator.nfe,
                    "validation": found.score if np.isfinite(found.score) else None,
                    "omega": guided_weight(found.omega_fn, generator.times, c, gap),
                }
            )
    return rows


def provenance(config: ConfigDict, command: str) -> dict:
    """What made a results.json, and how to read it."""
    return {
        "config": configs.to_dict(config),
        "commit": _commit(),
        "command": command,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "numpy")
        },
        "primary_metric": PRIMARY,
        "lower_is_better": True,
    }


def _results(config: ConfigDict, command: str, rows: list[dict], candidates: Candidates) -> dict:
    constant = candidates.screened["constant"]
    return {
        **provenance(config, command),
        "rows": rows,
        "comparisons": _comparisons(rows),
        "constant_screening": {
            "weights": [point[0] for point in constant.points],
            "values": constant.scores.mean(axis=1).tolist(),
        },
    }


def _comparisons(rows: list[dict]) -> list[dict]:
    """Every learned row against the unguided one and the best hand-made one, paired by seed."""
    values = {row["method"]: row["metrics"] for row in rows}
    best = min(HAND_MADE, key=lambda name: values[name][PRIMARY]["mean"])
    return [
        {
            "method": name,
            "against": other,
            "metric": metric,
            **paired_difference(values[name][metric]["values"], values[other][metric]["values"]),
        }
        for name in values
        if name.startswith("learned:")
        for other in ("unguided", best)
        for metric in values[name]
    ]


def _commit() -> str:
    """The commit of the code that runs, with a mark for local changes; "unknown" outside git."""
    root = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, check=True, text=True
        )
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
