"""The stages of a run, one after another."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import build, build_guidance, build_pretrained
from experiments import config as configs
from experiments.methods import WALKS
from experiments.rules.evaluation import SMALLEST_OF_LENET
from experiments.stages import (
    collect,
    denoiser,
    evaluate,
    guidance,
    judges,
    report,
    reward_report,
)
from experiments.workdir import Workdir, WorkdirError, lock
from lgd.data import Dataset
from lgd.data.image_files import DataFileError
from lgd.guidance import FAMILIES
from lgd.machinery import processes, progress, stall, stopping
from lgd.machinery.failures import NonFiniteError, OtherTrainingError, memory_advice
from lgd.machinery.paths import local


def _report(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    (report if config.reward.name == "none" else reward_report).run(config, workdir, dataset)


_RUN = {
    "denoiser": denoiser.run,
    "collect": collect.run,
    "guidance": guidance.run,
    "evaluate": evaluate.run,
    "report": _report,
}


class MisfitError(configs.ConfigError):
    """The config does not fit the devices or the data."""


def run(
    config: ConfigDict,
    path: str,
    stages: Sequence[str],
    *,
    command: str = "",
    restart_damaged: bool = False,
    redo: str = "",
    adopt: bool = False,
) -> None:
    """Run some stages in order.

    Args:
      config: settings of the run.
      path: the workdir.
      stages: names of the stages.
      command: the command that makes this run, noted in the results.
      restart_damaged: start a training over whose every checkpoint is damaged or gone.
      redo: a stage to do again, with those after it, see `Workdir`.
      adopt: take all files of the workdir as they are, see `Workdir`.
    """
    _check_agreement(config, stages)
    with stall.watched(config.training.stall_seconds), memory_advice():
        _refuse(build_pretrained.unreadable(config))
        _check_devices(config)
        _refuse(judges.check(config))  # every process reads that file for itself
        _check_families(config)
        with progress.phase("read the data"):
            dataset = _load_data(config)
        how: dict[str, Any] = {"restart_damaged": restart_damaged, "redo": redo, "adopt": adopt}
        with (
            lock.held(local(path)),
            contextlib.closing(Workdir(path, config, command=command, **how)) as workdir,
        ):
            workdir.bind_data(dataset, build_pretrained.digest(config))
            try:
                _run_stages(config, workdir, dataset, stages)
            except OtherTrainingError as error:
                raise WorkdirError(f"{path}: {error}") from None


def _run_stages(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, stages: Sequence[str]
) -> None:
    try:
        for name in stages:
            with progress.phase(f"stage {name}"):
                _RUN[name](config, workdir, dataset)
            stopping.check(f"stage {name}")
    except NonFiniteError as error:
        workdir.note_non_finite(error)
        raise
    except DataFileError as error:  # of a file that is read when it is needed
        raise MisfitError([f"data.path: {error}"]) from None


def _refuse(errors: Sequence[str]) -> None:
    if errors:
        raise MisfitError(errors)


def _check_agreement(config: ConfigDict, stages: Sequence[str]) -> None:
    """Several processes must have been told the same."""
    settings = {"config": configs.to_dict(config), "stages": list(stages)}
    expected = processes.from_main(lambda: settings)
    differences = processes.gather("\n".join(configs.diff(expected, settings)))
    lines = [
        f"process {index}: {line.removeprefix('config.')}"
        for index, lines in enumerate(differences)
        for line in lines.splitlines()
    ]
    if lines:
        what = "expected equal settings in every process, got (process 0 -> another)"
        raise MisfitError([what, *lines])


def _check_devices(config: ConfigDict) -> None:
    """Batches of examples are split over the devices evenly."""
    try:
        count = build.mesh(config).size
    except ValueError as error:
        raise MisfitError([f"mesh: {error}"]) from None
    sizes = {
        "statistics.batch_size": config.statistics.batch_size,
        "denoiser.batch_size": config.denoiser.batch_size,
        "classifier.batch_size": config.classifier.batch_size,
    }
    trained = [method for method in config.guidance.methods if method not in WALKS]
    objectives = [build_guidance.objective(config, method) for method in trained]
    if any(objective.group_size is None for objective in objectives):
        sizes["guidance.one_step.batch_size"] = config.guidance.one_step.batch_size
    errors = [
        f"{name}: expected a multiple of the {count} devices, got {size}"
        for name, size in sizes.items()
        if size % count
    ]
    _refuse(errors)


def _check_families(config: ConfigDict) -> None:
    """Names of hand-made families, which the library knows."""
    known = guidance_families()
    if unknown := [name for name in config.evaluation.families if name not in known]:
        what = f"expected some of {', '.join(known)}, got {', '.join(unknown)}"
        raise MisfitError([f"evaluation.families: {what}"])


def guidance_families() -> list[str]:
    """Names of the families that can be tuned, alone or for each stratum."""
    return [
        name for name, family in FAMILIES.items() if any(f.grid for f in family.fields.values())
    ]


def _load_data(config: ConfigDict) -> Dataset:
    """Comes before the workdir, which a config that does not fit the data would bind."""
    try:
        dataset = build.dataset(config)
    except DataFileError as error:
        raise MisfitError([f"data.path: {error}"]) from None
    _check_classes(config, dataset)
    _check_network(config, dataset)
    _check_classifiers(config, dataset)
    return dataset


def _check_classes(config: ConfigDict, dataset: Dataset) -> None:
    """Two examples of every class, real ones and samples, or distances mean nothing."""
    errors = []
    for name in ("num_samples", "num_screening", "num_test_samples"):
        if 0 < config.evaluation[name] < 2 * dataset.num_classes:
            errors.append(
                f"evaluation.{name}: expected at least 2 samples of each of the "
                f"{dataset.num_classes} classes, got {config.evaluation[name]}"
            )
    for name in ("train", "validation", "test"):
        labels = getattr(dataset, name).stratum
        fewest = np.bincount(labels, minlength=dataset.num_classes).min()
        if fewest < 2:
            errors.append(
                f"data.num_{name}: expected at least 2 examples of every class, "
                f"got {fewest} of one among {len(labels)}"
            )
    _refuse(errors)


def _check_network(config: ConfigDict, dataset: Dataset) -> None:
    """Sizes of images that only the data tell must suit the denoiser."""
    if config.denoiser.level == "exact":
        return
    if build_pretrained.is_pretrained(config):
        return _refuse(build_pretrained.check(config, dataset))
    network = build.network_denoiser(config, dataset.num_classes)
    try:
        jax.eval_shape(lambda: network.init(jax.random.key(0), dataset.shape))
    except ValueError as error:
        raise MisfitError([f"denoiser: {error}"]) from None


def _check_classifiers(config: ConfigDict, dataset: Dataset) -> None:
    """Sizes of images must suit the classifiers that measure, train and select."""
    needed = {denoiser.settings_of(name) for name in denoiser.classifiers(config)}
    errors = [
        f"{group}.network: expected mlp or conv for images {dataset.shape}, got 'lenet'"
        for group in ("classifier", "features")
        if group in needed and config[group].network == "lenet"
        if min(dataset.shape[:2]) < SMALLEST_OF_LENET
    ]
    _refuse(errors)
