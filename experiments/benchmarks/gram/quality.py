"""Do samples tell a fit on statistics from training that asks the denoiser at every step?

    python -m experiments.benchmarks.gram.quality --config=configs/digits.py \
        --workdir=runs/digits --name=digits

Self-consistency, learned in five seeds each way (300 steps; the fits on 65,536 examples), sampled
with the same noise, measured on validation data. Paired differences over seeds. Writes
experiments/results/gram-quality-NAME.json.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import build
from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import Setup
from experiments.publish.tables import RESULTS
from experiments.workdir import write_json
from experiments.workdir.provenance import provenance
from lgd import gram, guidance
from lgd.evaluation import Generator, paired_difference
from lgd.gram import Lane
from lgd.metrics.energy import ClassEnergyDistance
from lgd.training import Optimizer
from lgd.types import OmegaFn

SEEDS, NUM_EXAMPLES = range(5), 65_536
SAMPLING_SEEDS = range(3)
OPTIMIZER = Optimizer(num_steps=300, learning_rate=3e-3, ema_decay=0.98)


def fitted(setup: Setup) -> list[OmegaFn]:
    """Learned from one collection, in as many seeds of start and draws."""
    train = setup.collected("train", setup.dataset.train, NUM_EXAMPLES, seed=0)
    lanes = [
        Lane(
            objective=setup.objective,
            model=setup.network(),
            learning_rate=OPTIMIZER.learning_rate,
            seed=seed,
        )
        for seed in SEEDS
    ]
    found = gram.sweep(train, lanes, schedule=setup.schedule, optimizer=OPTIMIZER)
    return [each.guidance.omega_fn for each in found]


def measure(setup: Setup) -> dict[str, Any]:
    """Energy distances by seed, and their paired difference."""
    generator = Generator(
        denoiser=setup.denoiser,
        params=setup.params,
        shape=setup.dataset.shape,
        num_classes=setup.dataset.num_classes,
        times=build.times(setup.config),
    )
    real = ClassEnergyDistance(setup.dataset.validation, setup.dataset.num_classes)
    per_class = setup.config.evaluation.num_samples // setup.dataset.num_classes

    def distance(omega_fn: OmegaFn) -> float:
        samples = [generator(omega_fn, per_class, seed=seed) for seed in SAMPLING_SEEDS]
        return float(np.mean([jnp.mean(real(each)) for each in samples]))

    from_calls = [distance(setup.online(OPTIMIZER, seed=seed)) for seed in SEEDS]
    from_statistics = [distance(omega_fn) for omega_fn in fitted(setup)]
    return {
        "unguided": distance(guidance.constant(0.0)),
        "online": from_calls,
        "gram": from_statistics,
        "difference": paired_difference(from_statistics, from_calls),
    }


def main() -> None:
    """Command line."""
    arguments = gram_setup.parser(__doc__).parse_args()
    found = measure(gram_setup.set_up(arguments))
    results = provenance(gram_setup.command("gram_quality", arguments)) | found
    write_json(RESULTS / f"gram-quality-{arguments.name}.json", results)
    gap = found["difference"]
    print(f"unguided {found['unguided']:.5f}")
    print(f"online {np.mean(found['online']):.5f}, from statistics {np.mean(found['gram']):.5f}")
    print(f"difference {gap['mean']:+.5f} ± {gap['standard_error']:.5f}")


if __name__ == "__main__":
    main()
