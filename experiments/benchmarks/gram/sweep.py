"""What a sweep of 64 settings costs beside one fit, and beside 64 runs that ask the denoiser.

    python -m experiments.benchmarks.gram.sweep --config=configs/digits.py \
        --workdir=runs/digits --name=digits

beta x lam x churn x width x seed: 4 x 2 x 2 x 2 x 2. Times without compilation, of things run in
turn. The 64 online runs are one run's steps, timed and multiplied, since all cost the same; both
take as many steps. Writes experiments/results/gram-sweep-NAME.json.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks.device.timing import ratios
from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import Setup
from experiments.publish import statistics_tables
from experiments.publish.tables import RESULTS
from experiments.workdir import write_json
from experiments.workdir.provenance import provenance
from lgd import gram, objectives, omega, training
from lgd.data import pipeline
from lgd.gram import Lane
from lgd.learn import omega_loss
from lgd.machinery import parallel
from lgd.training import Optimizer

NUM_EXAMPLES, NUM_STEPS, BATCH = 65_536, 1000, 256
TIMED_STEPS = (50, 150)  # of a sweep; one fit goes through all of its steps


def lanes(setup: Setup) -> list[Lane]:
    """64 settings."""
    grid = itertools.product((1.0, 1.25, 1.5, 1.75), (0.5, 1.0), (0.0, 1.0), (32, 64), (0, 1))
    return [
        Lane(
            objective=objectives.SelfConsistency(
                beta=beta, lam=lam, churn=churn, time_law=setup.objective.time_law
            ),
            model=setup.network(width),
            seed=seed,
        )
        for beta, lam, churn, width, seed in grid
    ]


def table_lanes(setup: Setup) -> list[Lane]:
    """64 settings of a table."""
    model = omega.BinTable(
        support=setup.objective.support,
        rows=omega.ByLabel(setup.dataset.num_classes),
        init_omega=gram_setup.INIT_OMEGA,
    )
    rates = (0.01, 0.03, 0.1, 0.3)
    return [
        Lane(objective=lane.objective, model=model, learning_rate=rate, seed=lane.seed)
        for lane, rate in zip(lanes(setup), itertools.cycle(rates), strict=False)
    ]


def measure(setup: Setup, rounds: int) -> dict[str, Any]:
    """Seconds and ratios."""
    gathered = setup.collected("train", setup.dataset.train, NUM_EXAMPLES, seed=0)

    def run(some: list[Lane], num_steps: int) -> Any:
        optimizer = Optimizer(num_steps=num_steps, ema_decay=0.98)
        return lambda: (
            gram.sweep(
                gathered, some, schedule=setup.schedule, optimizer=optimizer, progress=False
            )[0].guidance.params
        )

    every, tables = lanes(setup), table_lanes(setup)
    some = {
        "network": every[-1:],
        "64 networks": every,
        "table": tables[:1],
        "64 tables": tables,
    }
    fits = {name: _fit_seconds(run, chosen, rounds) for name, chosen in some.items()}
    collection, online = _collection_seconds(setup), _online_step(setup, rounds) * NUM_STEPS
    return {
        "fits": fits,
        "ratios": {
            "network": fits["64 networks"]["seconds"] / fits["network"]["seconds"],
            "table": fits["64 tables"]["seconds"] / fits["table"]["seconds"],
        },
        "collection_seconds": collection,
        "online_seconds": online,
        "online_to_gram": 64.0 * online / (collection + fits["64 networks"]["seconds"]),
        "num_examples": NUM_EXAMPLES,
        "num_steps": NUM_STEPS,
    }


def _fit_seconds(
    run: Callable[[list[Lane], int], Callable[[], Any]], some: list[Lane], rounds: int
) -> dict[str, float]:
    """Of NUM_STEPS steps, from fits of few and of more: what they have in common counts once."""
    few, more = TIMED_STEPS if len(some) > 1 else (TIMED_STEPS[0], NUM_STEPS)
    found = ratios(
        {str(steps): run(some, steps) for steps in (few, more)}, against=str(few), rounds=rounds
    )
    per_step = (found[str(more)]["seconds"] - found[str(few)]["seconds"]) / (more - few)
    fixed = found[str(few)]["seconds"] - few * per_step
    return {"fixed": fixed, "per_step": per_step, "seconds": fixed + NUM_STEPS * per_step}


def _collection_seconds(setup: Setup) -> float:
    """Of a fresh collection, its compilation left out."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = []
        for name, size in (("compiled", 512), ("timed", NUM_EXAMPLES // 8)):
            start = time.perf_counter()
            gram.collect(
                Path(folder) / name,
                setup.denoiser,
                setup.params,
                setup.dataset.train,
                num_examples=size,
                shard_examples=512 if size == 512 else 8192,
                law=setup.objective.time_law,
            )
            seconds.append(time.perf_counter() - start)
    return 8.0 * seconds[1]


def _online_step(setup: Setup, rounds: int) -> float:
    """Seconds of one training step that asks the denoiser, batch of 256, 4 particles."""
    objective, model = setup.objective, setup.network()
    optimizer = Optimizer(num_steps=NUM_STEPS)
    state = training.init_state(model.init(jax.random.key(0), setup.dataset.train.c), optimizer)
    batch = pipeline.examples(setup.dataset.train, BATCH, seed=0)(0)
    mesh, key = parallel.make_mesh(1), jax.random.key(1)
    loss = omega_loss(objective, model, setup.denoiser)
    step = training.make_step(loss, optimizer, state, setup.params, batch, mesh=mesh)

    def train() -> Any:
        nonlocal state
        state, info = step(state, setup.params, batch, key)
        return info

    return ratios({"step": train}, against="step", rounds=20 * rounds)["step"]["seconds"]


def main() -> None:
    """Command line."""
    flags: argparse.ArgumentParser = gram_setup.parser(__doc__)
    flags.add_argument("--rounds", type=int, default=5, help="of the timings")
    arguments = flags.parse_args()
    found = measure(gram_setup.set_up(arguments), arguments.rounds)
    results = provenance(gram_setup.command("gram_sweep", arguments)) | found
    write_json(RESULTS / f"gram-sweep-{arguments.name}.json", results)
    print(statistics_tables.sweep(found))


if __name__ == "__main__":
    main()
