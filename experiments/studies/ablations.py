"""What each setting of learning guidance is worth: all else as in a run, one setting at a time.

    python -m experiments.studies.ablations --workdir=runs/fashion_mnist [--only=beta] [--name=NAME]

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
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import build
from experiments import config as configs
from experiments.journal import Journal
from experiments.publish.tables import RESULTS, ROOT, title
from experiments.stages import collect, evaluate, tune
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import guidance as guidance_stage
from experiments.studies.ablation_settings import (
    SETTINGS,
    Variant,
    config_of,
    replaced,
    variants_of,
)
from experiments.workdir import Workdir, WorkdirError, lock, read_json, write_json
from experiments.workdir.provenance import provenance
from lgd import guidance, plots
from lgd.evaluation import paired_difference, summary
from lgd.machinery import digests
from lgd.machinery.progress import bar
from lgd.types import OmegaFn

FIRST_SEED = 500_000  # of the noise; validation starts at 0, test at 1,000,000


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
            measured = replaced(config, {"evaluation.num_samples": num_samples})
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

    def _measured(self, omega_fn: OmegaFn) -> list[float]:
        each = self._score.on_seeds(omega_fn, self._score.full, self._seeds)
        return np.asarray(each.mean(axis=1), np.float64).tolist()


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
        ylabel=f"{title(metric)} (validation)",
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
    command = f"python -m experiments.studies.ablations --workdir=... --seeds={chosen.seeds}"
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
