"""How many examples are enough: held-out loss of fits on 1k to 1M collected ones.

    python -m experiments.benchmarks.gram.examples --config=configs/digits.py \
        --workdir=runs/digits --name=digits

One collection of training data; fits on its first n examples, in three learning rates and three
seeds, with the network and with tables solved in closed form; loss on statistics of validation
data, less that of no guidance. Writes experiments/results/gram-examples-NAME.json and
docs/gram-examples-NAME.png.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import Setup
from experiments.publish.tables import RESULTS, ROOT
from experiments.workdir import write_json
from experiments.workdir.provenance import provenance
from lgd import gram, guidance, plots
from lgd.gram import Lane, Statistics
from lgd.training import Optimizer

RATES, SEEDS = (1e-3, 3e-3, 1e-2), (0, 1, 2)
NUM_STEPS, HELD_OUT = 1000, 32_768


def measure(setup: Setup, sizes: Sequence[int]) -> dict:
    """Rows: size, gain over no guidance of the network (by seed) and of the table."""
    train = setup.collected("train", setup.dataset.train, max(sizes), seed=0)
    held_out = setup.collected("validation", setup.dataset.validation, HELD_OUT, seed=1)
    unguided = setup.loss(held_out, guidance.constant(0.0))
    rows = []
    for size in sizes:
        some = train.take(slice(0, size))
        gains = _network_gains(setup, some, held_out, unguided)
        solved = gram.closed_form(
            some,
            setup.objective,
            schedule=setup.schedule,
            num_classes=setup.dataset.num_classes,
            num_draws=4 if size <= 2**17 else 1,
        )
        table = unguided - setup.loss(held_out, solved.guidance.omega_fn)
        rows.append({"examples": size, "network": gains, "table": table})
        print(f"{size:>9,}  network {np.mean(gains):.5f}  table {table:.5f}", flush=True)
    return {"unguided": unguided, "num_steps": NUM_STEPS, "rows": rows}


def _network_gains(
    setup: Setup, train: Statistics, held_out: Statistics, unguided: float
) -> list[float]:
    """By seed, at the learning rate of least mean loss."""
    lanes = [
        Lane(objective=setup.objective, model=setup.network(), learning_rate=rate, seed=seed)
        for rate in RATES
        for seed in SEEDS
    ]
    fitted = gram.sweep(
        train,
        lanes,
        schedule=setup.schedule,
        optimizer=Optimizer(num_steps=NUM_STEPS, ema_decay=0.98),
        held_out=held_out,
    )
    losses = np.reshape([each.held_out for each in fitted], (len(RATES), len(SEEDS)))
    return (unguided - losses[np.argmin(losses.mean(axis=1))]).tolist()


def main() -> None:
    """Command line."""
    flags = gram_setup.parser(__doc__)
    flags.add_argument("--most", type=int, default=2**20, help="examples of the largest collection")
    arguments = flags.parse_args()
    sizes = [size for size in 2 ** np.arange(10, 21, 2) if size <= arguments.most]
    setup = gram_setup.set_up(arguments)
    found = measure(setup, [int(size) for size in sizes])
    results = provenance(gram_setup.command("gram_examples", arguments)) | found
    write_json(RESULTS / f"gram-examples-{arguments.name}.json", results)
    plots.save(figure(found), ROOT / "docs" / f"gram-examples-{arguments.name}.png")


def figure(found: Mapping[str, Any]) -> Figure:
    """Both gains over the number of examples; bars are standard deviations over seeds."""
    gains = {
        "learned:network": [row["network"] for row in found["rows"]],
        "learned:table": [[row["table"]] for row in found["rows"]],
    }
    sizes = [float(row["examples"]) for row in found["rows"]]
    return plots.method_curves(
        {
            "": {
                name: (sizes, list(map(np.mean, each)), list(map(np.std, each)))
                for name, each in gains.items()
            }
        },
        xlabel="examples collected",
        ylabel="held-out loss below that of no guidance",
        log="x",
    )


if __name__ == "__main__":
    main()
