r"""What a sweep of 64 settings costs beside one fit, and beside 64 runs that ask the denoiser.

    python -m experiments.benchmarks gram_sweep --config=configs/digits.py \
        --workdir=runs/digits --name=gram-sweep-digits

beta x lam x churn x width x seed: 4 x 2 x 2 x 2 x 2. Times without compilation, of things run in
turn. The 64 online runs are one run's steps, timed and multiplied, since all cost the same; both
take as many steps.
"""

import itertools
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks.device.timing import median_seconds, ratio
from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import BATCH, Setup
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd import gram, objectives, omega, training
from lgd.data import pipeline
from lgd.gram import Lane
from lgd.learn import omega_loss
from lgd.machinery import parallel
from lgd.training import Optimizer, Trainer

NUM_EXAMPLES, NUM_STEPS = 65_536, 1000
TIMED_STEPS = (50, 150)  # of a sweep; one fit goes through all of its steps
COLUMNS = [
    text("what", ""),
    number("seconds", "seconds", ".1f"),
    number("ratio", "against one", ".1f"),
]


def lanes(setup: Setup) -> list[Lane]:
    """Return 64 settings of a network."""
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
    """Return 64 settings of a table."""
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


def measure(options: Namespace) -> dict[str, Any]:
    """Return seconds and ratios."""
    setup, rounds = gram_setup.set_up(options), options.rounds
    gathered = setup.training(NUM_EXAMPLES)

    def run(some: list[Lane], num_steps: int) -> Any:
        trainer = gram_setup.fit_trainer(
            Optimizer(num_steps=num_steps, ema_decay=0.98), progress=False
        )
        return lambda: (
            gram.sweep(gathered, some, schedule=setup.schedule, trainer=trainer)[0].guidance.params
        )

    fits: dict[str, dict[str, float]] = {}
    rows: list[dict[str, Any]] = []
    for kind, every in {"network": lanes(setup), "table": table_lanes(setup)}.items():
        one, many = _fit_seconds(run, every[-1:], rounds), _fit_seconds(run, every, rounds)
        fits |= {kind: one, f"64 {kind}s": many}
        rows += [
            _row(f"one fit of a {kind}", one["seconds"], 1.0),
            _row(
                f"64 fits of {kind}s, one program",
                many["seconds"],
                many["seconds"] / one["seconds"],
            ),
        ]
    collection, online = _collection_seconds(setup), _online_step(setup, rounds) * NUM_STEPS
    rows += [
        _row("collection, once", collection),
        _row("one run asking at every step", online),
        _row("64 such runs", 64.0 * online),
    ]
    counts = {"num_examples": NUM_EXAMPLES, "num_steps": NUM_STEPS}
    ratio = 64.0 * online / (collection + fits["64 networks"]["seconds"])
    return {"fits": fits, "online_to_gram": ratio, **counts, "columns": COLUMNS, "rows": rows}


def _row(what: str, seconds: float, ratio: float | None = None) -> dict[str, Any]:
    return {"what": what, "seconds": seconds, "ratio": ratio}


def _fit_seconds(
    run: Callable[[list[Lane], int], Callable[[], Any]], some: list[Lane], rounds: int
) -> dict[str, float]:
    """Seconds of NUM_STEPS steps, from fits of few and of more: what both share counts once."""
    few, more = TIMED_STEPS if len(some) > 1 else (TIMED_STEPS[0], NUM_STEPS)
    times = ratio(run(some, more), run(some, few), rounds)
    per_step = (times["seconds"] - times["against_seconds"]) / (more - few)
    fixed = times["against_seconds"] - few * per_step
    return {"fixed": fixed, "per_step": per_step, "seconds": fixed + NUM_STEPS * per_step}


def _collection_seconds(setup: Setup) -> float:
    """Seconds of a fresh collection, without its compilation."""
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
                particles=gram.Particles(law=setup.objective.time_law),
                trainer=Trainer(check=False),  # of which the time is not meant
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

    return median_seconds(train, 20 * rounds)


def arguments(add: Add) -> None:
    """Add the arguments of this benchmark."""
    gram_setup.arguments(add)
    add("--rounds", type=int, default=5, help="of the timings")


STUDY = Study(measure=measure, arguments=arguments)
