"""Benchmarks, each a command: ``python -m experiments.benchmarks --help``."""

import functools

from experiments import console
from experiments.publish import study

_HERE = "experiments.benchmarks"
_GRAM = ("agreement", "cost", "examples", "quality", "rank", "sweep", "warm")
_OTHERS = {
    "checks": ("conditions", "cost", "gradient_noise", "inception_agreement", "skipping", "truth"),
    "device": ("accelerator", "planned_memory", "scaling"),
}
MODULES = {f"gram_{name}": f"{_HERE}.gram.{name}" for name in _GRAM}
MODULES |= {name: f"{_HERE}.{room}.{name}" for room, names in _OTHERS.items() for name in names}
MODULES |= {
    f"exchange_{name}": f"experiments.exchange.{name}"
    for name in ("architectures", "full_size", "routes", "samplers")
}

if __name__ == "__main__":
    console.command(functools.partial(study.main, _HERE, MODULES))
