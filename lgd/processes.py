"""Several processes as one program: every process runs the same code in the same order.

Only process 0 touches the disk. What it reads it sends to the others (`from_main`, `broadcast`), so
that all take the same decisions and no file system need be shared.
"""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lgd.types import PyTree

START_SECONDS = 120  # to wait for the last process to start
HEARTBEAT_SECONDS = 30  # of silence until a process counts as dead
SHUTDOWN_SECONDS = 30  # to wait for the last process to end
_CHUNK = 2**26  # bytes sent at once

T = TypeVar("T")


class MainProcessError(RuntimeError):
    """Process 0 failed; raised in the others."""


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Join the other processes; before anything else of JAX. One process: does nothing.

    coordinator: "host:port" of process 0, with a free port. On Slurm, Open MPI and TPU pods JAX
    finds all three arguments by itself. Raises ValueError where it does not.
    """
    if num_processes == 1:
        return
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        initialization_timeout=START_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )


def is_main_process() -> bool:
    """Whether this is process 0, which alone writes and speaks."""
    return jax.process_index() == 0


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Where one process of several fails inside, print its traceback and end it at once.

    The others wait for it in a computation, and it would wait for them at its exit. They end when
    their connection to it breaks, at the latest after `HEARTBEAT_SECONDS`.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt):
        if jax.process_count() == 1:
            raise
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def from_main(compute: Callable[[], T]) -> T:
    """What ``compute`` returns in process 0, in every process; it must be JSON.

    Called by all processes; only process 0 computes. What it raises is raised there, and
    `MainProcessError` in the others.
    """
    if jax.process_count() == 1:
        return compute()
    if not is_main_process():
        outcome = json.loads(_send(b""))
        if "error" in outcome:
            raise MainProcessError(outcome["error"])
        return outcome["value"]
    try:
        value = compute()
        message = json.dumps({"value": value}).encode()
    except Exception as error:
        _send(json.dumps({"error": f"process 0: {type(error).__name__}: {error}"}).encode())
        raise
    _send(message)
    return value


def broadcast(arrays: dict[str, np.ndarray], like: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of process 0 in every process, bit for bit; shapes and dtypes of ``like``.

    What the other processes pass as ``arrays`` is ignored.
    """
    if jax.process_count() == 1:
        return arrays
    received = {}
    for name, leaf in like.items():
        raw = np.ascontiguousarray(arrays[name]).tobytes() if is_main_process() else b""
        received[name] = np.frombuffer(_send(raw), leaf.dtype).reshape(leaf.shape)
    return received


def to_host(tree: PyTree) -> PyTree:
    """Whole values as numpy arrays, in every process; called by all processes."""

    def whole(leaf: Any) -> np.ndarray:
        split = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        if split and not leaf.is_fully_replicated:
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


def local(tree: PyTree) -> PyTree:
    """Arrays that this process can read by itself: `to_host` for several, unchanged for one."""
    return tree if jax.process_count() == 1 else to_host(tree)


def _send(message: bytes) -> bytes:
    """The bytes of process 0, in every process."""
    digits = np.asarray(divmod(len(message), _CHUNK), np.int32)  # JAX has no 64 bits by default
    whole, rest = multihost_utils.broadcast_one_to_all(digits).tolist()
    size = whole * _CHUNK + rest
    parts = []
    for start in range(0, size, _CHUNK):
        part = message[start : start + _CHUNK]
        padded = np.zeros(_padded(min(size - start, _CHUNK)), np.uint8)
        padded[: len(part)] = np.frombuffer(part, np.uint8)
        parts.append(multihost_utils.broadcast_one_to_all(padded).tobytes())
    return b"".join(parts)[:size]


def _padded(size: int) -> int:
    """The next power of two, so that few sizes are compiled."""
    return 1 << max(size - 1, 1).bit_length()
