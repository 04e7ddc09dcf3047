"""Studies across runs, each a command: ``python -m experiments.studies --help``."""

from experiments.publish import study

_NAMES = ("ablations", "floor", "levels", "pretrained", "rank_schedules", "transfer")
MODULES = {name: f"experiments.studies.{name}" for name in _NAMES}
MODULES["train_pipeline"] = "experiments.exchange.train_pipeline"

if __name__ == "__main__":
    study.main("experiments.studies", MODULES)
