"""Stage 4: select every row on validation data, then measure it once on test data."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

import lgd
from experiments import build, build_pretrained
from experiments import config as configs
from experiments.methods import is_learned
from experiments.publish import tables
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import export, measure
from experiments.stages import guidance as guidance_stage
from experiments.stages.reward import Rewarded, with_loss
from experiments.stages.select import Candidates, Row, select
from experiments.workdir import Workdir, throughput
from experiments.workdir.provenance import provenance as provenance_of_run
from lgd import conditions
from lgd.data import Dataset, Split
from lgd.evaluation import (
    Generator,
    Journal,
    differences,
    resampled_metrics,
    schedule_key,
)
from lgd.evaluation.measures import PRIMARY
from lgd.evaluation.rows import Entries
from lgd.machinery.progress import bar
from lgd.types import Condition

NAMES = ("config", "rows", "primary_metric", "device", "commit", "comparisons", "columns")
TEST_SEED = 1_000_000  # test noise starts here, validation noise at 0
Measure = Callable[[Array], dict[str, Any]]  # samples (g, n, *dims) -> metrics


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Write results.json, and the guidance of every learned row."""
    if workdir.is_evaluated():
        return
    generator = make_generator(config, workdir, dataset)
    journal = workdir.journal("measured", generator.params)
    with workdir.timed("tune"):
        candidates = select(config, workdir, dataset, generator, journal)
    per_class = generator.share(config.evaluation.num_samples)
    throughput.of_samples(config, workdir, generator, per_class)
    with workdir.timed("test"):
        final = final_generator(config, generator, dataset)
        measuring = make_measure(config, workdir, dataset)
        examples = denoiser_stage.taken(config, workdir, dataset, "test")
        rows, resampled = measure_rows(
            config, dataset, final, measuring, candidates.rows, journal, examples
        )
        more = {}
        if isinstance(measuring, Rewarded):
            more = measuring.results(dataset, generator, rows)
    results = _results(config, workdir.command, rows, candidates) | more
    results["comparisons"] = _comparisons(rows, resampled, config.evaluation.primary)
    results["classifiers"] = denoiser_stage.accuracies(config, workdir, dataset)
    workdir.note_folder(workdir.path / "reference")
    export.save_guidance(config, workdir, dataset, candidates.rows, results)
    workdir.write_json(workdir.path / "results.json", results | tables.of_run(results))


def make_generator(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> Generator:
    """The sampler that every row uses."""
    denoiser, params = denoiser_stage.load(config, workdir, dataset)
    c, groups = _drawn_conditions(config, dataset, dataset.validation)
    return Generator(
        denoiser=denoiser,
        params=params,
        shape=denoiser_stage.shape(config, dataset),
        conditions=c,
        groups=groups,
        times=build.times(config),
        churn=config.sampling.churn,
        solver=config.sampling.solver,
        mesh=build.mesh(config),
        batch=config.evaluation.sample_batch,
        decode=build_pretrained.decoder(config),
    )


def _drawn_conditions(config: ConfigDict, dataset: Dataset, real: Split) -> tuple[Condition, int]:
    """What is sampled for a split, and in how many groups: every class, or captions of the split.

    There are as many captions as samples, at most all, of which each has equally many.
    """
    if not dataset.captions:
        return dataset.conditions, 0
    most = config.evaluation.num_test_samples or config.evaluation.num_samples
    return conditions.take(real.c, slice(most)), dataset.num_classes


def final_generator(config: ConfigDict, generator: Generator, dataset: Dataset) -> Generator:
    """The sampler of test samples, which may skip calls, of the captions of test examples.

    Skipping compiles for every schedule anew, which tuning, with many of them, cannot afford.
    """
    c, groups = _drawn_conditions(config, dataset, dataset.test)
    skip = config.evaluation.skip
    return dataclasses.replace(generator, skip=skip, conditions=c, groups=groups)


def make_measure(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> Measure:
    """What is measured on test data."""
    plain = measure.make(config, workdir, dataset)
    reward = guidance_stage.load_reward(config, workdir, dataset)
    return plain if reward is None else Rewarded(config, workdir, dataset, reward, plain)


def measure_rows(
    config: ConfigDict,
    dataset: Dataset,
    generator: Generator,
    measuring: Measure,
    rows: Sequence[Row],
    journal: Journal,
    examples: Split | None = None,
) -> tuple[list[dict], dict[str, dict[str, np.ndarray]]]:
    """All metrics of every row on test data over the test seeds; and resampled ones.

    The latter are by method and metric: the mean over seeds on each resample of the real examples.

    Args:
      config: settings of the run.
      dataset: real examples.
      generator: draws the samples.
      measuring: samples -> metrics.
      rows: what was selected.
      journal: measurements that are there already.
      examples: test examples as the denoiser takes them; None: those of the data set.
    """
    per_class = generator.share(config.evaluation.num_test_samples or config.evaluation.num_samples)
    seeds = [TEST_SEED + i for i in range(config.evaluation.test_seeds)]
    most = config.evaluation.sample_batch or len(dataset.test.x)
    test = dataset.test if examples is None else examples
    real = Split(test.x[:most], conditions.take(test.c, slice(most)))
    entry = Entries(generator, real, per_class)
    measured, resampled = [], {}
    with bar("measure on test data", len(rows) * len(seeds)) as advance:
        for row in rows:
            guidance, runs = row.selected.guidance, []
            name = schedule_key(guidance)
            for seed in seeds:
                sample = functools.partial(generator, guidance, per_class, seed=seed)
                key = f"test {name} n={per_class} seed={seed}"
                runs.append(journal(key, functools.partial(_of, measuring, sample)))
                advance(row.method)
            resampled[row.method] = _resampled(row, runs)
            metrics = [with_loss(run["metrics"], row.gamma) for run in runs]
            of_classes = {}
            if "by_class" in runs[0]:
                means = np.mean([run["by_class"] for run in runs], axis=0)
                of_classes = {"reward_by_class": means.tolist()}
            measured.append(entry(row.plain, metrics) | of_classes)
    return measured, resampled


def _of(measuring: Measure, sample: Callable[[], Array]) -> dict[str, Any]:
    return measuring(sample())


def _resampled(row: Row, runs: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    means = resampled_metrics(runs)
    if row.gamma is not None and PRIMARY in means:
        means["loss"] = means[PRIMARY]  # less a reward, which uses no real examples
    return means


def provenance(config: ConfigDict, command: str) -> dict[str, Any]:
    """What made a results.json, and how to read it."""
    return {
        "config": configs.to_dict(config),
        **provenance_of_run(command),
        "primary_metric": config.evaluation.primary,
        "lower_is_better": True,
    }


def _results(
    config: ConfigDict, command: str, rows: list[dict], candidates: Candidates
) -> dict[str, Any]:
    constants = candidates.constants
    return {
        **provenance(config, command),
        "rows": rows,
        "constant_screening": {
            "weights": [point[0] for point in constants.points],
            "values": constants.scores.mean(axis=1).tolist(),
        },
    }


def _comparisons(
    rows: Sequence[dict], resampled: Mapping[str, Mapping[str, np.ndarray]], primary: str
) -> list[dict]:
    """Every learned row against the unguided one and the best hand-made one, paired by seed.

    In a run with a reward the best one is that of the same weight, by the loss. ``real_error`` says
    how far the choice of real test examples moves the difference: its standard deviation over
    resamples of them (bootstrap within classes); null where a metric uses none.
    """
    comparisons = []
    for row in (row for row in rows if is_learned(row["family"])):
        target = "loss" if "loss" in row["metrics"] else primary
        others = [other for other in rows if _is_opponent(other, row)]
        best = min(others, key=lambda other: other["metrics"][target]["mean"])
        for other in (rows[0], best):
            comparisons.extend(differences(row, other, resampled))
    return comparisons


def _is_opponent(other: Mapping, row: Mapping) -> bool:
    """Whether a row is hand-made and selected for the same weight of the reward."""
    same = other["params"].get("gamma") == row["params"].get("gamma")
    return same and other["family"] in lgd.guidance.FAMILIES
