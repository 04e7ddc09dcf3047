"""Readers of the files of a workdir, as `readers` has those of the library."""

import json
from pathlib import Path

import numpy as np
from readers import Reader, _sealed_text, _with_sealed_text

from configs import default
from experiments.config import ConfigError
from experiments.workdir import Workdir, WorkdirError, saved_config
from lgd.data import Dataset, labelled

CONFIG = default.get_config().lock()
PARAMS = {"w": np.ones((3, 2), np.float32)}
ERRORS = (WorkdirError, ConfigError)


def dataset() -> Dataset:
    """Two points in each split."""
    split = labelled(np.ones((2, 2), np.float32), np.arange(2, dtype=np.int32))
    return Dataset(split, split, split, ("a", "b"))


def _run(folder: Path) -> None:
    workdir = Workdir(folder / "run", CONFIG)
    workdir.bind_data(dataset())
    log = workdir.metrics("denoiser")
    for step in (10, 20, 30):
        log(step, {"loss": 1.0 / step})
    workdir.save_params("denoiser", PARAMS)
    journal = workdir.journal("measured", PARAMS)
    for key in ("one", "two"):
        journal(key, lambda: {"metrics": [0.5, 1.0]})
    config = json.loads((workdir.path / "config.json").read_text())
    workdir.write_json(workdir.path / "results.json", {"config": config, "rows": []})
    workdir.close()


def _opened(folder: Path) -> None:
    """As a start does that takes all files as they are, but does nothing."""
    workdir = Workdir(folder / "run", CONFIG, adopt=True)
    try:
        workdir.bind_data(dataset())
        workdir.is_evaluated()
        workdir.journal("measured", PARAMS)
        workdir.load_params("denoiser", PARAMS)
        workdir.curve("denoiser", "loss")
        workdir.metrics("denoiser")(25, {"loss": 0.1})
    finally:
        workdir.close()


def _verified(folder: Path) -> None:
    Workdir(folder / "run", CONFIG).close()


def _read_config(folder: Path) -> None:
    saved_config(folder / "run")


READERS = {
    "config.json": Reader(_run, "run/config.json", _opened, ERRORS, is_json=True),
    "config.json, of another run": Reader(
        _run, "run/config.json", _read_config, ERRORS, is_json=True
    ),
    "data.json": Reader(_run, "run/data.json", _opened, ERRORS, is_json=True),
    "results.json": Reader(_run, "run/results.json", _opened, ERRORS, is_json=True),
    "metrics.jsonl": Reader(_run, "run/metrics.jsonl", _opened, ERRORS),
    "measured.jsonl": Reader(_run, "run/measured.jsonl", _opened, ERRORS),
    "params": Reader(_run, "run/params/denoiser.safetensors", _opened, ERRORS),
    "LEDGER": Reader(
        _run, "run/LEDGER", _verified, ERRORS, _sealed_text, _with_sealed_text, True
    ),
}  # fmt: skip
