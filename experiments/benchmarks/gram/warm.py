"""What a fit on statistics saves the trajectory objective as its start.

    python -m experiments.benchmarks.gram.warm --config=configs/digits.py \
        --workdir=runs/digits --name=digits

The trajectory objective is trained from four starts: omega fitted to statistics (self-consistency,
softplus output, so that no weight is exactly 0), the best of the hand-made schedules (the
default), a small constant and a large one. Its loss on validation data with fixed draws is followed
over the training; what counts is the step at which a start comes within 2% of the gap between
unguided and the best end of all. Writes experiments/results/gram-warm-NAME.json and
docs/gram-warm-NAME.png.
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import Setup
from experiments.publish.tables import RESULTS, ROOT
from experiments.workdir import write_json
from experiments.workdir.provenance import provenance
from lgd import gram, guidance, learn_guidance, omega, plots
from lgd.data import pipeline
from lgd.learn import omega_loss
from lgd.training import Optimizer
from lgd.types import OmegaFn, Params

NUM_EXAMPLES, EVERY, WITHIN = 65_536, 10, 0.02
HELD_OUT_BATCHES = 8
SHOWN = (-1.0, 25.0)  # per cent; a start that is worse comes into the picture later
BEST = "best hand-made"


def fitted(setup: Setup) -> tuple[OmegaFn, float]:
    """Omega from statistics, and the seconds that collecting and fitting took."""
    start = time.perf_counter()
    train = setup.collected("train", setup.dataset.train, NUM_EXAMPLES, seed=0)
    model = dataclasses.replace(setup.network(), output="softplus")
    model = gram.started(model, train, setup.objective, schedule=setup.schedule)
    optimizer = Optimizer(num_steps=1000, learning_rate=3e-3, ema_decay=0.98)
    found = gram.fit(train, setup.objective, model, schedule=setup.schedule, optimizer=optimizer)
    return found.guidance.omega_fn, time.perf_counter() - start


def measure(setup: Setup) -> dict[str, Any]:
    """Curves of the validation loss from every start."""
    from_statistics, seconds = fitted(setup)
    starts: dict[str, dict[str, OmegaFn] | None] = {
        "learned:statistics": {"statistics": from_statistics},
        BEST: None,
        "constant 0.1": {"constant": guidance.constant(0.1)},
        "constant 2": {"constant": guidance.constant(2.0)},
    }
    objective = build.objective(setup.config, "trajectory")
    model = build.omega_model(setup.config, "trajectory", setup.dataset.num_classes)
    assert isinstance(model, omega.StepTable)
    evaluate = _held_out(setup, objective, model)
    curves = {
        name: _curve(setup, objective, model, start, evaluate) for name, start in starts.items()
    }
    labels = np.arange(setup.dataset.num_classes)
    unguided = evaluate(model.tabulate(guidance.constant(0.0), labels))
    best = min(curve["losses"][-1] for curve in curves.values())
    for curve in curves.values():
        near = [
            step
            for step, loss in zip(curve["steps"], curve["losses"], strict=True)
            if loss - best <= WITHIN * (unguided - best)
        ]
        curve["reached"] = near[0] if near else None
    return {"unguided": unguided, "best": best, "fit_seconds": seconds, "curves": curves}


def _held_out(setup: Setup, objective: Any, model: omega.StepTable) -> Any:
    """Mean loss on validation groups, the same draws every time."""
    loss = jax.jit(omega_loss(objective, model, setup.denoiser))
    groups = pipeline.class_groups(setup.dataset.validation, objective.group_size, seed=1)
    batches = [groups(i) for i in range(HELD_OUT_BATCHES)]
    keys = jax.random.split(jax.random.key(7), HELD_OUT_BATCHES)

    def evaluate(params: Params) -> float:
        pairs = zip(batches, keys, strict=True)
        return float(np.mean([loss(params, setup.params, batch, key)[0] for batch, key in pairs]))

    return evaluate


def _curve(
    setup: Setup,
    objective: Any,
    model: omega.StepTable,
    start: dict[str, OmegaFn] | None,
    evaluate: Any,
) -> dict[str, Any]:
    kept: dict[int, Params] = {}
    began = time.perf_counter()

    def keep(step: int, ema: Params) -> None:
        if step % EVERY == 0 or step in (1, 5):
            kept[step] = jax.tree.map(jnp.copy, ema)

    guide = learn_guidance(
        jax.random.key(0),
        setup.denoiser,
        setup.params,
        setup.dataset.train.x,
        setup.dataset.train.labels,
        objective=objective,
        model=model,
        optimizer=build.guidance_optimizer(setup.config, "trajectory"),
        start=start,
        on_step=keep,
    )
    seconds = time.perf_counter() - began
    return {
        "start": guide.start,
        "seconds": seconds,
        "steps": list(kept),
        "losses": [evaluate(params) for params in kept.values()],
    }


def _gaps(found: dict[str, Any]) -> dict[str, tuple[list[float], list[float], list[float]]]:
    scale = found["unguided"] - found["best"]
    return {
        name: (
            [float(step) for step in curve["steps"]],
            [100.0 * (loss - found["best"]) / scale for loss in curve["losses"]],
            [0.0] * len(curve["steps"]),
        )
        for name, curve in found["curves"].items()
    }


def main() -> None:
    """Command line."""
    arguments = gram_setup.parser(__doc__).parse_args()
    found = measure(gram_setup.set_up(arguments))
    results = provenance(gram_setup.command("gram_warm", arguments)) | found
    write_json(RESULTS / f"gram-warm-{arguments.name}.json", results)
    figure = plots.method_curves(
        {"": _gaps(found)},
        xlabel="training step",
        ylabel="gap to the best end,\n% of that of no guidance",
        log="",
        ylim=SHOWN,
    )
    plots.save(figure, ROOT / "docs" / f"gram-warm-{arguments.name}.png")
    for name, curve in found["curves"].items():
        print(f"{name}: within 2% at step {curve['reached']}, end {curve['losses'][-1]:.5f}")


if __name__ == "__main__":
    main()
