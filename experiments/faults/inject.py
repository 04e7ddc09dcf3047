"""The launcher with one fault in it: at the n-th call of a function, something happens first.

    python -m experiments.faults.inject lgd.checkpoint:_fsync 7 KILL -- --config=... --workdir=...

Actions, several joined by "+": a signal to this process (TERM, INT, KILL), ``sleep:SECONDS``,
``raise``, ``full`` (OSError: no space left). What was done is said on stderr, with the time.
"""

import errno
import functools
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

INJECTED = "injected at "


def patch(place: str, number: int, action: str) -> None:
    """Make the n-th call of ``module:name`` (or ``module:Class.name``) start with the action."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    setattr(owner, name, _struck(getattr(owner, name), number, action))


def _struck(function: Callable, number: int, action: str) -> Callable:
    calls = 0

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            print(f"{INJECTED}{time.time()}", file=sys.stderr, flush=True)
            for each in action.split("+"):
                _act(each)
        return function(*args, **kwargs)

    return counted


def _act(action: str) -> None:
    if action.startswith("sleep:"):
        time.sleep(float(action.removeprefix("sleep:")))
    elif action == "raise":
        raise RuntimeError("injected")
    elif action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        os.kill(os.getpid(), getattr(signal, f"SIG{action}"))


def main() -> None:
    """Patch, then launch."""
    place, number, action, dashes, *argv = sys.argv[1:]
    if dashes != "--":
        sys.exit(f"expected -- before the launcher's arguments, got {dashes!r}")
    patch(place, int(number), action)
    from experiments import run

    sys.argv = ["experiments.run", *argv]
    run.launch()


if __name__ == "__main__":
    main()
