"""Arrays on disk, written and read by Orbax in process 0 alone."""

import functools
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

_ALONE = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})


class ArrayFolders:
    """Writes named arrays into folders and reads them back; those without elements take no room."""

    def __init__(self) -> None:
        self._orbax = ocp.Checkpointer(
            ocp.PyTreeCheckpointHandler(multiprocessing_options=_ALONE),
            multiprocessing_options=_ALONE,
        )

    def write(self, folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays into a new folder."""
        values = [arrays[name] for name in _stored(arrays)]
        before, said = sys.unraisablehook, _Silence()
        sys.unraisablehook = functools.partial(_told, before)
        logging.getLogger("absl").addFilter(said)
        self._orbax.save(folder, args=ocp.args.PyTreeSave(values))
        logging.getLogger("absl").removeFilter(said)  # after an error, threads speak until the end
        sys.unraisablehook = before

    def read(self, folder: Path, like: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Read arrays of the names, shapes and dtypes of ``like``."""
        names = _stored(like)
        as_numpy = [ocp.RestoreArgs(restore_type=np.ndarray)] * len(names)
        args = ocp.args.PyTreeRestore(item=[0] * len(names), restore_args=as_numpy)
        values = self._orbax.restore(folder, args=args)
        empty = {n: np.zeros(v.shape, v.dtype) for n, v in like.items() if not v.size}
        return empty | dict(zip(names, values, strict=True))

    def close(self) -> None:
        """Release what Orbax holds."""
        self._orbax.close()


class _Silence(logging.Filter):
    """Keeps back what threads of Orbax say, with tracebacks, of the error that it raises."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is not of Orbax, or no error."""
        return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _told(before: Callable[[Any], Any], unraisable: Any) -> None:
    """Pass on what no thread could raise, but not that Orbax has given up for another error."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        before(unraisable)


def not_finite(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the arrays that hold NaN or inf."""
    floats = [n for n, array in arrays.items() if jnp.issubdtype(array.dtype, np.inexact)]
    return [name for name in floats if not np.isfinite(arrays[name]).all()]


def _stored(leaves: Mapping[str, Any]) -> list[str]:
    """The names, in order, of arrays that hold bytes: Orbax refuses the empty ones."""
    return [name for name in sorted(leaves) if leaves[name].size]


def placed_like(array: np.ndarray, like: Any) -> Any:
    """The array where ``like`` lies: on the host, or on devices with its sharding."""
    if isinstance(like, np.ndarray | np.generic):
        return array
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return array  # 64 bits that JAX would cut to 32
    if getattr(like, "sharding", None) is None or not getattr(like, "committed", True):
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, like.sharding, lambda index: array[index])
