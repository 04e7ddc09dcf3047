"""What sampling saves where omega is 0 and the unconditional half is left out.

    python -m experiments.benchmarks.checks.skipping

Sampling with ``skip=True`` to plain sampling, of the same schedules, run in turn in one process:
limited intervals that guide less and less, one interval for each class, and a constant, which
leaves nothing to skip. The denoiser is a residual MLP with random parameters. Beside each ratio
stands that of the network evaluations: what time would follow if nothing else cost any. Writes
experiments/results/benchmark-skipping-cpu.json and prints a table.
"""

import argparse
import os
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import Array, Float

from experiments.benchmarks.checks.cost import NUM_CLASSES, Case, call_flops, residual_mlp
from experiments.benchmarks.device.timing import ratios
from experiments.publish.tables import RESULTS
from experiments.workdir import write_json
from experiments.workdir.provenance import provenance
from lgd import guidance, sampling, schedules
from lgd.machinery.progress import bar
from lgd.types import OmegaFn

NUM_STEPS = 20
SCHEDULES: dict[str, OmegaFn] = {
    "constant": guidance.constant(1.0),
    "interval [0.2, 0.8]": guidance.limited_interval(1.0, 0.2, 0.8),
    "interval [0, 0.3]": guidance.limited_interval(1.0, 0.0, 0.3),
    "interval per class": guidance.limited_interval_per_class(
        [1.0] * NUM_CLASSES,
        [0.0] * NUM_CLASSES,
        [0.1 * (k + 1) for k in range(NUM_CLASSES)],
    ),
    "unguided": guidance.constant(0.0),
}


def measure(name: str, case: Case, rounds: int) -> dict[str, float]:
    """Ratios of time and of network evaluations, and seconds of plain sampling."""
    denoiser, params = case.denoiser, case.params
    times, c = schedules.uniform_times(NUM_STEPS), case.inputs(case.batch)[2]
    omegas = guidance.on_grid(SCHEDULES[name], times, c)

    def draw(skip: bool) -> Float[Array, "b *dims"]:
        return sampling.sample(
            jax.random.key(0), denoiser, params, omegas, c, shape=case.shape, times=times, skip=skip
        ).x0

    runs = {"skipping": lambda: draw(True), "plain": lambda: draw(False)}
    found = ratios(runs, against="plain", rounds=rounds)
    plain, left = 2 * NUM_STEPS, sampling.count_skipping_nfe(omegas, "ddim")
    return found["skipping"] | {"plain_seconds": found["plain"]["seconds"], "nfe": left / plain}


def table(results: Mapping[str, Any]) -> str:
    """A row for each schedule."""
    lines = [
        "| schedule | network evaluations / plain | time / plain | quartiles |",
        "|---|---:|---:|---:|",
    ]
    for name, each in results["schedules"].items():
        spread = f"{each['low']:.2f} to {each['high']:.2f}"
        lines.append(f"| {name} | {each['nfe']:.2f} | {each['ratio']:.2f} | {spread} |")
    settings = results["settings"]
    return "\n".join(lines) + (
        f"\n\nDenoiser: {results['mflop']:.0f} MFLOP a sample; batch {settings['batch']}, "
        f"{NUM_STEPS} DDIM steps, {settings['rounds']} rounds; load average before: "
        f"{results['load']:.1f}.\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=1024, help="of the denoiser")
    parser.add_argument("--depth", type=int, default=4, help="of the denoiser")
    parser.add_argument("--batch", type=int, default=256, help="samples")
    parser.add_argument("--rounds", type=int, default=7, help="of every comparison")
    parser.add_argument("--name", default="skipping-cpu", help="of the file of results")
    chosen = parser.parse_args()
    case = residual_mlp(chosen.width, chosen.depth, chosen.batch)
    results: dict[str, Any] = provenance(
        f"python -m experiments.benchmarks.checks.skipping --width={chosen.width} "
        f"--depth={chosen.depth} --batch={chosen.batch} --rounds={chosen.rounds}"
    )
    results |= {
        "settings": vars(chosen),
        "load": os.getloadavg()[0],  # average of the minute before
        "mflop": call_flops(case) / 1e6,
        "schedules": {},
    }
    with bar("skipping", len(SCHEDULES)) as advance:
        for name in SCHEDULES:
            results["schedules"][name] = measure(name, case, chosen.rounds)
            advance(name)
    write_json(RESULTS / f"benchmark-{chosen.name}.json", results)
    print(table(results))


if __name__ == "__main__":
    main()
