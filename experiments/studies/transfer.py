"""Use schedules selected at one setting with other numbers of steps and other solvers.

    python -m experiments.studies.transfer --workdir=runs/digits [--name=digits-under-transfer]

Reads a finished run and measures its rows, exactly as selected there, on test data at every
setting. Writes transfer.json and report/transfer.png into the workdir; with --name also
experiments/results/NAME.json and docs/NAME.png.
"""

import argparse
import dataclasses
import functools
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import jax.numpy as jnp
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import build
from experiments import config as configs
from experiments.journal import Journal, schedule_key
from experiments.publish.tables import RESULTS, ROOT
from experiments.stages import evaluate, report
from experiments.stages.measure import PRIMARY
from experiments.workdir import Workdir, WorkdirError, read_json, write_json
from experiments.workdir.provenance import provenance
from lgd import plots
from lgd.evaluation import Generator, summary
from lgd.machinery.progress import bar
from lgd.metrics.energy import ClassEnergyDistance
from lgd.sampling import Solver
from lgd.types import OmegaFn

STEPS = (8, 16, 32, 64)
SOLVERS: tuple[Solver, ...] = get_args(Solver)


def transfer(config: ConfigDict, workdir: Workdir, num_seeds: int) -> list[dict]:
    """One entry for each solver, number of steps and row: the energy distance over seeds."""
    dataset = build.dataset(config)
    results = read_json(workdir.path / "results.json")
    functions = report.omega_functions(config, workdir, dataset, results)
    base = evaluate.make_generator(config, workdir, dataset)
    per_class = config.evaluation.num_samples // dataset.num_classes
    score = _Score(
        ClassEnergyDistance(dataset.test, dataset.num_classes),
        Journal(workdir.path / "transfer-measured.jsonl"),
        per_class,
        range(evaluate.TEST_SEED, evaluate.TEST_SEED + num_seeds),
    )
    entries = []
    with bar("transfer", len(SOLVERS) * len(STEPS) * len(functions)) as advance:
        for solver in SOLVERS:
            for num_steps in STEPS:
                times = build.times(config, num_steps)
                generator = dataclasses.replace(base, times=times, churn=0.0, solver=solver)
                for name, omega_fn in functions.items():
                    setting = {"solver": solver, "num_steps": num_steps, "nfe": generator.nfe}
                    values = score(generator, omega_fn)
                    entries.append({"method": name, **setting, PRIMARY: summary(values)})
                    advance(name)
    return entries


@dataclasses.dataclass(frozen=True)
class _Score:
    """Class-averaged energy distance to test data of every seed; measured once."""

    real: ClassEnergyDistance
    journal: Journal
    per_class: int
    seeds: Sequence[int]

    def __call__(self, generator: Generator, omega_fn: OmegaFn) -> list[float]:
        schedule = schedule_key(omega_fn, generator.times, generator.num_classes)
        name = f"{generator.solver} {schedule} n={self.per_class}"

        def measure(seed: int) -> float:
            return float(jnp.mean(self.real(generator(omega_fn, self.per_class, seed=seed))))

        return [
            self.journal(f"{name} seed={seed}", functools.partial(measure, seed))
            for seed in self.seeds
        ]


def figure(entries: Sequence[Mapping]) -> Figure:
    """A panel a solver."""
    panels: dict[str, dict[str, tuple]] = {solver: {} for solver in SOLVERS}
    for solver, curves in panels.items():
        mine = [each for each in entries if each["solver"] == solver]
        for name in dict.fromkeys(each["method"] for each in mine):
            results = [each[PRIMARY] for each in mine if each["method"] == name]
            errors = [r["std"] / max(len(r["values"]), 1) ** 0.5 for r in results]
            curves[name] = (STEPS, [r["mean"] for r in results], errors)
    return plots.method_curves(
        panels, xlabel="sampling steps", ylabel=PRIMARY.replace("_", " ") + " (test)"
    )


def table(entries: Sequence[Mapping]) -> str:
    """Means, a column a setting."""
    settings = list(dict.fromkeys((each["solver"], each["num_steps"]) for each in entries))
    best = {
        setting: min(
            each[PRIMARY]["mean"]
            for each in entries
            if (each["solver"], each["num_steps"]) == setting
        )
        for setting in settings
    }
    lines = [
        "| method | " + " | ".join(f"{solver} {steps}" for solver, steps in settings) + " |",
        "|---|" + "---:|" * len(settings),
    ]
    for name in dict.fromkeys(each["method"] for each in entries):
        means = [each[PRIMARY]["mean"] for each in entries if each["method"] == name]
        cells = [
            f"**{mean:.4f}**" if mean == best[setting] else f"{mean:.4f}"
            for mean, setting in zip(means, settings, strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--seeds", type=int, default=3, help="test seeds")
    parser.add_argument("--name", default="", help="of the results to publish")
    chosen = parser.parse_args()
    try:
        config = configs.from_dict(read_json(chosen.workdir / "config.json"))
        workdir = Workdir(chosen.workdir, config)
        entries = transfer(config, workdir, chosen.seeds)
    except (WorkdirError, configs.ConfigError) as error:
        sys.exit(f"transfer: {error}")
    trained = read_json(chosen.workdir / "results.json")["command"]
    results = provenance("python -m experiments.studies.transfer --workdir=...") | {
        "trained_by": trained,
        "config": configs.to_dict(config),
        "primary_metric": PRIMARY,
        "entries": entries,
    }
    write_json(chosen.workdir / "transfer.json", results)
    plots.save(figure(entries), chosen.workdir / "report" / "transfer.png")
    print(table(entries))
    if chosen.name:
        shutil.copyfile(chosen.workdir / "transfer.json", RESULTS / f"{chosen.name}.json")
        picture = ROOT / "docs" / f"{chosen.name}.png"
        shutil.copyfile(chosen.workdir / "report" / "transfer.png", picture)


if __name__ == "__main__":
    main()
