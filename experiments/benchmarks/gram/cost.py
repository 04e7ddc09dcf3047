r"""Denoiser calls and time until omega is learned: asking at every step against asking once.

    python -m experiments.benchmarks gram_cost --config=configs/fashion_mnist.py \
        --workdir=runs/fashion_mnist --name=gram-cost-fashion_mnist

The paper's recipe (batches of 256 examples, 4 particles, fresh calls at every step) with budgets of
30 to 2,700 steps, and fits on 512 to 131,072 examples of one collection, other examples for each
seed; both with Adam and a cosine decay to 0, from the same start, each in three learning rates of
which the best by the mean over seeds is shown. What is compared is the held-out loss on Gram
matrices of validation data: the gap to the best mean of all, relative to that of no guidance. Times
are without compilation.
"""

import dataclasses
import functools
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import BATCH, WAYS, Setup
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd import gram, guidance, plots
from lgd.evaluation import summary
from lgd.gram import Statistics
from lgd.machinery.progress import bar
from lgd.training import Optimizer
from lgd.types import Params

BUDGETS = (30, 100, 300, 900, 2700)  # online steps
RATES = (3e-3, 1e-2, 3e-2)
SIZES = tuple(2**k for k in (9, 11, 13, 14, 15, 16, 17))
HELD_OUT, FIT_STEPS = 32_768, 3000
WITHIN = (0.01, 0.001)  # of the gap
PAPER_CALLS = 100_000 * BATCH * 4 * 2  # iterations, batch, particles, cond and uncond
COLUMNS = [
    text("denoiser", "denoiser"),
    number("calls", "denoiser calls", ","),
    number("seconds", "seconds", ".1f"),
    number("rate", "learning rate", "g"),
    number("gap", "gap", ".2%"),
]
REACHED = [
    number("within", "within", ".1%"),
    *(
        number(way, title, "{calls:,} calls, {seconds:.1f} s") | {"missing": "not reached"}
        for way, title in WAYS.items()
    ),
    number("fewer_calls", "fewer calls", "{0:.1f}x"),
    number("less_time", "less time", "{0:.1f}x"),
]


def measure(options: Namespace) -> dict[str, Any]:
    """Return both curves: calls, seconds and held-out loss."""
    setup, num_seeds = gram_setup.set_up(options), options.seeds
    held_out, total = setup.held_out(HELD_OUT), num_seeds * max(SIZES)
    start = time.perf_counter()
    train = setup.training(total)
    collection = (time.perf_counter() - start) / total
    fit_step = _fit_step_seconds(setup, train)
    rows = []
    with bar("gram cost", len(SIZES) + len(BUDGETS)) as advance:
        for steps in BUDGETS:
            rows.append(_online(setup, steps, held_out, num_seeds))
            advance(f"{steps:,} steps")
        for size in SIZES:
            row = _fitted(setup, train, held_out, size, num_seeds)
            rows.append(row | {"seconds": size * collection + FIT_STEPS * fit_step})
            advance(f"{size:,} examples")
    return with_gaps(rows, setup.loss(held_out, guidance.constant(0.0)))


def with_gaps(rows: list[dict[str, Any]], unguided: float) -> dict[str, Any]:
    """Return rows with their gaps to the best as shares of the whole, and what reaches them."""
    best = min(row["loss"]["mean"] for row in rows)
    for row in rows:
        loss, whole = row["loss"], unguided - best
        error = loss["std"] / len(loss["values"]) ** 0.5
        row["gap"] = {"mean": (loss["mean"] - best) / whole, "standard_error": error / whole}
    paper = {"denoiser": "the paper's recipe", "calls": PAPER_CALLS}
    reached = [_reached(rows, within) for within in WITHIN]
    return {
        "unguided": unguided,
        "best": best,
        "columns": COLUMNS,
        "rows": [*rows, paper],
        "tables": {"reached": {"columns": REACHED, "rows": reached}},
    }


def _reached(rows: list[dict[str, Any]], within: float) -> dict[str, Any]:
    """The first budget of each way from which on all gaps are that small; None for none."""
    reached: dict[str, Any] = {"within": within}
    for way, name in WAYS.items():
        of_way = [row for row in rows if row["denoiser"] == name]
        near = [
            i for i in range(len(of_way)) if all(row["gap"]["mean"] <= within for row in of_way[i:])
        ]
        reached[way] = {key: of_way[near[0]][key] for key in ("calls", "seconds")} if near else None
    if reached["online"] and reached["gram"]:
        for name, key in (("fewer_calls", "calls"), ("less_time", "seconds")):
            reached[name] = reached["online"][key] / reached["gram"][key]
    return reached


def _fitted(
    setup: Setup, train: Statistics, held_out: Statistics, size: int, num_seeds: int
) -> dict[str, Any]:
    """The best of three rates on ``size`` examples, others for each seed."""
    losses = np.empty((len(RATES), num_seeds))
    for seed in range(num_seeds):
        some = train.take(slice(seed * max(SIZES), seed * max(SIZES) + size))
        fitted = setup.fits(some, RATES, [seed], FIT_STEPS, held_out)
        losses[:, seed] = [np.nan if each.held_out is None else each.held_out for each in fitted]
    row = {"denoiser": WAYS["gram"], "examples": size, "calls": size * 8}
    return row | _best_rate(losses)


def _best_rate(losses: np.ndarray) -> dict[str, Any]:
    """The rate of the least mean over seeds, of losses (rates, seeds)."""
    best = int(np.argmin(losses.mean(axis=1)))
    return {"rate": RATES[best], "loss": summary(losses[best])}


def _fit_step_seconds(setup: Setup, train: Statistics) -> float:
    """Seconds of one step of one fit, without compilation; they do not depend on the examples."""
    marks: list[float] = []
    optimizer = Optimizer(num_steps=150, ema_decay=0.98)
    gram.fit(
        train,
        setup.objective,
        setup.network(),
        schedule=setup.schedule,
        trainer=dataclasses.replace(
            gram_setup.fit_trainer(optimizer, progress=False),
            on_step=lambda step, ema: marks.append(time.perf_counter()),
        ),
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
        "denoiser": WAYS["online"],
        "steps": num_steps,
        "calls": num_steps * BATCH * 8,
        "seconds": num_steps * float(np.median(per_step)),
    } | _best_rate(losses)


def _mark(marks: list[float], step: int, ema: Params) -> None:
    """Append the time at which a step has ended."""
    jax.block_until_ready(ema)
    marks.append(time.perf_counter())


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the gaps of both ways over denoiser calls and over time."""
    panels = {
        xlabel: {
            f"learned:{name}": (
                [row[key] for row in of_way],
                [max(100.0 * row["gap"]["mean"], 1e-2) for row in of_way],  # the best has gap 0
            )
            for name in WAYS.values()
            for of_way in [[row for row in results["rows"] if row["denoiser"] == name]]
        }
        for xlabel, key in (("denoiser calls", "calls"), ("seconds", "seconds"))
    }
    ylabel = "gap to the best held-out loss,\n% of that of no guidance"
    paper = results["rows"][-1]
    marks = {paper["denoiser"]: float(paper["calls"])}
    return {"": plots.budget_curves(panels, ylabel=ylabel, marks=marks)}


def arguments(add: Add) -> None:
    """Add the arguments of this benchmark."""
    gram_setup.arguments(add)
    add("--seeds", type=int, default=3, help="of every budget")


STUDY = Study(measure=measure, arguments=arguments, figures=figures)
