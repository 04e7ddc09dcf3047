"""Use schedules selected at one setting with other numbers of steps and other solvers.

    python -m experiments.studies transfer --workdir=runs/digits [--name=digits-under-transfer]

Reads a finished run and measures its rows, exactly as selected there, on test data at every
setting: the energy distance, over test seeds.
"""

import dataclasses
import functools
import itertools
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from matplotlib.figure import Figure

from experiments import build, finished
from experiments import config as configs
from experiments.console import local_path
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from experiments.stages import evaluate
from lgd import guidance, plots, sampling
from lgd.evaluation import schedule_key, summary
from lgd.machinery.progress import bar
from lgd.metrics.energy import ClassEnergyDistance

STEPS = (8, 16, 32, 64)
METRIC = "energy_distance"


def measure(options: Namespace) -> dict[str, Any]:
    """Return a row for each method, with a summary over seeds for each solver and step count."""
    with finished.opened(options.workdir) as run:
        return _measured(run, options.seeds)


def _measured(run: finished.Finished, num_seeds: int) -> dict[str, Any]:
    config, methods = run.config, run.guidance()
    base = dataclasses.replace(run.generator(), churn=0.0, skip=False)
    real = ClassEnergyDistance(run.dataset.test, run.dataset.num_classes)
    journal = run.workdir.journal("transfer-measured", base.params)
    per_class = base.share(config.evaluation.num_samples)
    columns: list[dict[str, Any]] = []
    rows: dict[str, dict[str, Any]] = {name: {"method": name} for name in methods}
    settings = list(itertools.product(sampling.SOLVERS, STEPS))
    with bar("transfer", len(settings) * len(methods)) as advance:
        for solver, num_steps in settings:
            times = build.times(config, num_steps)
            generator = dataclasses.replace(base, times=times, solver=solver)
            key, nfe = f"{solver} {num_steps}", generator.nfe_of(guidance.constant(1.0), per_class)
            setting = {"solver": solver, "num_steps": num_steps, "nfe": nfe}
            columns.append(number(key, key, "{mean:.4f}") | {"best": "least"} | setting)
            for name, fn in methods.items():
                distances = []
                for seed in range(evaluate.TEST_SEED, evaluate.TEST_SEED + num_seeds):
                    draw = functools.partial(generator, fn, per_class, seed=seed)
                    entry = f"{key} {schedule_key(fn)} n={per_class} seed={seed}"
                    distances.append(journal(entry, functools.partial(_distance, real, draw)))
                rows[name][key] = summary(distances)
                advance(name)
    return {
        "trained_by": run.results["command"],
        "config": configs.to_dict(config),
        "primary_metric": METRIC,
        "columns": [text("method", "method"), *columns],
        "rows": list(rows.values()),
    }


def _distance(real: ClassEnergyDistance, draw: functools.partial[Any]) -> float:
    """Energy distance of samples to test data, a mean over classes."""
    return float(jnp.mean(real(draw())))


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the metric over the number of steps, a panel for each solver."""
    panels: dict[str, dict[str, tuple]] = {}
    for solver, group in itertools.groupby(results["columns"][1:], lambda each: each["solver"]):
        columns, curves = list(group), panels.setdefault(solver, {})
        steps = [column["num_steps"] for column in columns]
        for row in results["rows"]:
            cells = [row[column["key"]] for column in columns]
            errors = [each["std"] / max(len(each["values"]), 1) ** 0.5 for each in cells]
            curves[row["method"]] = (steps, [each["mean"] for each in cells], errors)
    ylabel = results["primary_metric"].replace("_", " ") + " (test)"
    return {"": plots.method_curves(panels, xlabel="sampling steps", ylabel=ylabel)}


def arguments(add: Add) -> None:
    """Add the arguments of this study."""
    add("--workdir", type=local_path, required=True, help="folder of a finished run")
    add("--seeds", type=int, default=3, help="test seeds")


STUDY = Study(measure=measure, arguments=arguments, figures=figures)
