"""Denoiser calls and time until omega is learned: asking at every step against asking once.

    python -m experiments.benchmarks.gram.cost --config=configs/fashion_mnist.py \
        --workdir=runs/fashion_mnist --name=fashion_mnist

The paper's recipe (batches of 256 examples, 4 particles, fresh calls at every step) with budgets of
30 to 2,700 steps, and fits on 512 to 131,072 examples of one collection, other examples for each
seed; both with Adam and a cosine decay to 0, from the same start, each in three learning rates of
which the best by the mean over seeds is shown. What is compared is the held-out loss on statistics
of validation data: the gap to the best mean of all, relative to that of no guidance. Times are
without compilation. Writes experiments/results/gram-cost-NAME.json and docs/gram-cost-NAME.png.
"""

import argparse
import functools
import time
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import BATCH, Setup
from experiments.publish import statistics_tables
from experiments.publish.tables import RESULTS, ROOT
from experiments.workdir import write_json
from experiments.workdir.provenance import provenance
from lgd import gram, guidance, plots
from lgd.evaluation import summary
from lgd.gram import Lane, Statistics
from lgd.machinery.progress import bar
from lgd.training import Optimizer
from lgd.types import Params

BUDGETS = (30, 100, 300, 900, 2700)  # online steps
RATES = (3e-3, 1e-2, 3e-2)
SIZES = tuple(2**k for k in (9, 11, 13, 14, 15, 16, 17))
HELD_OUT, FIT_STEPS = 32_768, 3000
WITHIN = (0.01, 0.001)  # of the gap
PAPER_CALLS = 100_000 * BATCH * 4 * 2  # iterations, batch, particles, cond and uncond


def measure(setup: Setup, num_seeds: int) -> dict[str, Any]:
    """Both curves: calls, seconds and held-out loss."""
    held_out = setup.collected("validation", setup.dataset.validation, HELD_OUT, seed=1)
    total = num_seeds * max(SIZES)
    start = time.perf_counter()
    train = setup.collected("train", setup.dataset.train, total, seed=0)
    collection = (time.perf_counter() - start) / total
    fit_step = _fit_step_seconds(setup, train)
    unguided = setup.loss(held_out, guidance.constant(0.0))
    gram, online = [], []
    with bar("gram cost", len(SIZES) + len(BUDGETS)) as advance:
        for size in SIZES:
            row = _fitted(setup, train, held_out, size, num_seeds)
            gram.append(row | {"seconds": size * collection + FIT_STEPS * fit_step})
            advance(f"{size:,} examples")
        for steps in BUDGETS:
            online.append(_online(setup, steps, held_out, num_seeds))
            advance(f"{steps:,} steps")
    return with_gaps({"unguided": unguided, "gram": gram, "online": online}) | {
        "paper_calls": PAPER_CALLS
    }


def with_gaps(found: dict[str, Any]) -> dict[str, Any]:
    """The gap of every row to the best, and its standard error, as shares of the whole."""
    rows = [*found["gram"], *found["online"]]
    best = min(row["loss"]["mean"] for row in rows)
    whole = found["unguided"] - best
    for row in rows:
        loss = row["loss"]
        row["gap"] = (loss["mean"] - best) / whole
        row["gap_error"] = loss["std"] / len(loss["values"]) ** 0.5 / whole
    return found | {"best": best, "reached": _reached(found["gram"], found["online"])}


def _fitted(
    setup: Setup, train: Statistics, held_out: Statistics, size: int, num_seeds: int
) -> dict[str, Any]:
    """The best of three rates on ``size`` examples, others for each seed."""
    losses = np.empty((len(RATES), num_seeds))
    for seed in range(num_seeds):
        first = seed * max(SIZES)
        fitted = gram.sweep(
            train.take(slice(first, first + size)),
            [
                Lane(
                    objective=setup.objective, model=setup.network(), learning_rate=rate, seed=seed
                )
                for rate in RATES
            ],
            schedule=setup.schedule,
            optimizer=Optimizer(num_steps=FIT_STEPS, ema_decay=0.98),
            held_out=held_out,
            progress=False,
        )
        losses[:, seed] = [np.nan if f.held_out is None else f.held_out for f in fitted]
    return {"examples": size, "calls": size * 8} | _best_rate(losses)


def _best_rate(losses: np.ndarray) -> dict[str, Any]:
    """The rate of the least mean over seeds, of losses (rates, seeds)."""
    best = int(np.argmin(losses.mean(axis=1)))
    return {"rate": RATES[best], "loss": summary(losses[best])}


def _fit_step_seconds(setup: Setup, train: Statistics) -> float:
    """Of one step of one fit, the same for any number of examples, without compilation."""
    marks: list[float] = []
    gram.fit(
        train,
        setup.objective,
        setup.network(),
        schedule=setup.schedule,
        optimizer=Optimizer(num_steps=150, ema_decay=0.98),
        on_steps=lambda step, ema, value: marks.append(time.perf_counter()),
        progress=False,
    )
    return (marks[2] - marks[0]) / 100


def _online(setup: Setup, num_steps: int, held_out: Statistics, num_seeds: int) -> dict[str, Any]:
    """The best of three rates after so many steps; time of one run."""
    losses = np.empty((len(RATES), num_seeds))
    per_step = []
    for i, rate in enumerate(RATES):
        for seed in range(num_seeds):
            marks: list[float] = []
            optimizer = Optimizer(num_steps=num_steps, learning_rate=rate, ema_decay=0.98)
            learned = setup.online(optimizer, seed=seed, on_step=functools.partial(_mark, marks))
            per_step.append((marks[-1] - marks[1]) / (len(marks) - 2))
            losses[i, seed] = setup.loss(held_out, learned)
    return {
        "steps": num_steps,
        "calls": num_steps * BATCH * 8,
        "seconds": num_steps * float(np.median(per_step)),
    } | _best_rate(losses)


def _mark(marks: list[float], step: int, ema: Params) -> None:
    """Append the time at which a step has ended."""
    jax.block_until_ready(ema)
    marks.append(time.perf_counter())


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
    flags: argparse.ArgumentParser = gram_setup.parser(__doc__)
    flags.add_argument("--seeds", type=int, default=3, help="of every budget")
    arguments = flags.parse_args()
    found = measure(gram_setup.set_up(arguments), arguments.seeds)
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
