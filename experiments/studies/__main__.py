"""Studies across runs, each a command: ``python -m experiments.studies --help``."""

import functools

from experiments import console
from experiments.publish import study

_NAMES = ("ablations", "floor", "levels", "pretrained", "rank_schedules", "transfer")
MODULES = {name: f"experiments.studies.{name}" for name in _NAMES}
MODULES |= {name: f"experiments.exchange.{name}" for name in ("drawn", "train_pipeline")}

if __name__ == "__main__":
    console.command(functools.partial(study.main, "experiments.studies", MODULES))
