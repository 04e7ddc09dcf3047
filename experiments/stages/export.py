"""What a run gives away: guidance of every learned row, as files for lgd and for other tools."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

import lgd
from experiments import build
from experiments.methods import LEARNED
from experiments.stages.select import Row
from experiments.workdir import Workdir, write_text
from lgd import conditions
from lgd.data import Dataset
from lgd.guidance import takes_features
from lgd.types import Condition

SHOWN_CAPTIONS = 8  # of those of test examples, in figures and tables of weights


def save_guidance(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    rows: Sequence[Row],
    results: Mapping[str, Any],
) -> None:
    """Write the guidance of every learned row to guidance/, to be read by `lgd.load`.

    Each says which row, commit and command it is of, and how its loss fell. Beside it lie, for
    other tools, a CSV file of its weights on the sampling grid, and, of one direction, a JSON file
    with the scales ``1 + omega`` of every class, one for each step.

    Args:
      config: settings of the run.
      workdir: folder of the run.
      dataset: has the conditions and their names.
      rows: what was selected.
      results: name the commit, the command and the device.
    """
    times, (c, names) = np.asarray(build.times(config)), shown_conditions(dataset)
    folder = workdir.path / "guidance"
    source = {name: results[name] for name in ("commit", "command", "device")}

    @lgd.machinery.processes.by_main
    def save() -> None:
        for row in rows:
            if row.is_learned:
                training = row.method.removeprefix(LEARNED)
                steps, losses = workdir.curve(training, "loss")
                guidance = dataclasses.replace(
                    row.selected.guidance,
                    history={"step": steps, "loss": losses},
                    provenance={"method": row.method, "step": str(row.selected.params["step"])}
                    | source,
                )
                stem = training.replace(":", "-")
                workdir.write(folder / f"{stem}.safetensors", functools.partial(lgd.save, guidance))
                if takes_features(guidance):
                    continue
                csv = guidance.to_csv(times, c)
                workdir.write(folder / f"{stem}.csv", functools.partial(write_text, text=csv))
                scales = 1.0 + np.asarray(guidance.table(times, c), np.float64)
                if scales.ndim == 2:
                    lists = dict(zip(names, scales.T.round(6).tolist(), strict=True))
                    workdir.write_json(folder / f"{stem}.scales.json", lists)

    save()


def shown_conditions(dataset: Dataset) -> tuple[Condition, tuple[str, ...]]:
    """Conditions to look at, leaves (n, ...), and their n names: all classes, or some captions."""
    if not dataset.captions:
        return dataset.conditions, dataset.class_names
    names = tuple(dict.fromkeys(dataset.captions))[:SHOWN_CAPTIONS]
    index = np.asarray([dataset.captions.index(name) for name in names])
    return conditions.take(dataset.test.c, index), names
