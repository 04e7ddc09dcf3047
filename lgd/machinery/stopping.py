"""Orderly stops: a signal requests one, and the running loop answers between two steps.

Every loop calls `requested` or `check` once a step. A program that begins with `on_signals` stops
at the next step after SIGTERM or Ctrl-C, with that step saved. If no step ends for `GRACE_SECONDS`
(a compilation, a long sample) and no finished step is unsaved, the program ends anyway; a second
signal ends it at once. Several processes all stop at the same step, which the preemption sync point
of JAX chooses.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jax.experimental import multihost_utils

from lgd.machinery import processes

EXIT_CODE = 75  # stopped by a signal; nothing is lost, the same command goes on ("try again")
GRACE_SECONDS = 5.0  # that a step may take to answer where nothing would be lost
TWICE_SECONDS = 0.2  # signals this close together are one: wrappers send theirs twice
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal requested a stop; raised between two steps.

    state: the last finished `TrainState` if a training was stopped, else None.
    """

    def __init__(self, message: str, state: Any = None) -> None:
        super().__init__(message)
        self.state = state


class _Asked:
    """Process-wide stop request, and the progress of the running loop."""

    signal = 0  # that asked
    unsaved = False  # whether a finished step would be lost
    polls = 0
    label = "start"  # of the last poll
    time = 0.0  # of the last poll


def requested(label: str) -> bool:
    """Whether to stop here; all processes call this once after every step.

    The label names the step that has just ended, for messages. The answer is False inside
    `processes.from_main`, where the other processes could not stop with process 0.
    """
    _Asked.label, _Asked.time = label, time.monotonic()
    if processes.several():
        if processes.inside_from_main():
            return False
        _Asked.polls += 1
        return multihost_utils.reached_preemption_sync_point(_Asked.polls)
    return _Asked.signal != 0


def check(label: str) -> None:
    """Raise `Stopped` if a signal requested a stop; for loops that have nothing to save."""
    if requested(label):
        raise Stopped(f"stopped after {label}")


@contextlib.contextmanager
def keeping() -> Iterator[Callable[[bool], None]]:
    """Yield a function that is told whether ending now would lose a finished step."""

    def unsaved(value: bool) -> None:
        _Asked.unsaved = value

    try:
        yield unsaved
    finally:
        unsaved(False)


def last_poll() -> tuple[str, float]:
    """The label and the time (of `time.monotonic`) of the last call of `requested`."""
    return _Asked.label, _Asked.time


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into stop requests; in the main thread, after `initialize`.

    With several processes, JAX handles SIGTERM, and SIGINT is turned into SIGTERM.
    """
    if processes.several():
        with _handled({signal.SIGINT: _forward}):
            yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    _Asked.signal, _Asked.time = 0, time.monotonic()
    watcher = threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True)
    with reader, _handled(dict.fromkeys(SIGNALS, _note)):
        watcher.start()
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            writer.close()  # which ends the watcher
            watcher.join()
            _Asked.signal = 0


@contextlib.contextmanager
def deferring() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a step where nothing else handles it, as in a notebook.

    A second Ctrl-C interrupts at once.
    """
    unhandled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not unhandled or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: object) -> None:
        if _Asked.signal or processes.several():
            raise KeyboardInterrupt
        _Asked.signal = number

    try:
        with _handled({signal.SIGINT: ask}):
            yield
        if _Asked.signal:  # after the last step
            raise KeyboardInterrupt
    finally:
        _Asked.signal = 0


@contextlib.contextmanager
def _handled(handlers: dict) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(number: int, frame: object) -> None:
    _Asked.signal = number


def _forward(number: int, frame: object) -> None:
    if _Asked.signal:
        os._exit(128 + number)
    _Asked.signal = number
    os.kill(os.getpid(), signal.SIGTERM)


def _watch(reader: socket.socket) -> None:
    """Notice signals while the main thread is in a computation, where Python handles none."""
    asked = 0.0
    while True:
        ready, _, _ = select.select([reader], [], [], 0.1 if asked else None)
        received = reader.recv(1) if ready else None
        if received == b"":
            return
        now = time.monotonic()
        if received and received[0] in SIGNALS:
            if asked and now - asked > TWICE_SECONDS:
                _end(f"second {signal.Signals(received[0]).name}: ended", 128 + received[0])
            elif not asked:
                asked, _Asked.signal = now, received[0]
                _say(f"{signal.Signals(received[0]).name}: stopping; once more ends at once")
        if asked and now - asked > GRACE_SECONDS and not _Asked.unsaved:
            _end(f"no step ended in {GRACE_SECONDS:g} s and none is unsaved: ended", EXIT_CODE)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{text}\n".encode())


def _end(text: str, code: int) -> None:
    _say(text)
    os._exit(code)
