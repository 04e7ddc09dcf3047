r"""How many examples are enough: held-out loss of fits on 1k to 1M collected ones.

    python -m experiments.benchmarks gram_examples --config=configs/digits.py \
        --workdir=runs/digits --name=gram-examples-digits

One collection of training data; fits on its first n examples, in three learning rates and three
seeds, with the network and with tables solved in closed form; loss on Gram matrices of validation
data, less that of no guidance.
"""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import Setup
from experiments.publish.markdown import number
from experiments.publish.study import Add, Study
from lgd import gram, guidance, omega, plots
from lgd.evaluation import summary
from lgd.gram import Statistics
from lgd.machinery.progress import bar

RATES, SEEDS = (1e-3, 3e-3, 1e-2), (0, 1, 2)
NUM_STEPS, HELD_OUT = 1000, 32_768
COLUMNS = [
    number("examples", "examples", ","),
    number("network", "network, 3 seeds", "{mean:.5f} ± {std:.5f}"),
    number("table", "table, solved", ".5f"),
]


def measure(options: Namespace) -> dict[str, Any]:
    """Return the gain over no guidance of the network, over seeds, and of the table, by size."""
    setup = gram_setup.set_up(options)
    sizes = [int(size) for size in 2 ** np.arange(10, 21, 2) if size <= options.most]
    train, held_out = setup.training(max(sizes)), setup.held_out(HELD_OUT)
    unguided = setup.loss(held_out, guidance.constant(0.0))
    rows = []
    with bar("gram examples", len(sizes)) as advance:
        for size in sizes:
            some = train.take(slice(0, size))
            network = summary(_network_gains(setup, some, held_out, unguided))
            solved = gram.closed_form(
                some,
                setup.objective,
                schedule=setup.schedule,
                rows=omega.ByLabel(setup.dataset.num_classes),
                num_draws=4 if size <= 2**17 else 1,
            )
            table = unguided - setup.loss(held_out, solved.guidance.omega_fn)
            rows.append({"examples": size, "network": network, "table": table})
            advance(f"{size:,} examples")
    return {"unguided": unguided, "num_steps": NUM_STEPS, "columns": COLUMNS, "rows": rows}


def _network_gains(
    setup: Setup, train: Statistics, held_out: Statistics, unguided: float
) -> list[float]:
    """Gains over no guidance by seed, at the learning rate of least mean loss."""
    fitted = setup.fits(train, RATES, SEEDS, NUM_STEPS, held_out)
    losses = np.reshape([each.held_out for each in fitted], (len(RATES), len(SEEDS)))
    return (unguided - losses[np.argmin(losses.mean(axis=1))]).tolist()


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw both gains over the number of examples; bars are standard deviations over seeds."""
    rows = results["rows"]
    sizes = [float(row["examples"]) for row in rows]
    network, none = [row["network"] for row in rows], [0.0] * len(rows)
    values = [each["values"] for each in network]
    gains = {
        "learned:network": (
            sizes,
            [each["mean"] for each in network],
            [float(np.std(each)) for each in values],
        ),
        "learned:table": (sizes, [row["table"] for row in rows], none),
    }
    xlabel, ylabel = "examples collected", "held-out loss below that of no guidance"
    return {"": plots.method_curves({"": gains}, xlabel=xlabel, ylabel=ylabel, log="x")}


def arguments(add: Add) -> None:
    """Add the arguments of this benchmark."""
    gram_setup.arguments(add)
    add("--most", type=int, default=2**20, help="examples of the largest collection")


STUDY = Study(measure=measure, arguments=arguments, figures=figures)
