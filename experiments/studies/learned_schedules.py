"""The schedules that a run left in its folder, for use elsewhere."""

import functools
from pathlib import Path

from ml_collections import ConfigDict

from experiments import build
from experiments import config as configs
from experiments.stages import guidance as guidance_stage
from experiments.stages import report
from experiments.stages.guidance import Training
from experiments.workdir import Workdir, WorkdirError, exists, read_json
from lgd.data import Dataset
from lgd.data.image_files import DataFileError
from lgd.exchange.kinds import Kind, check_strata, text, whole
from lgd.types import OmegaFn


class LearnedError(ValueError):
    """A folder that does not hold what was asked for."""


def load(workdir: str, method: str, step: int | None = None) -> OmegaFn:
    """Return what a method learned, as it was after a step of training.

    By default the step selected in results.json, or the last one of a run not yet evaluated.
    Raises LearnedError.
    """
    config, run, dataset = _opened(workdir)
    if method not in config.guidance.methods:
        known = ", ".join(config.guidance.methods) or "none"
        raise LearnedError(f"method: expected one of {workdir} ({known}), got {method!r}")
    training = Training(method)
    kept = guidance_stage.snapshot_steps(config, training)
    step = _selected(run, method, kept[-1]) if step is None else step
    if step not in kept:
        raise LearnedError(f"step: expected one that was kept ({kept}), got {step}")
    try:
        return guidance_stage.load(config, run, dataset, training, step)
    except WorkdirError as error:
        raise LearnedError(str(error)) from None


def rows(workdir: str) -> dict[str, OmegaFn]:
    """Return the schedule of every row of a finished run, as selected. Raises LearnedError."""
    config, run, dataset = _opened(workdir)
    try:
        results = read_json(run.path / "results.json")
        return report.guidance_of_rows(config, run, dataset, results["rows"])
    except WorkdirError as error:
        raise LearnedError(str(error)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(run, error) from None


def num_classes(workdir: str) -> int:
    """Return the number of classes that its schedules know. Raises LearnedError."""
    return _opened(workdir)[2].num_classes


def _for_strata(
    workdir: str, method: str, step: int | None = None, *, num_strata: int | None
) -> OmegaFn:
    check_strata(num_classes(workdir), num_strata)
    return load(workdir, method, step)


KINDS = {  # of entries of a file of schedules, beside those of `lgd.exchange.schedules`
    "learned": Kind(
        make=_for_strata,
        fields={"workdir": text, "method": text, "step": whole(1)},
        optional=frozenset({"step"}),
        takes=frozenset({"num_strata"}),
    )
}


def _selected(run: Workdir, method: str, last: int) -> int:
    """The step that results.json names, or the last one."""
    if not exists(run.path / "results.json"):
        return last
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
