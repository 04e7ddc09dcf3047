"""What each setting of learning guidance is worth: all else as in a run, one setting at a time.

    python -m experiments.ablations --workdir=runs/fashion_mnist [--only=beta,churn] [--name=NAME]

Takes the frozen denoiser of a run and learns omega anew for every other value of every setting.
The snapshot is selected as the run selects its own; then it is measured on validation images with
noise that no selection has seen, the same for all, so that differences to the run's own value of
the setting are paired. One training seed: the errors are those of sampling. Settings of the
trajectory objective are those of trajectory_features where a run learns it, else of trajectory.
--samples measures fewer than the run does; Frechet distances of fewer are higher, for all alike.

Interrupted, it goes on where it was. Writes ablations.json and report/ablation-SETTING.png into
the workdir; with --name also experiments/results/NAME.json and docs/NAME-SETTING.png.
"""

import argparse
import contextlib
import functools
import hashlib
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import build, lock
from experiments import config as configs
from experiments.journal import Journal
from experiments.provenance import provenance
from experiments.stages import collect, evaluate, tune
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import guidance as guidance_stage
from experiments.tables import RESULTS, ROOT
from experiments.workdir import Workdir, WorkdirError, read_json, write_json
from lgd import guidance, plots
from lgd.evaluation import paired_difference, summary
from lgd.progress import bar

FIRST_SEED = 500_000  # of the noise; validation starts at 0, test at 1,000,000


class Variant(NamedTuple):
    """One value of a setting: how it is called, the method, and the fields that differ."""

    label: str
    method: str
    fields: Mapping[str, Any]


def _values(method: str, field: str, values: Sequence[Any]) -> Callable[[ConfigDict], list]:
    """A setting that is one field of the config; the run's own value is always among them.

    method: "trajectory" stands for the run's own, see `_unrolled`.
    """

    def variants(config: ConfigDict) -> list[Variant]:
        own = functools.reduce(getattr, field.split("."), config)
        name = _unrolled(config) if method == "trajectory" else method
        return [Variant(f"{v:g}", name, {field: v}) for v in sorted({own, *values})]

    return variants


def _unrolled(config: ConfigDict) -> str:
    """The method whose settings are those of the trajectory objective."""
    name = "trajectory_features"
    return name if name in config.guidance.methods else "trajectory"


def _starts(config: ConfigDict) -> list[Variant]:
    method = _unrolled(config)
    best = Variant("best hand-made", method, {"guidance.start": "best"})
    constants = [
        Variant(f"constant {w:g}", method, {"guidance.start": "init", "guidance.omega.init": w})
        for w in (0.01, 0.3, 1.0, 3.0)
    ]
    return [best, *constants]


def _models(config: ConfigDict) -> list[Variant]:
    """Each with a learning rate that suits it: a table's entries move by it, a step."""
    rates = {"network": 3e-3, "table": 0.1}
    return [
        Variant(
            f"{method}, {model}",
            method,
            {f"guidance.{group}.model": model, f"guidance.{group}.learning_rate": rate},
        )
        for method, group in (("self_consistency", "one_step"), (_unrolled(config), "trajectory"))
        for model, rate in rates.items()
    ]


def _spaces(config: ConfigDict) -> list[Variant]:
    if build.has_known_law(config):
        return []
    return [
        Variant("pixels", "trajectory", {}),
        Variant("features", "trajectory_features", {}),
    ]


def _feature_networks(config: ConfigDict) -> list[Variant]:
    """Their number, and every architecture but that of the network that measures."""
    method, own = "trajectory_features", config.features
    if method not in config.guidance.methods:
        return []
    counts = sorted({1, 2, own.num_networks})
    others = [name for name in build.CLASSIFIERS if name != config.classifier.network]
    kinds = [(own.network, count) for count in counts]
    kinds += [(name, own.num_networks) for name in others if name != own.network]
    return [
        Variant(
            f"{count} {name}",
            method,
            {"features.network": name, "features.num_networks": count},
        )
        for name, count in kinds
    ]


_one_step = functools.partial(_values, "self_consistency")
_trajectory = functools.partial(_values, "trajectory")
SETTINGS: dict[str, Callable[[ConfigDict], list[Variant]]] = {
    "beta": _one_step("guidance.one_step.beta", (0.5, 1.0, 1.5, 1.75, 2.0)),
    "lambda": _one_step("guidance.one_step.lam", (0.0, 0.25, 0.5, 0.75, 1.0)),
    "m": _one_step("guidance.one_step.num_particles", (2, 4, 8, 16)),
    "delta": _one_step("guidance.one_step.delta", (0.01, 0.1, 0.2, 0.3)),
    "churn": _one_step("guidance.one_step.churn", (0.0, 0.5, 1.0)),
    "unrolled-steps": _trajectory("sampling.num_steps", (5, 10, 16)),
    "particles": _trajectory("guidance.trajectory.num_particles", (5, 10, 20, 40)),
    "marginal-weight": _trajectory("guidance.trajectory.marginal_weight", (0.0, 0.5, 1.0)),
    "start": _starts,
    "space": _spaces,
    "feature-network": _feature_networks,
    "model": _models,
}


class Ablation:
    """Learns and measures variants of a run, each once."""

    def __init__(
        self, config: ConfigDict, path: Path, num_seeds: int, num_samples: int | None
    ) -> None:
        self._config, self._path = config, path
        self._dataset = build.dataset(config)
        self._run = Workdir(path, config)
        self._run.bind_data(self._dataset)
        generator = evaluate.make_generator(config, self._run, self._dataset)
        journal = Journal(path / "ablations-measured.jsonl")
        measured = config
        if num_samples is not None:
            measured = _replaced(config, {"evaluation.num_samples": num_samples})
        self._score, _ = tune.scores_for(measured, self._run, self._dataset, generator, journal)
        self._seeds = range(FIRST_SEED, FIRST_SEED + num_seeds)

    def unguided(self) -> list[float]:
        """The metric without guidance, by seed."""
        return self._measured(guidance.constant(0.0))

    def __call__(self, variant: Variant) -> dict[str, Any]:
        """An entry of ablations.json."""
        own = config_of(self._config, Variant("", variant.method, {}))
        config = config_of(self._config, variant)
        is_own = not configs.diff(own, config)
        with contextlib.closing(Workdir(self._folder(config), config)) as workdir:
            self._share(workdir, config, variant.method if is_own else None)
            if variant.method == "trajectory_features":
                for name in denoiser_stage.feature_networks(config):
                    denoiser_stage.train_classifier(name, config, workdir, self._dataset)
            for stage in (collect, guidance_stage):
                stage.run(config, workdir, self._dataset)
            found = tune.select(config, workdir, self._dataset, variant.method, self._score)
        return {
            "label": variant.label,
            "method": variant.method,
            "fields": dict(variant.fields),
            "is_own": is_own,
            "params": found.params,
            "values": self._measured(found.omega_fn),
        }

    def _folder(self, config: ConfigDict) -> Path:
        """Variants that do not differ share theirs."""
        text = json.dumps(configs.to_dict(config), sort_keys=True)
        return self._path / "ablations" / hashlib.sha256(text.encode()).hexdigest()[:16]

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

    def _measured(self, omega_fn: guidance.OmegaFn) -> list[float]:
        each = self._score.on_seeds(omega_fn, self._score.full, self._seeds)
        return np.asarray(each.mean(axis=1), np.float64).tolist()


def config_of(config: ConfigDict, variant: Variant) -> ConfigDict:
    """A run's config with one method alone, and the fields of the variant."""
    return _replaced(config, {"guidance.methods": [variant.method], **variant.fields})


def _replaced(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    values = configs.to_dict(config)
    for field, value in fields.items():
        *groups, leaf = field.split(".")
        functools.reduce(dict.__getitem__, groups, values)[leaf] = value
    return configs.from_dict(values)


def variants_of(config: ConfigDict, names: Sequence[str]) -> dict[str, list[Variant]]:
    """Every value of the settings named. Raises ConfigError for a run that these do not fit."""
    if config.reward.name != "none":
        raise configs.ConfigError(
            [
                f"reward.name: expected none, which settings are compared without, "
                f"got {config.reward.name!r}"
            ]
        )
    variants = {name: SETTINGS[name](config) for name in names}
    for variant in itertools.chain(*variants.values()):
        config_of(config, variant)
    return variants


def measure(
    config: ConfigDict,
    path: Path,
    names: Sequence[str],
    num_seeds: int,
    num_samples: int | None = None,
) -> dict[str, Any]:
    """Every value of the settings named; num_samples: of each run, None for the config's."""
    variants = variants_of(config, names)
    ablation = Ablation(config, path, num_seeds, num_samples)
    unguided = ablation.unguided()
    found: dict[str, list[dict[str, Any]]] = {}
    with bar("ablations", sum(map(len, variants.values()))) as advance:
        for name, each in variants.items():
            found[name] = []
            for variant in each:
                found[name].append(ablation(variant))
                advance(f"{name} {variant.label}")
    return {
        "unguided": summary(unguided),
        "settings": {name: _against_own(entries) for name, entries in found.items() if entries},
    }


def _against_own(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With means, and paired differences to the run's own settings of the same method.

    Of several methods the own settings of each but the first are compared with those of the first.
    """
    own = {entry["method"]: entry["values"] for entry in entries if entry["is_own"]}
    first = next(iter(own.values()), None)
    for entry in entries:
        values = entry.pop("values")
        other = first if entry["is_own"] else own.get(entry["method"])
        entry["metric"] = summary(values)
        entry["difference"] = (
            None if other is None or other is values else paired_difference(values, other)
        )
    return entries


def figure(found: Mapping[str, Any], name: str, metric: str) -> Figure:
    """One setting."""
    entries = found["settings"][name]
    return plots.ablation(
        {entry["label"]: entry["metric"] for entry in entries},
        own=[entry["label"] for entry in entries if entry["is_own"]],
        unguided=found["unguided"],
        xlabel=name.replace("-", " "),
        ylabel=metric.replace("_", " ") + " (validation)",
    )


def table(results: Mapping[str, Any]) -> str:
    """One line a value: mean, standard error, difference to the run's own."""
    lines = ["| setting | value | metric | less that of the run's own |", "|---|---|---:|---:|"]
    for name, entries in results["settings"].items():
        for entry in entries:
            metric, gap = entry["metric"], entry["difference"]
            error = metric["std"] / len(metric["values"]) ** 0.5
            other = "" if gap is None else f"{gap['mean']:+.5f} ± {gap['standard_error']:.5f}"
            label = f"**{entry['label']}**" if entry["is_own"] else entry["label"]
            lines.append(f"| {name} | {label} | {metric['mean']:.5f} ± {error:.5f} | {other} |")
    return "\n".join(lines) + "\n"


def _names(text: str) -> list[str]:
    names = text.split(",") if text else list(SETTINGS)
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(SETTINGS)}, got {unknown}")
    return names


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="of a run with a denoiser")
    parser.add_argument("--only", type=_names, default=_names(""), help=", ".join(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3, help="of sampling")
    parser.add_argument("--samples", type=int, help="of each run, the run's own number by default")
    parser.add_argument("--name", default="", help="of the results to publish")
    chosen = parser.parse_args()
    try:
        config = configs.from_dict(read_json(chosen.workdir / "config.json"))
        with lock.held(chosen.workdir):
            found = measure(config, chosen.workdir, chosen.only, chosen.seeds, chosen.samples)
    except (WorkdirError, configs.ConfigError) as error:
        sys.exit(f"ablations: {error}")
    command = f"python -m experiments.ablations --workdir=... --seeds={chosen.seeds}"
    if chosen.samples:
        command += f" --samples={chosen.samples}"
    if chosen.only != list(SETTINGS):
        command += f" --only={','.join(chosen.only)}"
    _write(chosen.workdir, config, provenance(command) | found, chosen.name)


def _write(path: Path, config: ConfigDict, found: dict[str, Any], name: str) -> None:
    metric = config.evaluation.primary
    results = {
        "config": configs.to_dict(config),
        "primary_metric": metric,
        **found,
    }
    write_json(path / "ablations.json", results)
    (path / "report").mkdir(exist_ok=True)
    for setting in found["settings"]:
        picture = path / "report" / f"ablation-{setting}.png"
        plots.save(figure(found, setting, metric), picture)
        if name:
            shutil.copyfile(picture, ROOT / "docs" / f"{name}-{setting}.png")
    if name:
        write_json(RESULTS / f"{name}.json", results)
    print(table(results))


if __name__ == "__main__":
    main()
