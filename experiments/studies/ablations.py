"""What each setting of learning guidance is worth: all else as in a run, one setting at a time.

    python -m experiments.studies ablations --workdir=runs/fashion_mnist [--only=beta] [--name=NAME]

Takes the frozen denoiser of a run and learns omega anew for every other value of every setting.
The snapshot is selected as the run selects its own; then it is measured on validation images with
noise that no selection has seen, the same for all, so that differences to the run's own value of
the setting are paired. With one training seed the errors are those of sampling; with several,
--training-seeds, every value is learned with each, values are means over sampling and errors those
of training. --test measures on test images too, by the network that measures a run. Settings of the
trajectory objective are those of trajectory_features where a run learns it, else of trajectory.
--samples measures fewer than the run does; Frechet distances of fewer are higher, for all alike.

Interrupted, it goes on where it was.
"""

import argparse
import contextlib
import itertools
import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import build
from experiments import config as configs
from experiments.console import local_path
from experiments.methods import FEATURES
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from experiments.publish.tables import title
from experiments.stages import collect, evaluate, select
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import guidance as guidance_stage
from experiments.stages.guidance import Training
from experiments.studies.ablation_settings import (
    SETTINGS,
    Variant,
    config_of,
    replaced,
    variants_of,
)
from experiments.workdir import Workdir, lock, saved_config
from lgd import guidance, plots
from lgd.evaluation import Selected, paired_difference, schedule_key, summary
from lgd.machinery import digests
from lgd.machinery.progress import bar

FIRST_SEED = 500_000  # of the noise; validation starts at 0, test at 1,000,000

COLUMNS = [
    text("setting", "setting"),
    text("label", "value") | {"best": "is_own"},
    number("metric", "metric", ".5f"),
    number("difference", "less that of the run's own", "+.5f"),
]
TEST_COLUMNS = [
    number("test_metric", "metric on test images", ".5f"),
    number("test_difference", "less that of the run's own on test images", "+.5f"),
]


class Ablation:
    """Learns and measures variants of a run, each once."""

    def __init__(
        self,
        config: ConfigDict,
        path: Path,
        num_seeds: int,
        num_samples: int | None,
        training_seeds: int = 1,
        is_tested: bool = False,
    ) -> None:
        self._config, self._path = config, path
        self._dataset = build.dataset(config)
        self._run = Workdir(path, config)
        self._run.bind_data(self._dataset)
        generator = evaluate.make_generator(config, self._run, self._dataset)
        journal = self._run.journal("ablations-measured", generator.params)
        measured = config
        if num_samples is not None:
            measured = replaced(config, {"evaluation.num_samples": num_samples})
        self._score, _ = select.scores_for(measured, self._run, self._dataset, generator, journal)
        self._seeds = range(FIRST_SEED, FIRST_SEED + num_seeds)
        self._journal, self._training_seeds = journal, training_seeds
        measuring = evaluate.make_measure(config, self._run, self._dataset) if is_tested else None
        self._test = measuring

    def close(self) -> None:
        """Close the run."""
        self._run.close()

    def references(self) -> dict[str, Any]:
        """The metrics without guidance, and at the constant where every training starts."""
        settings = self._config.guidance
        weights = {"unguided": 0.0}
        if settings.start == "init":
            weights["start"] = settings.omega.init
        return {
            kind.replace("values", name): summary(values)
            for name, weight in weights.items()
            for kind, values in self._measured(guidance.constant(weight)).items()
        }

    def __call__(self, variant: Variant) -> dict[str, Any]:
        """A row of the results: values by seed of sampling, or by seed of training."""
        own = config_of(self._config, Variant("", variant.method, {}))
        config = config_of(self._config, variant)
        is_own = not configs.diff(own, config)
        seeds = range(config.seed, config.seed + self._training_seeds)
        learned = [
            self._learned(variant.method, replaced(config, {"seed": seed}), is_own)
            for seed in seeds
        ]
        measured = [self._measured(best.guidance) for best in learned]
        values = measured[0]
        if len(measured) > 1:
            values = {name: [float(np.mean(m[name])) for m in measured] for name in values}
        params = {
            name: [best.params[name] for best in learned] if len(learned) > 1 else value
            for name, value in learned[0].params.items()
        }
        return {
            "label": variant.label,
            "method": variant.method,
            "fields": dict(variant.fields),
            "is_own": is_own,
            "params": params,
            **values,
        }

    def _learned(self, method: str, config: ConfigDict, is_own: bool) -> Selected:
        """The best snapshot of a variant learned with the seed of its config."""
        shared = method if is_own and config.seed == self._config.seed else None
        with contextlib.closing(Workdir(self._folder(config), config)) as workdir:
            self._share(workdir, config, shared)
            if method == FEATURES:
                for name in denoiser_stage.feature_networks(config):
                    denoiser_stage.train_classifier(name, config, workdir, self._dataset)
            for stage in (collect, guidance_stage):
                stage.run(config, workdir, self._dataset)
            return select.best_snapshot(
                config, workdir, self._dataset, Training(method), self._score
            )

    def _folder(self, config: ConfigDict) -> Path:
        """Variants that do not differ share theirs."""
        text = json.dumps(configs.to_dict(config), sort_keys=True)
        return self._path / "ablations" / digests.of_bytes(text.encode())[:16]

    def _share(self, variant: Workdir, config: ConfigDict, learned: str | None) -> None:
        """The run's frozen networks, and of the method named what was learned, copied.

        Not its features for a variant whose features are others.
        """
        folder = self._path / "params"
        files = list(folder.glob("*.safetensors"))
        if config.features.network != self._config.features.network:
            files = [file for file in files if not file.stem.startswith("features")]
        if learned is not None:
            files += folder.glob(f"guidance/{learned}-*.safetensors")
        names = (str(file.relative_to(folder).with_suffix("")) for file in files)
        variant.copy_params(self._run, names)

    def _measured(self, schedule: Any) -> dict[str, list[float]]:
        each = self._score.on_seeds(schedule, self._score.full, self._seeds)
        values = {"values": np.asarray(each.mean(axis=1), np.float64).tolist()}
        if self._test is None:
            return values
        return values | {"test_values": [self._tested(schedule, seed) for seed in self._seeds]}

    def _tested(self, schedule: Any, seed: int) -> float:
        """The primary metric on test images, of the samples that validation images measure too."""
        count = self._score.full

        def measured() -> dict[str, Any]:
            assert self._test is not None
            return self._test(self._score.generator(schedule, count, seed=seed))["metrics"]

        key = f"test {schedule_key(schedule)} n={count} seed={seed}"
        return float(self._journal(key, measured)[self._config.evaluation.primary])


def measure(options: Namespace) -> dict[str, Any]:
    """Return every value of the settings named by ``only``."""
    config = saved_config(options.workdir)
    variants = variants_of(config, options.only)
    rows = []
    settings = options.seeds, options.samples, options.training_seeds, options.test
    with (
        lock.held(options.workdir),
        contextlib.closing(Ablation(config, options.workdir, *settings)) as ablation,
    ):
        references = ablation.references()
        with bar("ablations", sum(map(len, variants.values()))) as advance:
            for name, each in variants.items():
                for variant in each:
                    rows.append({"setting": name, **ablation(variant)})
                    advance(f"{name} {variant.label}")
    return {
        "config": configs.to_dict(config),
        "primary_metric": config.evaluation.primary,
        **references,
        "columns": COLUMNS + (TEST_COLUMNS if options.test else []),
        "rows": against_own(rows),
    }


def against_own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with means, and paired differences to the run's own settings of a method.

    Of several methods the own settings of each but the first are compared with those of the first.
    """
    compared = []
    for _, group in itertools.groupby(rows, lambda row: row["setting"]):
        entries = list(group)
        kept = [{k: v for k, v in entry.items() if not k.endswith("values")} for entry in entries]
        for name in [name for name in entries[0] if name.endswith("values")]:
            part = name.removesuffix("values")
            for entry, row in zip(entries, kept, strict=True):
                row[f"{part}metric"] = summary(entry[name])
                row[f"{part}difference"] = _difference(entry, entries, name)
        compared += kept
    return compared


def _difference(entry: Mapping, entries: list[dict[str, Any]], name: str) -> dict | None:
    own = {other["method"]: other[name] for other in entries if other["is_own"]}
    first = next(iter(own.values()), None)
    other = first if entry["is_own"] else own.get(entry["method"])
    return None if other is None or other is entry[name] else paired_difference(entry[name], other)


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the metric over the values of each setting."""
    pictures, ylabel = {}, f"{title(results['primary_metric'])} (validation)"
    for name, group in itertools.groupby(results["rows"], lambda row: row["setting"]):
        rows = list(group)
        pictures[name] = plots.ablation(
            {row["label"]: row["metric"] for row in rows},
            own=[row["label"] for row in rows if row["is_own"]],
            unguided=results["unguided"],
            xlabel=name.replace("-", " "),
            ylabel=ylabel,
        )
    return pictures


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(SETTINGS)}, got {unknown}")
    return names


def arguments(add: Add) -> None:
    """Add the arguments of this study."""
    add("--workdir", type=local_path, required=True, help="of a run with a denoiser")
    add("--only", type=_names, default=list(SETTINGS), help=", ".join(SETTINGS))
    add("--seeds", type=int, default=3, help="of sampling")
    add("--samples", type=int, help="of each run, the run's own number by default")
    add("--training-seeds", type=int, default=1, help="with which each value is learned")
    add("--test", action="store_true", help="measure on test images too")


STUDY = Study(measure=measure, arguments=arguments, figures=figures)
