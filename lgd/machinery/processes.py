"""Several processes as one program: every process runs the same code in the same order.

Only process 0 touches the disk. It sends what it reads to the others (`from_main`, `broadcast`), so
that all make the same decisions and need no shared file system.
"""

import contextlib
import contextvars
import functools
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lgd.types import PyTree

START_SECONDS = 120  # to wait for the last process to start
HEARTBEAT_SECONDS = 20  # of silence until a process counts as dead
SHUTDOWN_SECONDS = 30  # to wait for the last process to end
SAY_SECONDS = 5  # of waiting until a process says that it does
MISSING = 2  # exit code of a process whose others do not come
_CHUNK = 2**26  # bytes sent at once
_inside = contextvars.ContextVar("inside from_main", default=False)

P = ParamSpec("P")
T = TypeVar("T")


class CountError(ValueError):
    """Processes were told different numbers of processes."""


class MainProcessError(RuntimeError):
    """Process 0 failed; raised in the others."""


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    start_seconds: int = START_SECONDS,
) -> None:
    """Join the other processes, before any other use of JAX. A single process has nothing to do.

    coordinator: "host:port" of process 0, with a free port. On Slurm, Open MPI and TPU pods JAX
    finds all three arguments by itself. start_seconds: to wait for the last process; where one is
    missing, the others end with exit code 2. Raises ValueError where JAX finds no processes,
    CountError, in every process, where they were told different numbers.
    """
    if num_processes == 1:
        return
    what = f"{num_processes or 'all'} processes at {coordinator or 'the coordinator'}"
    with _bounded(start_seconds, what):
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=start_seconds + SHUTDOWN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    told = gather(str(num_processes or jax.process_count()))
    if len(set(told)) > 1:
        each = ", ".join(f"{count} in process {index}" for index, count in enumerate(told))
        raise CountError(f"expected one number in all processes, got {each}")


@contextlib.contextmanager
def _bounded(seconds: float, what: str) -> Iterator[None]:
    """Say that this waits, and end the process if it waits too long: JAX would do so in no words.

    JAX knows as many processes as process 0 was told of, and waits until as many have come.
    """
    done = threading.Event()

    def watch() -> None:
        if done.wait(min(SAY_SECONDS, seconds)):
            return
        print(f"waiting for {what}", file=sys.stderr, flush=True)
        if not done.wait(seconds - SAY_SECONDS):
            reason = "fewer came, or some were told another number"
            print(f"expected {what} within {seconds} s: {reason}", file=sys.stderr, flush=True)
            os._exit(MISSING)

    threading.Thread(target=watch, name="start", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def is_main_process() -> bool:
    """Whether this is process 0, the only one that writes files and messages."""
    return not several() or jax.process_index() == 0


def several() -> bool:
    """Whether there are other processes. Without `initialize`, no device is initialised to tell."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """End a process of several at once, with its traceback, if it fails inside.

    The others wait for it in a computation, and a normal exit would wait for them. JAX ends the
    others when they miss its heartbeat, after `HEARTBEAT_SECONDS` at the latest.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt):
        if not several():
            raise
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def from_main(compute: Callable[[], T]) -> T:
    """The result of ``compute`` in process 0, returned in every process; it must be JSON.

    All processes call this; only process 0 computes. Its exception is raised in process 0, and a
    `MainProcessError` in the others. Nested calls inside ``compute`` are plain calls.
    """
    if not several() or _inside.get():
        return compute()
    if not is_main_process():
        outcome = json.loads(_send(b""))
        if "error" in outcome:
            raise MainProcessError(outcome["error"])
        return outcome["value"]
    token = _inside.set(True)
    try:
        value = compute()
        message = json.dumps({"value": value}).encode()
    except Exception as error:
        _send(json.dumps({"error": f"process 0: {type(error).__name__}: {error}"}).encode())
        raise
    finally:
        _inside.reset(token)
    _send(message)
    return value


def inside_from_main() -> bool:
    """Whether the caller runs inside the ``compute`` of a `from_main`."""
    return _inside.get()


def by_main(function: Callable[P, T]) -> Callable[P, T]:
    """The function, computed by process 0 for all, see `from_main`."""

    @functools.wraps(function)
    def everywhere(*args: P.args, **kwargs: P.kwargs) -> T:
        return from_main(lambda: function(*args, **kwargs))

    return everywhere


def gather(text: str) -> list[str]:
    """The texts of all processes, in the order of their numbers, in every process."""
    if not several():
        return [text]
    message = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(len(message), np.int32))
    padded = np.zeros(_padded(int(np.max(sizes))), np.uint8)
    padded[: len(message)] = message
    whole = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes().decode() for row, size in zip(whole, sizes, strict=True)]


def broadcast(arrays: Sequence[np.ndarray], like: Sequence[Any]) -> list[np.ndarray]:
    """The arrays of process 0 in every process, bit for bit.

    Their shapes and dtypes are those of ``like``; the ``arrays`` of other processes are ignored.
    """
    if not several():
        return list(arrays)
    whole = arrays if is_main_process() else [np.zeros(0)] * len(like)
    return [
        np.frombuffer(_send(np.ascontiguousarray(array).tobytes()), leaf.dtype).reshape(leaf.shape)
        for array, leaf in zip(whole, like, strict=True)
    ]


def to_host(tree: PyTree) -> PyTree:
    """Whole arrays as numpy arrays, in every process; all processes call this together."""

    def whole(leaf: Any) -> np.ndarray:
        split = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        if split and not leaf.is_fully_replicated:
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, tree)


def local(tree: PyTree) -> PyTree:
    """Arrays that this process can read alone: `to_host` if there are others, else unchanged."""
    return to_host(tree) if several() else tree


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
