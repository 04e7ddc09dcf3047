"""A run's folder: config, metrics, parameters and results, and whether a stage is done.

Several processes call everything here together; process 0 alone reads and writes.
"""

import functools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import config as configs
from experiments.workdir import loggers
from lgd.data import Dataset, order
from lgd.data.dataset import fingerprint
from lgd.machinery import processes, storage
from lgd.machinery.checkpoint import CheckpointStore
from lgd.machinery.failures import NonFiniteError
from lgd.types import Params

MAY_CHANGE = (  # between two starts of a run, for they change nothing that it computes
    "training.save_every",
    "training.loggers",
    "training.max_skipped",
    "training.stall_seconds",
    "data.path",  # data.json tells whether the data are the same
    "evaluation.inception_path",  # inception_sha256 tells whether it is the same
    "mesh.data",  # up to rounding
    "mesh.fsdp",
)

_log = logging.getLogger(__name__)


class WorkdirError(RuntimeError):
    """The folder does not fit this run; the message says what was expected and what to do."""


class Workdir:
    """Paths and small files of one run.

    ``config.json`` binds the folder to one config: another one is refused with the differences,
    unless they are among `MAY_CHANGE`. ``data.json`` binds it to the data.
    """

    def __init__(
        self,
        path: str | Path,
        config: ConfigDict,
        *,
        command: str = "",
        restart_damaged: bool = False,
    ) -> None:
        self.path = Path(path)
        self.command = command  # that made the run; goes into its results
        self._restart_damaged = restart_damaged  # see CheckpointStore
        self._loggers: list[loggers.Logger] = []  # process 0 has them
        processes.from_main(lambda: self._bind(configs.to_dict(config)))

    def close(self) -> None:
        """Close the loggers, which write what is still in memory."""
        for logger in self._loggers:
            self._try(logger, logger.close)

    def _try(self, logger: loggers.Logger, act: Callable[[], None]) -> None:
        """Call a logger, and drop it if it fails: the run does not depend on it."""
        try:
            act()
        except Exception as error:
            _log.warning("%s failed and is left out: %s", type(logger).__name__, error)
            self._loggers = [other for other in self._loggers if other is not logger]

    def _bind(self, config: Mapping) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkdirError(f"{self.path}: expected a folder to write to: {error}") from None
        self._loggers = loggers.make(config["training"]["loggers"], self.path, config)
        file = self.path / "config.json"
        if not file.exists():
            write_json(file, config)
            return
        differences = configs.diff(read_json(file), config)
        if differences and all(line.partition(":")[0] in MAY_CHANGE for line in differences):
            _log.warning("%s: config changed: %s", file, "; ".join(differences))
            write_json(file, config)
        elif differences:
            lines = "\n  ".join(differences)
            raise WorkdirError(
                f"{self.path}: made with another config (old -> new):\n  {lines}\n"
                "Use another --workdir, or the config it was made with."
            )

    @processes.by_main
    def bind_data(self, dataset: Dataset) -> None:
        """Refuse data other than those of the earlier starts of the run."""
        file = self.path / "data.json"
        splits = {name: getattr(dataset, name) for name in ("train", "validation", "test")}
        data = {f"{name} sha256": fingerprint(split) for name, split in splits.items()}
        data["order of batches"] = order.identity()
        if not file.exists():
            write_json(file, data)
            return
        differences = configs.diff(read_json(file), data)
        if differences:
            lines = "\n  ".join(differences)
            raise WorkdirError(
                f"{self.path}: made with other data (old -> new):\n  {lines}\n"
                "Use another --workdir, or the data, and the versions of packages that load them, "
                "that it was made with."
            )

    @processes.by_main
    def note_non_finite(self, error: NonFiniteError) -> None:
        """Write the steps that were not finite, and their examples, to non_finite.json."""
        if error.steps:
            value = {"message": str(error), "steps": error.steps, "examples": error.examples}
            write_json(self.path / "non_finite.json", value)

    def params_file(self, name: str) -> Path:
        """The file of the final parameters of a training."""
        return self.path / "params" / f"{name}.safetensors"

    def save_params(self, name: str, params: Params) -> None:
        """Write final parameters."""
        values = processes.to_host(params)
        processes.from_main(lambda: storage.save_params(self.params_file(name), values))

    @processes.by_main
    def copy_params(self, source: "Workdir", names: Iterable[str]) -> None:
        """Copy the final parameters of another run that this one does not have yet."""
        for name in names:
            if not self.params_file(name).exists():
                try:
                    content = source.params_file(name).read_bytes()
                except OSError as error:
                    raise WorkdirError(
                        f"{source.params_file(name)}: expected parameters: {error}"
                    ) from None
                self.put_params(name, content)

    def put_params(self, name: str, content: bytes) -> None:
        """Write the content of a file of final parameters."""
        self.params_file(name).parent.mkdir(parents=True, exist_ok=True)
        storage.write(self.params_file(name), content)

    def load_params(self, name: str, like: Params) -> Params:
        """Read final parameters; the error for missing ones names the stage that makes them."""
        leaves, structure = jax.tree.flatten(like)
        read: list[np.ndarray] = []
        processes.from_main(lambda: read.extend(jax.tree.leaves(self._read_params(name, like))))
        return jax.tree.unflatten(structure, processes.broadcast(read, leaves))

    def _read_params(self, name: str, like: Params) -> Params:
        if not self.params_file(name).exists():
            raise WorkdirError(
                f"{self.params_file(name)}: expected parameters, found none; "
                "run the stages that come before (--stages=denoiser,collect,guidance)"
            )
        try:
            return storage.load_params(self.params_file(name), like)
        except ValueError as error:
            raise WorkdirError(str(error)) from None

    @contextmanager
    def checkpoints(self, name: str) -> Iterator[CheckpointStore]:
        """Open the checkpoints of one training."""
        folder = self.path / "checkpoints" / name
        with CheckpointStore(folder, restart_damaged=self._restart_damaged) as store:
            yield store

    def metrics(self, name: str) -> Callable[[int, Mapping], None]:
        """A function that appends lines of one training to metrics.jsonl and calls the loggers.

        Its first call drops the lines that an interrupted run logged from that step on.
        """
        file, resumed = self.path / "metrics.jsonl", False

        def tell(step: int, values: Mapping) -> None:
            for logger in list(self._loggers):
                self._try(logger, functools.partial(logger, name, step, values))

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
        """Append the duration of a stage to timings.jsonl."""
        start = time.perf_counter()
        yield
        line = json.dumps({"stage": name, "seconds": round(time.perf_counter() - start, 2)})
        _append(self.path / "timings.jsonl", line)

    def curve(self, name: str, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric of one training."""
        lines = [
            line for line in read_lines(self.path / "metrics.jsonl") if line["training"] == name
        ]
        lines = [line for line in lines if key in line]  # a step with NaN has no values
        return [line["step"] for line in lines], [line[key] for line in lines]


@processes.by_main
def _append(file: Path, line: str) -> None:
    with file.open("a") as stream:
        stream.write(line + "\n")


def _is_later(line: Mapping, name: str, step: int) -> bool:
    return line["training"] == name and line["step"] >= step


@processes.by_main
def exists(file: Path) -> bool:
    """Whether the file exists, as process 0 sees it."""
    return file.exists()


@processes.by_main
def read_json(file: Path) -> dict:
    """The JSON object in a file. Raises WorkdirError for a missing or damaged file."""
    try:
        value = json.loads(file.read_text())
    except FileNotFoundError:
        raise WorkdirError(f"{file}: expected a JSON file, found none") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WorkdirError(f"{file}: expected JSON, got a damaged file: {error}") from None
    if not isinstance(value, dict):
        raise WorkdirError(f"{file}: expected a JSON object, got {type(value).__name__}")
    return value


@processes.by_main
def read_lines(file: Path) -> list[dict]:
    """The objects of a JSON-lines file, if it exists, without a last line that a crash cut off."""
    if not file.exists():
        return []
    lines = file.read_text(errors="replace").split("\n")
    lines = lines[:-1] if not lines[-1] else lines
    objects = []
    for number, line in enumerate(lines, start=1):
        value = _parsed(line)
        if isinstance(value, dict):
            objects.append(value)
        elif number < len(lines):
            raise WorkdirError(f"{file}:{number}: expected a JSON object, got {line!r}")
    return objects


def _parsed(line: str) -> object:
    """The value of a line of JSON, or None if the line is not JSON."""
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None


def write_json(file: Path, value: Mapping) -> None:
    """Write a JSON object with indentation, atomically."""
    write_text(file, json.dumps(value, indent=2) + "\n")


@processes.by_main
def write_text(file: Path, text: str) -> None:
    """Write a text file atomically, in process 0."""
    storage.write(file, text.encode())
