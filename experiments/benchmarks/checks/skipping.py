"""What sampling saves where omega is 0 and the unconditional half is left out.

    python -m experiments.benchmarks skipping --name=benchmark-skipping-cpu

Sampling with ``skip=True`` to plain sampling, of the same schedules, run in turn in one process:
limited intervals that guide less and less, one interval for each class, and a constant, which
leaves nothing to skip. The denoiser is a residual MLP with random parameters. Beside each ratio
stands that of the network evaluations: what time would follow if nothing else cost any.
"""

import functools
import os
from argparse import Namespace
from typing import Any

import jax
from jaxtyping import Array, Float

from experiments.benchmarks.checks import cost
from experiments.benchmarks.device.timing import ratio
from experiments.publish.markdown import number, text
from experiments.publish.study import Study
from lgd import guidance, sampling, schedules
from lgd.machinery.progress import bar
from lgd.types import OmegaFn

NUM_STEPS = 20
SCHEDULES: dict[str, OmegaFn] = {
    "constant": guidance.constant(1.0),
    "interval [0.2, 0.8]": guidance.limited_interval(1.0, 0.2, 0.8),
    "interval [0, 0.3]": guidance.limited_interval(1.0, 0.0, 0.3),
    "interval per class": guidance.limited_interval_per_class(
        [1.0] * cost.NUM_CLASSES,
        [0.0] * cost.NUM_CLASSES,
        [0.1 * (k + 1) for k in range(cost.NUM_CLASSES)],
    ),
    "unguided": guidance.constant(0.0),
}
COLUMNS = [
    text("name", "schedule"),
    number("nfe", "network evaluations / plain", ".2f"),
    number("ratio", "time / plain", ".2f"),
    number("", "quartiles", "{low:.2f} to {high:.2f}"),
]


def compare(name: str, case: cost.Case, rounds: int) -> dict[str, Any]:
    """Return ratios of time and of network evaluations."""
    times, c = schedules.uniform_times(NUM_STEPS), case.inputs(case.batch)[2]
    omegas = guidance.on_grid(SCHEDULES[name], times, c)

    def draw(skip: bool) -> Float[Array, "b *dims"]:
        return sampling.sample(
            jax.random.key(0),
            case.denoiser,
            case.params,
            c,
            guidance=omegas,
            shape=case.shape,
            times=times,
            skip=skip,
        ).x0

    left = sampling.count_skipping_nfe(omegas, "ddim") / (2 * NUM_STEPS)
    skipping, plain = functools.partial(draw, True), functools.partial(draw, False)
    return {"name": name, "nfe": left, **ratio(skipping, plain, rounds)}


def measure(options: Namespace) -> dict[str, Any]:
    """Return the ratios of all schedules."""
    case, load = cost.residual_mlp(options.width, options.depth, options.batch), os.getloadavg()[0]
    rows, mflop = [], cost.call_flops(case) / 1e6
    with bar("skipping", len(SCHEDULES)) as advance:
        for name in SCHEDULES:
            rows.append(compare(name, case, options.rounds))
            advance(name)
    return {
        "settings": cost.settings(options),
        "load": load,  # average of the minute before
        "mflop": mflop,
        "columns": COLUMNS,
        "rows": rows,
        "note": (
            f"{cost.described(options, mflop)}, {NUM_STEPS} DDIM steps, {options.rounds} rounds; "
            f"load average before: {load:.1f}."
        ),
    }


STUDY = Study(measure=measure, arguments=functools.partial(cost.arguments, depth=4))
