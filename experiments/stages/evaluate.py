"""Stage 4: tune every opponent on validation data, then measure every row once on test data."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments import build
from experiments import config as configs
from experiments.journal import Journal, schedule_key
from experiments.stages import denoiser as denoiser_stage
from experiments.stages.measure import Measure, guided_weight, squared_gap
from experiments.stages.tune import HAND_MADE, Candidates, tune
from experiments.workdir import Workdir, exists, throughput, write_json
from experiments.workdir.provenance import provenance as provenance_of_run
from lgd import conditions
from lgd.data import Dataset, Split
from lgd.evaluation import Generator, paired_difference, summary
from lgd.machinery.progress import bar

TEST_SEED = 1_000_000  # test noise starts here, validation noise at 0


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Write results.json."""
    if exists(workdir.path / "results.json"):
        return
    generator = make_generator(config, workdir, dataset)
    journal = Journal(workdir.path / "measured.jsonl")
    with workdir.timed("tune"):
        candidates = tune(config, workdir, dataset, generator, journal)
    per_class = config.evaluation.num_samples // dataset.num_classes
    throughput.of_samples(config, workdir, generator, per_class)
    with workdir.timed("test"):
        final = final_generator(config, generator)
        rows, resampled = measure_rows(config, workdir, dataset, final, candidates, journal)
    results = _results(config, workdir.command, rows, candidates)
    results["comparisons"] = _comparisons(rows, resampled, config.evaluation.primary)
    results["classifiers"] = denoiser_stage.accuracies(config, workdir, dataset)
    write_json(workdir.path / "results.json", results)


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
        mesh=build.mesh(config),
        batch=config.evaluation.sample_batch,
    )


def final_generator(config: ConfigDict, generator: Generator) -> Generator:
    """The same for test samples, which few schedules draw: each may have a compilation of its own.

    Tuning has one for all schedules.
    """
    return dataclasses.replace(generator, skip=config.evaluation.skip)


def measure_rows(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    generator: Generator,
    candidates: Candidates,
    journal: Journal,
) -> tuple[list[dict], dict[str, dict[str, np.ndarray]]]:
    """One row for each method, all metrics on test data over the test seeds; and resampled ones.

    The latter are by method and metric: the mean over seeds on each resample of the real examples.
    """
    measure = Measure(config, workdir, dataset)
    num_samples = config.evaluation.num_test_samples or config.evaluation.num_samples
    per_class = num_samples // dataset.num_classes
    seeds = [TEST_SEED + i for i in range(config.evaluation.test_seeds)]
    most = config.evaluation.sample_batch or len(dataset.test.x)
    real = Split(dataset.test.x[:most], conditions.take(dataset.test.c, slice(most)))
    gap, c = squared_gap(generator, real), jax.tree.map(jax.numpy.asarray, real.c)
    rows, resampled = [], {}
    with bar("measure on test data", len(candidates.found) * len(seeds)) as advance:
        for name, found in candidates.found.items():
            runs = []
            schedule = schedule_key(found.omega_fn, generator.times, dataset.num_classes)
            for seed in seeds:
                key = f"test {schedule} n={per_class} seed={seed}"
                sample = functools.partial(generator, found.omega_fn, per_class, seed=seed)
                runs.append(journal(key, functools.partial(_of, measure, sample)))
                advance(name)
            metrics = [run["metrics"] for run in runs]
            resampled[name] = {
                metric: np.mean([run["resampled"][metric] for run in runs], axis=0)
                for metric in runs[0]["resampled"]
            }
            rows.append(
                {
                    "method": name,
                    "params": found.params,
                    "metrics": {key: summary([run[key] for run in metrics]) for key in metrics[0]},
                    "num_samples": per_class * dataset.num_classes,
                    "num_steps": config.sampling.num_steps,
                    "nfe": generator.nfe_of(found.omega_fn, per_class),
                    "validation": found.score if np.isfinite(found.score) else None,
                    "omega": guided_weight(found.omega_fn, generator.times, c, gap),
                }
            )
    return rows, resampled


def _of(measure: Measure, sample: Callable[[], Array]) -> dict[str, dict]:
    return measure(sample())


def provenance(config: ConfigDict, command: str) -> dict:
    """What made a results.json, and how to read it."""
    return {
        "config": configs.to_dict(config),
        **provenance_of_run(command),
        "primary_metric": config.evaluation.primary,
        "lower_is_better": True,
    }


def _results(config: ConfigDict, command: str, rows: list[dict], candidates: Candidates) -> dict:
    constant = candidates.screened["constant"]
    return {
        **provenance(config, command),
        "rows": rows,
        "constant_screening": {
            "weights": [point[0] for point in constant.points],
            "values": constant.scores.mean(axis=1).tolist(),
        },
    }


def _comparisons(
    rows: list[dict], resampled: dict[str, dict[str, np.ndarray]], primary: str
) -> list[dict]:
    """Every learned row against the unguided one and the best hand-made one, paired by seed.

    ``real_error`` says how far the choice of real test examples moves the difference: its standard
    deviation over resamples of them (bootstrap within classes); null where a metric uses none.
    """
    values = {row["method"]: row["metrics"] for row in rows}
    best = min(HAND_MADE, key=lambda name: values[name][primary]["mean"])

    def real_error(name: str, other: str, metric: str) -> float | None:
        if metric not in resampled[name]:
            return None
        return float(np.std(resampled[name][metric] - resampled[other][metric], ddof=1))

    return [
        {
            "method": name,
            "against": other,
            "metric": metric,
            **paired_difference(values[name][metric]["values"], values[other][metric]["values"]),
            "real_error": real_error(name, other, metric),
        }
        for name in values
        if name.startswith("learned:")
        for other in ("unguided", best)
        for metric in values[name]
    ]
