"""What a stage has measured so far, so that an interrupted one does not measure it again."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.workdir import WorkdirError, read_lines, write_text
from lgd import guidance
from lgd.machinery import stopping
from lgd.machinery.processes import from_main
from lgd.types import OmegaFn


class Journal:
    """Values by key in a file of JSON lines, appended to as they come.

    A value is JSON and is returned as it is read back, so that a run that was interrupted ends like
    one that was not, bit for bit. Of several processes, all compute, and what process 0 found
    holds for all.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._values: dict[str, Any] = from_main(self._read)

    def __call__(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value of a key, computed if it is not there yet; here a signal stops a stage."""
        if key not in self._values:
            stopping.check("a measurement")
            value = compute()
            self._values[key] = from_main(lambda: self._append(key, value))
        return self._values[key]

    def __contains__(self, key: str) -> bool:
        """Whether a value is there."""
        return key in self._values

    def _append(self, key: str, value: Any) -> Any:
        line = json.dumps({"key": key, "value": value})
        with self._file.open("a") as stream:
            stream.write(line + "\n")
        return json.loads(line)["value"]

    def _read(self) -> dict[str, Any]:
        lines = read_lines(self._file)
        if any(line.keys() != {"key", "value"} for line in lines):
            raise WorkdirError(f"{self._file}: expected lines with key and value, got others")
        if self._file.exists():  # rewritten without a last line that was cut off
            write_text(self._file, "".join(f"{json.dumps(line)}\n" for line in lines))
        return {line["key"]: line["value"] for line in lines}


def schedule_key(omega_fn: OmegaFn, times: Any, num_classes: int) -> str:
    """A name for what a schedule does on a grid of times, for every class."""
    table = guidance.on_grid(omega_fn, times, jnp.arange(num_classes, dtype=jnp.int32))
    return hashlib.sha256(np.asarray(table, np.float32).tobytes()).hexdigest()[:16]
