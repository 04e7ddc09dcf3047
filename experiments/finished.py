"""A finished run, opened again by studies that measure more of it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import build, build_pretrained
from experiments.stages import evaluate, report
from experiments.workdir import Workdir, lock, read_json, saved_config
from lgd.data import Dataset
from lgd.evaluation import Generator


class Finished(NamedTuple):
    """A run with its results, alone in its folder and with the data that it was made with."""

    config: ConfigDict
    workdir: Workdir
    dataset: Dataset
    results: dict[str, Any]

    def guidance(self) -> dict[str, Any]:
        """What every row guides by, by the name of the row."""
        return report.guidance_of_rows(*self[:3], self.results["rows"])

    def generator(self) -> Generator:
        """The sampler of the test samples of the run."""
        return evaluate.final_generator(
            self.config, evaluate.make_generator(*self[:3]), self.dataset
        )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Finished]:
    """A finished run, until the end of the block.

    Raises WorkdirError or ConfigError for a folder without one, with other data or in use.
    """
    config = saved_config(path)
    results = read_json(path / "results.json", "rows")
    with lock.held(path), contextlib.closing(Workdir(path, config)) as workdir:
        dataset = build.dataset(config)
        workdir.bind_data(dataset, build_pretrained.digest(config))
        yield Finished(config, workdir, dataset, results)
