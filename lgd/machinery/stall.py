"""Reports where a program hangs, as in a data loader that blocks or a peer that never answers."""

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Iterator

from lgd.machinery import stopping


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[None]:
    """Report every step that lasts longer than this, once and with all stacks, on stderr.

    A step ends with a call of `lgd.machinery.stopping.requested`. The reported step goes on.
    """
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(seconds, done), name="stall", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(seconds: float, done: threading.Event) -> None:
    start, reported = time.monotonic(), -1.0
    while not done.wait(min(seconds / 4, 1.0)):
        label, polled = stopping.last_poll()
        since = max(polled, start)
        age = time.monotonic() - since
        if age > seconds and since != reported:
            reported = since
            _report(f"no step ended for {age:.0f} s; the last: {label}. Every thread is here:")


def _report(text: str) -> None:
    stream = sys.__stderr__
    if stream is None:
        return
    stream.write(f"\n{text}\n")
    stream.flush()
    faulthandler.dump_traceback(file=stream, all_threads=True)
