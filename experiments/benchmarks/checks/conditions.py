"""What a training step of the default objective costs, over the number of classes.

    python -m experiments.benchmarks conditions --name=benchmark-conditions-cpu

Steps of `learn_guidance`'s default objective, with their batches of real data: with 10 conditions
drawn a step, as by default, for 10, 100 and 1,000 classes; and with every class in every step, as
far as that goes. Each is run in turn with the step of 10 classes in one process. Memory is what XLA
plans beside arguments and results, and needs no run. The denoiser is a small residual MLP with
random parameters, the data are noise.
"""

import dataclasses
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.benchmarks.checks import cost
from experiments.benchmarks.device.timing import ratio
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd import omega, plots, training
from lgd.data import pipeline
from lgd.data.dataset import labelled
from lgd.denoisers import NetworkDenoiser, ResidualMLP
from lgd.learn import default_objective, omega_loss
from lgd.machinery import parallel
from lgd.machinery.progress import bar

NUM_EXAMPLES = 20_000
CLASSES = (10, 100, 1000)
FEWEST = CLASSES[0]
DRAWN, EVERY = "10 a step", "every class a step"
COLUMNS = [
    text("conditions", "conditions"),
    number("classes", "classes", ",d"),
    number("seconds", "seconds a step", ".2f"),
    number("ratio", "time / that of 10 classes", ".2f"),
    number("", "quartiles", "{low:.2f} to {high:.2f}"),
    number("gigabytes", "memory, GB", ".3f"),
    number("memory_ratio", "memory / that of 10 classes", ".2f"),
]


class Step(NamedTuple):
    """A training step that can be run again and again, and the memory that it takes."""

    run: Callable[[], Any]
    working_bytes: int


def step_of(classes: int, drawn: int, options: Namespace) -> Step:
    """A step of the default objective on so many classes, ``drawn`` of them in each step."""
    module = ResidualMLP(classes, options.width, options.depth)
    denoiser = NetworkDenoiser(module, cost.FLOW, classes)
    frozen = denoiser.init(jax.random.key(0), cost.SHAPE)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_EXAMPLES, *cost.SHAPE)).astype(np.float32)
    split = labelled(x, np.arange(NUM_EXAMPLES, dtype=np.int32) % classes)
    objective = dataclasses.replace(default_objective(), conditions_per_step=drawn)
    objective, split = objective.prepared(split, 1, progress=False)
    batches = pipeline.groups(split, objective.group_size, seed=0, strata=drawn)
    model = omega.StepTable(times=objective.times, rows=omega.ByLabel(classes))
    optimizer = training.Optimizer(num_steps=1000, learning_rate=0.1)
    params = model.init(jax.random.key(1), np.arange(classes))
    state = training.init_state(params, optimizer)
    step: Any = training.make_step(
        omega_loss(objective, model, denoiser),
        optimizer,
        state,
        frozen,
        batches(0),
        mesh=parallel.make_mesh(1),
        project=model.project,
    )
    compiled = step.lower(state, frozen, batches(0), jax.random.key(2)).compile()

    def run() -> Any:
        nonlocal state
        state, info = compiled(state, frozen, batches(int(state.step)), jax.random.key(2))
        return info

    return Step(run, cost.working_bytes(compiled))


def measure(options: Namespace) -> dict[str, Any]:
    """Return time and memory of a step for every number of classes."""
    cases = [(DRAWN, count, FEWEST) for count in CLASSES]
    cases += [(EVERY, count, count) for count in options.every]
    few, rows = step_of(FEWEST, FEWEST, options), []
    with bar("conditions", len(cases)) as advance:
        for conditions, classes, drawn in cases:
            step = step_of(classes, drawn, options)
            rows.append(
                {
                    "conditions": conditions,
                    "classes": classes,
                    **ratio(step.run, few.run, options.rounds),
                    "gigabytes": step.working_bytes / 1e9,
                    "memory_ratio": step.working_bytes / few.working_bytes,
                }
            )
            advance(f"{classes} classes")
    objective = default_objective()
    return {
        "settings": {name: vars(options)[name] for name in ("width", "depth", "rounds")},
        "columns": COLUMNS,
        "rows": rows,
        "note": (
            f"{len(objective.times) - 1} DDIM steps, {objective.num_particles} particles and "
            f"{objective.num_targets} real examples of each condition, images "
            f"{'x'.join(map(str, cost.SHAPE))}, a residual MLP of width {options.width} and depth "
            f"{options.depth}, {options.rounds} rounds."
        ),
    }


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw time and memory over the number of classes."""
    panels: dict[str, dict[str, Any]] = {"time": {}, "memory": {}}
    for name in (DRAWN, EVERY):
        rows = [row for row in results["rows"] if row["conditions"] == name]
        rows = rows if name == DRAWN else [results["rows"][0], *rows]
        classes = [float(row["classes"]) for row in rows]
        for panel, key in (("time", "ratio"), ("memory", "memory_ratio")):
            panels[panel][name] = (classes, [row[key] for row in rows], [0.0] * len(rows))
    most = max(row[key] for row in results["rows"] for key in ("ratio", "memory_ratio"))
    return {
        "": plots.method_curves(
            panels,
            xlabel="classes",
            ylabel="a training step / one of 10 classes",
            log="x",
            ylim=(0.0, 1.05 * most),
        )
    }


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def arguments(add: Add) -> None:
    """Add the arguments of this benchmark."""
    add("--width", type=int, default=128, help="of the denoiser")
    add("--depth", type=int, default=2, help="of the denoiser")
    add("--rounds", type=int, default=5, help="of every comparison")
    add("--every", type=_numbers, default=[20, 30], help="classes, all of them in every step")


STUDY = Study(measure=measure, arguments=arguments, figures=figures)
