"""Stage 4: report/ with a table and figures."""

from ml_collections import ConfigDict

from experiments.workdir import Workdir
from lgd.data import Dataset


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Write report/."""
