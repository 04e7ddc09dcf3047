"""Training curves for TensorBoard and Weights & Biases, beside metrics.jsonl.

A logger is called with (name of the training, step, values) and closed at the end. Trainings follow
one another. A resumed training is logged again from its first step on, and the logger replaces the
steps that it has: none is doubled, and none is missing that a killed process kept in memory. With
several processes, process 0 logs.
"""

import abc
import importlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # what each logger needs

_log = logging.getLogger(__name__)


class Logger(Protocol):
    """A destination of training curves."""

    def __call__(self, training: str, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


def make(names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> list[Logger]:
    """The loggers of these names for the run in a folder.

    A logger that cannot be made is left out with a warning: a run does not depend on it, and logs
    all steps again when it is resumed.
    """
    makers: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoard(folder / "tensorboard"),
        "wandb": lambda: WeightsAndBiases(folder, config),
    }
    loggers: list[Logger] = []
    for name in names:
        try:
            loggers.append(makers[name]())
        except Exception as error:
            _log.warning(
                "training.loggers: %s is left out: expected the package %s "
                "(pip install 'lgd[logging]'), got %s: %s",
                *(name, PACKAGES[name], type(error).__name__, error),
            )
    return loggers


class _Log(abc.ABC):
    """A writer of one training at a time, opened at its first step and again if steps go back."""

    def __init__(self) -> None:
        self._writer: Any = None
        self._last = ("", -1)  # training and step

    def __call__(self, training: str, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None or self._last[0] != training or self._last[1] >= step:
            self.close()
            self._writer = self._open(training, step)
        self._last = training, step
        self._write(step, values)

    def close(self) -> None:
        """Close the open writer, which writes what is still in memory."""
        if self._writer is not None:
            self._close()
        self._writer = None

    @abc.abstractmethod
    def _open(self, training: str, first_step: int) -> Any: ...

    @abc.abstractmethod
    def _write(self, step: int, values: Mapping[str, float]) -> None: ...

    @abc.abstractmethod
    def _close(self) -> None: ...


class TensorBoard(_Log):
    """Event files in ``folder / training``; ``tensorboard --logdir`` shows them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._package = importlib.import_module("tensorboardX")
        self._folder = folder

    def _open(self, training: str, first_step: int) -> Any:
        folder = self._folder / training
        count = len(list(folder.glob("*.tfevents.*")))
        return self._package.SummaryWriter(
            str(folder),
            purge_step=first_step,  # of older files, forget this step and all after it
            filename_suffix=f".{count:04d}",  # or files of the same second would be one
            flush_secs=5,
        )

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def _close(self) -> None:
        self._writer.close()


class WeightsAndBiases(_Log):
    """A run for each training, in a group named after the folder; wandb's settings apply.

    ``WANDB_MODE=offline`` needs no network; ``wandb sync`` the latest run of a training then, which
    holds all of its steps.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._package = importlib.import_module("wandb")
        self._folder, self._config = folder.resolve(), dict(config)
        self._known = 0  # steps below are on the server already

    def _open(self, training: str, first_step: int) -> Any:
        run = self._package.init(
            project="lgd",
            group=self._folder.name,
            name=training,
            id=self._run_id(training),
            resume="allow",
            dir=str(self._folder),
            config=self._config,
            settings=self._package.Settings(console="off"),
        )
        self._known = run.step
        return run

    def _run_id(self, training: str) -> str:
        """The id of a run, drawn once and kept in the folder, so that resuming finds it again."""
        file = self._folder / "wandb" / "ids" / training
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(secrets.token_hex(8), "utf-8")
        return file.read_text("utf-8")

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self._known:
            self._writer.log(dict(values), step=step)

    def _close(self) -> None:
        self._writer.finish()
