"""A run's folder: config, metrics, parameters and results, and whether a stage is done.

Several processes call everything here together; process 0 alone reads and writes.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import config as configs
from experiments import loggers
from lgd import processes, storage
from lgd.checkpoint import CheckpointStore
from lgd.types import Params


class WorkdirError(RuntimeError):
    """The folder does not fit this run; the message says what was expected and what to do."""


class Workdir:
    """Paths and small files of one run.

    ``config.json`` binds the folder to one config: another one is refused with the differences.
    """

    def __init__(self, path: str | Path, config: ConfigDict, *, command: str = "") -> None:
        self.path = Path(path)
        self.command = command  # that made the run; goes into its results
        self._loggers: list[loggers.Logger] = []  # process 0 has them
        processes.from_main(lambda: self._bind(configs.to_dict(config)))

    def close(self) -> None:
        """Let the loggers write what they hold."""
        for logger in self._loggers:
            logger.close()

    def _bind(self, config: Mapping) -> None:
        try:
            self._loggers = loggers.make(config["training"]["loggers"], self.path, config)
        except loggers.MissingPackageError as error:
            raise WorkdirError(str(error)) from None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkdirError(f"{self.path}: expected a folder to write to: {error}") from None
        file = self.path / "config.json"
        if not file.exists():
            write_json(file, config)
            return
        differences = configs.diff(read_json(file), config)
        if differences:
            lines = "\n  ".join(differences)
            raise WorkdirError(
                f"{self.path}: made with another config (old -> new):\n  {lines}\n"
                "Use another --workdir, or the config it was made with."
            )

    def params_file(self, name: str) -> Path:
        """Where the final parameters of a training go."""
        return self.path / "params" / f"{name}.safetensors"

    def save_params(self, name: str, params: Params) -> None:
        """Write final parameters."""
        values = processes.to_host(params)
        processes.from_main(lambda: storage.save_params(self.params_file(name), values))

    def load_params(self, name: str, like: Params) -> Params:
        """Read final parameters; says which stage makes them if there are none."""
        leaves, structure = jax.tree.flatten(like)
        read: list[np.ndarray] = []
        processes.from_main(lambda: read.extend(jax.tree.leaves(self._read_params(name, like))))
        return jax.tree.unflatten(structure, processes.broadcast(read, leaves))

    def _read_params(self, name: str, like: Params) -> Params:
        if not self.params_file(name).exists():
            raise WorkdirError(
                f"{self.params_file(name)}: expected parameters, found none; "
                "run the stages that come before (--stages=denoiser,guidance)"
            )
        try:
            return storage.load_params(self.params_file(name), like)
        except ValueError as error:
            raise WorkdirError(str(error)) from None

    @contextmanager
    def checkpoints(self, name: str) -> Iterator[CheckpointStore]:
        """The checkpoints of one training."""
        with CheckpointStore(self.path / "checkpoints" / name) as store:
            yield store

    def metrics(self, name: str) -> Callable[[int, Mapping], None]:
        """A function that appends lines of one training to metrics.jsonl, and tells the loggers.

        Its first call drops what an interrupted run logged from that step on.
        """
        file, resumed = self.path / "metrics.jsonl", False

        def tell(step: int, values: Mapping) -> None:
            for logger in self._loggers:
                logger(name, step, values)

        @processes.by_main
        def log(step: int, values: Mapping) -> None:
            nonlocal resumed
            if not resumed:
                kept = [line for line in read_lines(file) if not _is_later(line, name, step)]
                write_text(file, "".join(f"{json.dumps(line)}\n" for line in kept))
                resumed = True
                for line in kept:
                    if line.pop("training") == name:
                        tell(line.pop("step"), line)
            _append(file, json.dumps({"training": name, "step": step, **values}))
            tell(step, values)

        return log

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Appends the seconds that a stage took to timings.jsonl."""
        start = time.perf_counter()
        yield
        line = json.dumps({"stage": name, "seconds": round(time.perf_counter() - start, 2)})
        _append(self.path / "timings.jsonl", line)

    def curve(self, name: str, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of one training's metric."""
        lines = [
            line for line in read_lines(self.path / "metrics.jsonl") if line["training"] == name
        ]
        return [line["step"] for line in lines], [line[key] for line in lines]


@processes.by_main
def _append(file: Path, line: str) -> None:
    with file.open("a") as stream:
        stream.write(line + "\n")


def _is_later(line: Mapping, name: str, step: int) -> bool:
    return line["training"] == name and line["step"] >= step


@processes.by_main
def exists(file: Path) -> bool:
    """Whether there is such a file."""
    return file.exists()


@processes.by_main
def read_json(file: Path) -> dict:
    """A JSON object; WorkdirError names a missing or damaged file."""
    try:
        value = json.loads(file.read_text())
    except FileNotFoundError:
        raise WorkdirError(f"{file}: expected a JSON file, found none") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WorkdirError(f"{file}: expected JSON, got a damaged file: {error}") from None
    if not isinstance(value, dict):
        raise WorkdirError(f"{file}: expected a JSON object, got {type(value).__name__}")
    return value


@processes.by_main
def read_lines(file: Path) -> list[dict]:
    """Objects of a JSON-lines file, if any; a last line cut off by a crash is left out."""
    if not file.exists():
        return []
    lines = file.read_text().splitlines()
    objects = []
    for number, line in enumerate(lines, start=1):
        try:
            objects.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise WorkdirError(
                    f"{file}:{number}: expected a JSON object, got {line!r}"
                ) from None
    return objects


def write_json(file: Path, value: Mapping) -> None:
    """Indented JSON, written atomically."""
    write_text(file, json.dumps(value, indent=2) + "\n")


@processes.by_main
def write_text(file: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
