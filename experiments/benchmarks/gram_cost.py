"""Denoiser calls and time until omega is learned: asking at every step against asking once.

    python -m experiments.benchmarks.gram_cost --config=configs/fashion_mnist.py \
        --workdir=runs/fashion_mnist --name=fashion_mnist

The paper's recipe (batches of 256 examples, 4 particles, fresh calls at every step) with budgets of
30 to 900 steps, and fits on the first 512 to 131,072 examples of one collection; both with Adam and
a cosine decay to 0, from the same start, each in three learning rates of which the best is shown.
What is compared is the held-out loss on statistics of validation data: the gap to the best one of
all, relative to that of no guidance. Times are without compilation. Writes
experiments/results/gram-cost-NAME.json and docs/gram-cost-NAME.png.
"""

import time
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments import statistics_tables
from experiments.benchmarks import gram_setup
from experiments.benchmarks.gram_setup import Setup
from experiments.provenance import provenance
from experiments.tables import RESULTS, ROOT
from experiments.workdir import write_json
from lgd import guidance, learn_guidance, plots, statistics
from lgd.learn import Guidance
from lgd.statistics import Lane, Statistics
from lgd.training import Optimizer
from lgd.types import OmegaFn

BUDGETS = (30, 100, 300, 900)  # online steps
RATES = (3e-3, 1e-2, 3e-2)
SIZES = tuple(2**k for k in range(9, 18))
HELD_OUT, BATCH, FIT_STEPS = 32_768, 256, 1000
WITHIN = (0.01, 0.001)  # of the gap
PAPER_CALLS = 100_000 * BATCH * 4 * 2  # iterations, batch, particles, cond and uncond


def measure(setup: Setup) -> dict[str, Any]:
    """Both curves: calls, seconds and held-out loss."""
    held_out = setup.collected("validation", setup.dataset.validation, HELD_OUT, seed=1)
    start = time.perf_counter()
    train = setup.collected("train", setup.dataset.train, max(SIZES), seed=0)
    collection = (time.perf_counter() - start) / max(SIZES)

    def loss(omega_fn: OmegaFn) -> float:
        scores = statistics.score(
            held_out, {"": omega_fn}, objective=setup.objective, schedule=setup.schedule
        )
        return scores.mean("")

    unguided = loss(guidance.constant(0.0))
    gram = [_fitted(setup, train, held_out, size, collection) for size in SIZES]
    online = [_online(setup, steps, loss) for steps in BUDGETS]
    found = {"unguided": unguided, "gram": gram, "online": online}
    best = min(row["loss"] for row in (*gram, *online))
    for row in (*gram, *online):
        row["gap"] = (row["loss"] - best) / (unguided - best)
    return found | {"best": best, "paper_calls": PAPER_CALLS, "reached": _reached(gram, online)}


def _fitted(
    setup: Setup, train: Statistics, held_out: Statistics, size: int, seconds_each: float
) -> dict[str, float]:
    """The best of three rates on the first ``size`` examples; time of one fit, collection in."""
    lanes = [
        Lane(objective=setup.objective, model=setup.network(), learning_rate=rate) for rate in RATES
    ]
    some = train.take(slice(0, size))
    optimizer = Optimizer(num_steps=FIT_STEPS, ema_decay=0.98)
    fitted = statistics.sweep(
        some, lanes, schedule=setup.schedule, optimizer=optimizer, held_out=held_out
    )
    best = min(fitted, key=lambda each: each.held_out or np.inf)
    marks: list[float] = []
    statistics.fit(
        some,
        setup.objective,
        setup.network(),
        schedule=setup.schedule,
        optimizer=Optimizer(num_steps=150, ema_decay=0.98),
        on_steps=lambda step, ema, value: marks.append(time.perf_counter()),
        progress=False,
    )
    per_step = (marks[2] - marks[0]) / 100
    return {
        "examples": size,
        "calls": size * 8,
        "rate": best.lane.learning_rate,
        "seconds": size * seconds_each + FIT_STEPS * per_step,
        "loss": float(best.held_out or np.nan),
    }


def _online(setup: Setup, num_steps: int, loss: Any) -> dict[str, float]:
    """The best of three rates after so many steps; time of one run."""
    found = []
    for rate in RATES:
        marks: list[float] = []
        learned = _learned(setup, num_steps, rate, marks)
        per_step = (marks[-1] - marks[1]) / (len(marks) - 2)
        found.append((loss(learned.omega_fn), rate, per_step))
    value, rate, per_step = min(found)
    calls = num_steps * BATCH * 8
    return {
        "steps": num_steps,
        "calls": calls,
        "rate": rate,
        "seconds": num_steps * per_step,
        "loss": value,
    }


def _learned(setup: Setup, num_steps: int, rate: float, marks: list[float]) -> Guidance:
    """One online run; appends the time after every step."""

    def mark(step: int, ema: Any) -> None:
        jax.block_until_ready(ema)
        marks.append(time.perf_counter())

    return learn_guidance(
        jax.random.key(0),
        setup.denoiser,
        setup.params,
        setup.dataset.train.x,
        setup.dataset.train.labels,
        objective=setup.objective,
        model=setup.network(),
        optimizer=Optimizer(num_steps=num_steps, learning_rate=rate, ema_decay=0.98),
        batch_size=BATCH,
        start={"start": guidance.constant(gram_setup.INIT_OMEGA)},
        on_step=mark,
        progress=num_steps > 100,
    )


def _reached(gram: list[dict], online: list[dict]) -> dict[str, dict[str, Any]]:
    """The first budget of each from which on every one is within 1% and 0.1%; None for none."""
    found: dict[str, dict[str, Any]] = {}
    for within in WITHIN:
        found[f"{within:g}"] = {
            name: next(
                (
                    {key: row[key] for key in ("calls", "seconds")}
                    for i, row in enumerate(rows)
                    if all(later["gap"] <= within for later in rows[i:])
                ),
                None,
            )
            for name, rows in (("gram", gram), ("online", online))
        }
    return found


def main() -> None:
    """Command line."""
    arguments = gram_setup.parser(__doc__).parse_args()
    setup = gram_setup.set_up(arguments)
    found = measure(setup)
    results = provenance(gram_setup.command("gram_cost", arguments)) | found
    write_json(RESULTS / f"gram-cost-{arguments.name}.json", results)
    print(statistics_tables.cost(found) + statistics_tables.reached(found))
    plots.save(_figure(found), ROOT / "docs" / f"gram-cost-{arguments.name}.png")


def _figure(found: dict[str, Any]) -> Figure:
    labels = {"online": "learned:asked at every step", "gram": "learned:asked once"}
    panels = {
        xlabel: {
            label: (
                [row[key] for row in found[name]],
                [max(100.0 * row["gap"], 1e-2) for row in found[name]],  # the best has gap 0
            )
            for name, label in labels.items()
        }
        for xlabel, key in (("denoiser calls", "calls"), ("seconds", "seconds"))
    }
    return plots.budget_curves(
        panels,
        ylabel="gap to the best held-out loss,\n% of that of no guidance",
        marks={"the paper's recipe": found["paper_calls"]},
    )


if __name__ == "__main__":
    main()
