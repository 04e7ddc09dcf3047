"""A run's folder: config, metrics, parameters and results, and whether a stage is done.

Several processes call everything here together; process 0 alone reads and writes.
"""

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import config as configs
from experiments.workdir import changes, lines, loggers, opening
from experiments.workdir.files import (
    WorkdirError,
    exists,
    read_json,
    read_lines,
    write_json,
)
from experiments.workdir.ledger import FileLedger
from experiments.workdir.lines import GrowingFiles
from lgd.data import Dataset, order
from lgd.data.dataset import fingerprint
from lgd.evaluation import Journal, JournalError
from lgd.machinery import checkpoint, digests, files, processes, storage
from lgd.machinery.checkpoint import CheckpointStore
from lgd.machinery.failures import NonFiniteError
from lgd.machinery.paths import local
from lgd.machinery.words import shown
from lgd.types import Params

_log = logging.getLogger(__name__)


class Workdir:
    """Paths and small files of one run.

    ``config.json`` binds the folder to one config: another one is refused with the differences,
    unless nothing that is there depends on them, see `experiments.workdir.changes`. ``data.json``
    binds it to the data, ``LEDGER`` to the files that the run wrote, see
    `experiments.workdir.ledger`.

    Args:
      path: the folder; it is created if it does not exist.
      config: settings of the run.
      command: that makes the run; goes into its results.
      restart_damaged: see `CheckpointStore`.
      redo: a stage to do again, with those after it; what they made is deleted first.
      adopt: know all files as they are, whatever the ledger says.

    Raises WorkdirError, which names every file that is not as the run wrote it.
    """

    def __init__(
        self,
        path: str | Path,
        config: ConfigDict,
        *,
        command: str = "",
        restart_damaged: bool = False,
        redo: str = "",
        adopt: bool = False,
    ) -> None:
        self.path, self.command = local(path), command
        self._restart_damaged = restart_damaged
        self._config = configs.to_dict(config)
        self.identity = changes.identity(self._config)
        self._ledger = FileLedger(self.path, self.identity)
        self._loggers: list[loggers.Logger] = []  # process 0 has them
        self.lines = GrowingFiles(self._ledger)
        processes.from_main(lambda: self._open(redo, adopt))

    def close(self) -> None:
        """Close the loggers, which write what is still in memory, and note files that grew."""
        self.lines.note(grow=False)
        for logger in self._loggers:
            self._try(logger, logger.close)

    def _try(self, logger: loggers.Logger, act: Callable[[], None]) -> None:
        """Call a logger, and drop it if it fails: the run does not depend on it."""
        try:
            act()
        except Exception as error:
            _log.warning("%s failed and is left out: %s", type(logger).__name__, error)
            self._loggers = [other for other in self._loggers if other is not logger]

    def _open(self, redo: str, adopt: bool) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkdirError(f"{self.path}: expected a folder to write to: {error}") from None
        file = self.path / "config.json"
        if file.exists():
            self._reopen(file, redo, adopt)
        elif self._ledger.path.exists() and self._knows_files():
            raise WorkdirError(f"{file}: expected the file that this run wrote, found none")
        else:
            self.write_json(file, self._config)
        self._loggers = loggers.make(self._config["training"]["loggers"], self.path, self._config)

    def _knows_files(self) -> bool:
        """Whether a kill came later than the first write."""
        opening.opened(self._ledger)
        return bool(self._ledger.names(""))

    def _reopen(self, file: Path, redo: str, adopt: bool) -> None:
        old = read_json(file)
        changed = opening.refuse_changes(self.path, old, self._config, redo)
        opening.opened(self._ledger, adopt=adopt)
        if redo:
            opening.delete(self.path, self._ledger, changes.files_from(redo, changed))
        if adopt:
            opening.adopt(self.path, self._ledger)
        opening.verify(self.path, self._ledger, restart_damaged=self._restart_damaged)
        if changed:
            _log.warning("%s: config changed: %s", file, "; ".join(configs.diff(old, self._config)))
            self.write_json(file, self._config)

    @processes.by_main
    def bind_data(self, dataset: Dataset, more: Mapping[str, str] | None = None) -> None:
        """Refuse data, and ``more`` by name, other than those of earlier starts of the run."""
        file = self.path / "data.json"
        splits = {name: getattr(dataset, name) for name in ("train", "validation", "test")}
        data = {f"{name} sha256": fingerprint(split) for name, split in splits.items()}
        data["order of batches"] = order.identity()
        data |= more or {}
        if not file.exists():
            self.write_json(file, data)
            return
        differences = configs.diff(read_json(file), data)
        if differences:
            listed = "\n  ".join(differences)
            raise WorkdirError(
                f"{self.path}: made with other data (data.json -> now):\n  {listed}\n"
                "Use another --workdir, or the data, and the versions of packages that load them, "
                "that it was made with."
            )

    @processes.by_main
    def note_non_finite(self, error: NonFiniteError) -> None:
        """Write the steps that were not finite, and their examples, to non_finite.json."""
        if error.steps:
            value = {"message": str(error), "steps": error.steps, "examples": error.examples}
            self.write_json(self.path / "non_finite.json", value)

    @processes.by_main
    def write_json(self, file: Path, value: Mapping[str, Any]) -> None:
        """Write a JSON object to a file of the folder, which the ledger then knows."""
        with self._ledger.writing(file) as draft:
            write_json(draft, value)

    @processes.by_main
    def write(self, file: Path, save: Callable[[Path], object]) -> None:
        """Let a function write a file of the folder, which the ledger then knows."""
        with self._ledger.writing(file) as draft:
            save(draft)

    def is_evaluated(self) -> bool:
        """Whether results.json is there, with all rows of the config."""
        file = self.path / "results.json"
        if not exists(file):
            return False
        made_with = read_json(file, "config")["config"]
        if not isinstance(made_with, dict):
            raise WorkdirError(f"{file}: config: expected an object, got {shown(made_with)}")
        differences = configs.diff(made_with, self._config)
        return not {line.partition(":")[0] for line in differences} & set(changes.MAY_GROW)

    def journal(self, name: str, denoiser_params: Params) -> Journal:
        """The measurements in NAME.jsonl of samples of a denoiser.

        Raises WorkdirError for lines that belong to another denoiser, run or setting.
        """
        of_what = {
            "run": self.identity,
            "samples": changes.of_samples(self._config),
            "denoiser": digests.of_tree(denoiser_params),
        }
        file = self.path / f"{name}.jsonl"
        processes.from_main(lambda: self.lines.add(file))
        try:
            return Journal(file, binding=digests.of_json(of_what))
        except JournalError as error:
            raise WorkdirError(f"{error}; or delete it, to measure all again") from None

    @processes.by_main
    def note_folder(self, folder: Path) -> None:
        """Let the ledger know all files of a folder that others wrote, as they are now."""
        files = (file for file in sorted(folder.rglob("*")) if file.is_file())
        self._ledger.note(*(f for f in files if checkpoint.QUARANTINE not in f.parts))

    @processes.by_main
    def is_noted(self, file: Path) -> bool:
        """Whether the ledger knows a file."""
        return file in self._ledger

    def params_file(self, name: str) -> Path:
        """The file of the final parameters of a training."""
        return self.path / "params" / f"{name}.safetensors"

    def save_params(self, name: str, params: Params) -> None:
        """Write final parameters."""
        values = processes.to_host(params)
        self.write(self.params_file(name), lambda file: storage.save_params(file, values))

    @processes.by_main
    def copy_params(self, source: "Workdir", names: Iterable[str]) -> None:
        """Copy the final parameters of another run that this one does not have yet."""
        for name in names:
            if not self.params_file(name).exists():
                try:
                    content = files.read(source.params_file(name), "parameters")
                except (OSError, files.InputFileError) as error:
                    raise WorkdirError(
                        f"{source.params_file(name)}: expected parameters: {error}"
                    ) from None
                self.put_params(name, content)

    def put_params(self, name: str, content: bytes) -> None:
        """Write the content of a file of final parameters."""
        self.write(self.params_file(name), lambda file: storage.write(file, content))

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
        """Open the checkpoints of one training; at the end the ledger knows all that is left.

        Raises WorkdirError where they are gone, unless they may start over.
        """
        folder = self.path / "checkpoints" / name
        file = folder / checkpoint.LEDGER_FILE
        processes.from_main(
            lambda: opening.open_store(file, self._ledger, may_start_over=self._restart_damaged)
        )
        with CheckpointStore(
            folder,
            restart_damaged=self._restart_damaged,
            on_ledger=lambda: opening.note_store(file, self._ledger),
        ) as store:
            yield store
        self.note_folder(folder)

    def metrics(self, name: str) -> lines.Tell:
        """A function that appends lines of one training to metrics.jsonl and calls the loggers.

        Its first call drops the lines that an interrupted run logged from that step on.
        """

        def tell(step: int, values: Mapping[str, Any]) -> None:
            for logger in list(self._loggers):
                self._try(logger, functools.partial(logger, name, step, values))

        return lines.metrics(self.lines, self.path / "metrics.jsonl", name, tell)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Append the duration of a stage to timings.jsonl."""
        start = time.perf_counter()
        yield
        seconds = round(time.perf_counter() - start, 2)
        self.lines.append(self.path / "timings.jsonl", {"stage": name, "seconds": seconds})
        self.lines.note(grow=True)

    def curve(self, name: str, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric of one training."""
        of_all = read_lines(self.path / "metrics.jsonl", lines.METRICS)
        points = [
            (line["step"], line[key])
            for line in of_all
            if line["training"] == name and isinstance(line.get(key), int | float)
        ]  # a step with NaN has no values
        return [step for step, _ in points], [value for _, value in points]
