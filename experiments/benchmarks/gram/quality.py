r"""Do samples tell a fit on Gram matrices from training that asks the denoiser at every step?

    python -m experiments.benchmarks gram_quality --config=configs/digits.py \
        --workdir=runs/digits --name=gram-quality-digits

Self-consistency, learned in five seeds each way (300 steps; the fits on 65,536 examples), sampled
with the same noise, measured on validation data. Paired differences over seeds.
"""

from argparse import Namespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import WAYS, Setup
from experiments.publish.markdown import number, text
from experiments.publish.study import Study
from lgd import guidance
from lgd.evaluation import paired_difference
from lgd.metrics.energy import ClassEnergyDistance
from lgd.training import Optimizer
from lgd.types import OmegaFn

SEEDS, NUM_EXAMPLES = range(5), 65_536
SAMPLING_SEEDS = range(3)
OPTIMIZER = Optimizer(num_steps=300, learning_rate=3e-3, ema_decay=0.98)
COLUMNS = [text("denoiser", "denoiser"), number("energy_distance", "energy distance", ".4f")]


def fitted(setup: Setup) -> list[OmegaFn]:
    """Return what was learned from one collection, in as many seeds of start and draws."""
    train = setup.training(NUM_EXAMPLES)
    rates = [OPTIMIZER.learning_rate]
    fits = setup.fits(train, rates, list(SEEDS), OPTIMIZER.num_steps)
    return [each.guidance.omega_fn for each in fits]


def measure(options: Namespace) -> dict[str, Any]:
    """Return energy distances by seed, and their paired difference."""
    setup = gram_setup.set_up(options)
    generator = setup.generator()
    real = ClassEnergyDistance(setup.dataset.validation, setup.dataset.num_classes)

    def distance(omega_fn: OmegaFn) -> float:
        samples = [generator(omega_fn, setup.num_per_class, seed=seed) for seed in SAMPLING_SEEDS]
        return float(np.mean([jnp.mean(real(each)) for each in samples]))

    unguided = distance(guidance.constant(0.0))
    online = [distance(setup.online(OPTIMIZER, seed=seed)) for seed in SEEDS]
    gram = [distance(omega_fn) for omega_fn in fitted(setup)]
    gap = paired_difference(gram, online)
    cells = {
        "unguided": unguided,
        WAYS["online"]: float(np.mean(online)),
        WAYS["gram"]: float(np.mean(gram)),
        f"{WAYS['gram']} less {WAYS['online']}": (
            f"{gap['mean']:+.5f} ± {gap['standard_error']:.5f}"
        ),
    }
    rows = [{"denoiser": name, "energy_distance": cell} for name, cell in cells.items()]
    raw = {"unguided": unguided, "online": online, "gram": gram, "difference": gap}
    return raw | {"columns": COLUMNS, "rows": rows}


STUDY = Study(measure=measure, arguments=gram_setup.arguments)
