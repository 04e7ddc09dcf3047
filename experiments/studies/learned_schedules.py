"""The schedules that a run left in its folder, for use elsewhere."""

import functools
from pathlib import Path

from ml_collections import ConfigDict

from experiments import build
from experiments import config as configs
from experiments.stages import guidance as guidance_stage
from experiments.stages import report
from experiments.workdir import Workdir, WorkdirError, exists, read_json
from lgd.data import Dataset
from lgd.data.image_files import DataFileError
from lgd.types import OmegaFn


class LearnedError(ValueError):
    """A folder that does not hold what was asked for."""


def load(workdir: str, method: str, step: int | None = None) -> OmegaFn:
    """What a method learned, as it was after a step of training.

    By default the step selected in results.json, or the last one of a run not yet evaluated.
    Raises LearnedError.
    """
    config, run, dataset = _opened(workdir)
    if method not in config.guidance.methods:
        known = ", ".join(config.guidance.methods) or "none"
        raise LearnedError(f"method: expected one of {workdir} ({known}), got {method!r}")
    step = _selected(config, run, method) if step is None else step
    kept = guidance_stage.snapshot_steps(config, method)
    if step not in kept:
        raise LearnedError(f"step: expected one that was kept ({kept}), got {step}")
    try:
        return guidance_stage.load(config, run, dataset, method, step)
    except WorkdirError as error:
        raise LearnedError(str(error)) from None


def rows(workdir: str) -> dict[str, OmegaFn]:
    """The schedule of every row of a finished run, exactly as selected. Raises LearnedError."""
    config, run, dataset = _opened(workdir)
    if config.reward.name != "none":
        raise LearnedError(f"{workdir}: expected a run without a reward, got {config.reward.name}")
    try:
        results = read_json(run.path / "results.json")
        return report.omega_functions(config, run, dataset, results)
    except WorkdirError as error:
        raise LearnedError(str(error)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(run, error) from None


def num_classes(workdir: str) -> int:
    """Classes that its schedules know. Raises LearnedError."""
    return _opened(workdir)[2].num_classes


def _selected(config: ConfigDict, run: Workdir, method: str) -> int:
    if not exists(run.path / "results.json"):
        return guidance_stage.snapshot_steps(config, method)[-1]
    try:
        each = read_json(run.path / "results.json")["rows"]
        steps = [row["params"]["step"] for row in each if row["method"] == f"learned:{method}"]
        return int(steps[0])
    except (WorkdirError, KeyError, IndexError, TypeError, ValueError) as error:
        raise _damaged(run, error) from None


def _damaged(run: Workdir, error: Exception) -> LearnedError:
    return LearnedError(f"{run.path / 'results.json'}: expected rows, got {error!r}")


@functools.cache
def _opened(workdir: str) -> tuple[ConfigDict, Workdir, Dataset]:
    try:
        values = read_json(Path(workdir) / "config.json")
        config = configs.from_dict(values)
        return config, Workdir(workdir, config), build.dataset(config)
    except (WorkdirError, configs.ConfigError, DataFileError, OSError, ValueError) as error:
        lines = " ".join(str(error).split())
        raise LearnedError(f"{workdir}: expected the folder of a run, got: {lines}") from None
