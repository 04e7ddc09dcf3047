r"""What a fit on Gram matrices saves the trajectory objective as its start.

    python -m experiments.benchmarks gram_warm --config=configs/digits.py \
        --workdir=runs/digits --name=gram-warm-digits

The trajectory objective is trained from four starts: omega fitted to Gram matrices
(self-consistency, softplus output, so that no weight is exactly 0), the best of the hand-made
schedules (the default), a small constant and a large one. Its loss on validation data with fixed
draws is followed over the training; what counts is the step at which a start comes within 2% of the
gap between unguided and the best end of all.
"""

import dataclasses
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import build_guidance
from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import Setup
from experiments.publish.markdown import number, text
from experiments.publish.study import Study
from lgd import gram, guidance, learn_guidance, omega, plots
from lgd.data import pipeline
from lgd.learn import omega_loss
from lgd.objectives import Objective
from lgd.training import Optimizer, Trainer
from lgd.types import OmegaFn, Params

NUM_EXAMPLES, EVERY, WITHIN = 65_536, 10, 0.02
HELD_OUT_BATCHES = 8
SHOWN = (-1.0, 25.0)  # per cent; a start that is worse comes into the picture later
BEST = "best hand-made"
COLUMNS = [
    text("label", "start"),
    number("first", "loss at the start", ".4f"),
    number("last", "at the end", ".4f"),
    number("reached", "within 2% at step", "d") | {"missing": "not reached"},
]
Evaluate = Callable[[Params], float]


def fitted(setup: Setup) -> tuple[OmegaFn, float]:
    """Return omega from Gram matrices, and the seconds that collecting and fitting took."""
    start = time.perf_counter()
    train = setup.training(NUM_EXAMPLES)
    model = dataclasses.replace(setup.network(), output="softplus")
    model, params = gram.started(model, train, setup.objective, schedule=setup.schedule)
    trainer = gram_setup.fit_trainer(Optimizer(num_steps=1000, learning_rate=3e-3, ema_decay=0.98))
    fit = gram.fit(
        train, setup.objective, model, schedule=setup.schedule, trainer=trainer, params=params
    )
    return fit.guidance.omega_fn, time.perf_counter() - start


def measure(options: Namespace) -> dict[str, Any]:
    """Return curves of the validation loss from every start."""
    setup = gram_setup.set_up(options)
    from_gram, seconds = fitted(setup)
    starts: dict[str, dict[str, OmegaFn] | None] = {
        "learned:statistics": {"statistics": from_gram},
        BEST: None,
        "constant 0.1": {"constant": guidance.constant(0.1)},
        "constant 2": {"constant": guidance.constant(2.0)},
    }
    objective = build_guidance.objective(setup.config, "trajectory")
    model = build_guidance.omega_model(setup.config, "trajectory", setup.dataset)
    evaluate = _held_out(setup, objective, model)
    rows = []
    for name, start in starts.items():
        row = _curve(setup, objective, model, start, evaluate)
        label = f"{name}, {row['start']}" if name == BEST else name.removeprefix("learned:")
        rows.append({"name": name, "label": label, **row})
    params = model.started(jax.random.key(0), guidance.constant(0.0), setup.dataset.train.c)[1]
    unguided, best = evaluate(params), min(row["last"] for row in rows)
    for row in rows:
        near = [
            step
            for step, loss in zip(row["steps"], row["losses"], strict=True)
            if loss - best <= WITHIN * (unguided - best)
        ]
        row["reached"] = near[0] if near else None
    values = {"unguided": unguided, "best": best, "fit_seconds": seconds}
    return values | {"columns": COLUMNS, "rows": rows}


def _held_out(setup: Setup, objective: Objective, model: omega.LearnedModel) -> Evaluate:
    """Mean loss on validation groups, the same draws every time."""
    loss = jax.jit(omega_loss(objective, model, setup.denoiser))
    groups = pipeline.groups(setup.dataset.validation, objective.group_size or 1, seed=1)
    batches = [groups(i) for i in range(HELD_OUT_BATCHES)]
    keys = jax.random.split(jax.random.key(7), HELD_OUT_BATCHES)

    def evaluate(params: Params) -> float:
        pairs = zip(batches, keys, strict=True)
        return float(np.mean([loss(params, setup.params, batch, key)[0] for batch, key in pairs]))

    return evaluate


def _curve(
    setup: Setup,
    objective: Objective,
    model: omega.LearnedModel,
    start: dict[str, OmegaFn] | None,
    evaluate: Evaluate,
) -> dict[str, Any]:
    kept: dict[int, Params] = {}
    began = time.perf_counter()

    def keep(step: int, ema: Params) -> None:
        if step % EVERY == 0 or step in (1, 5):
            kept[step] = jax.tree.map(jnp.copy, ema)

    optimizer = build_guidance.optimizer(setup.config, "trajectory")
    guide = learn_guidance(
        jax.random.key(0),
        setup.denoiser,
        setup.params,
        setup.dataset.train.x,
        setup.dataset.train.c,
        objective=objective,
        model=model,
        start=start,
        trainer=Trainer(optimizer=optimizer, on_step=keep),
    )
    seconds, losses = time.perf_counter() - began, [evaluate(each) for each in kept.values()]
    return {
        "start": guide.start,
        "seconds": seconds,
        "first": losses[0],
        "last": losses[-1],
        "steps": list(kept),
        "losses": losses,
    }


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the gap to the best end over the training."""
    scale, curves = results["unguided"] - results["best"], {}
    for row in results["rows"]:
        gaps = [100.0 * (loss - results["best"]) / scale for loss in row["losses"]]
        curves[row["name"]] = (list(map(float, row["steps"])), gaps, [0.0] * len(gaps))
    figure = plots.method_curves(
        {"": curves},
        xlabel="training step",
        ylabel="gap to the best end,\n% of that of no guidance",
        log="",
        ylim=SHOWN,
    )
    return {"": figure}


STUDY = Study(measure=measure, arguments=gram_setup.arguments, figures=figures)
