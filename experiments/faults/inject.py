"""The launcher with a fault: an action precedes the n-th call of a function.

    python -m experiments.faults.inject lgd.machinery.ledger:fsync 7 KILL -- --config=... ...

Actions, several joined by "+": a signal to this process (TERM, INT, KILL), ``sleep:SECONDS``,
``raise``, ``full`` (OSError: no space left), ``oom`` (JAX: out of memory). ``nan:COUNT`` instead
replaces the results of that many calls by NaN. The action is reported on stderr, with the time.
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

import jax
import numpy as np

from experiments.faults.bench import INJECTED


def patch(place: str, number: int, action: str) -> None:
    """Make the n-th call of ``module:name`` (or ``module:Class.name``) start with the action."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for class_name in classes:
        owner = getattr(owner, class_name)
    setattr(owner, name, _struck(getattr(owner, name), number, action))


def _struck(function: Callable, number: int, action: str) -> Callable:
    calls, count = 0, int(action.removeprefix("nan:")) if action.startswith("nan:") else 0

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            print(f"{INJECTED}{time.time()}", file=sys.stderr, flush=True)
            for part in [] if count else action.split("+"):
                _act(part)
        result = function(*args, **kwargs)
        return _poisoned(result) if number <= calls < number + count else result

    return counted


def _poisoned(tree: Any) -> Any:
    """Return a tree with NaN in place of all floats."""
    return jax.tree.map(lambda a: a * np.float32(np.nan) if a.dtype.kind == "f" else a, tree)


def _act(action: str) -> None:
    if action.startswith("sleep:"):
        time.sleep(float(action.removeprefix("sleep:")))
    elif action == "raise":
        raise RuntimeError("injected")
    elif action == "oom":
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
    elif action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        os.kill(os.getpid(), getattr(signal, f"SIG{action}"))


def main() -> None:
    """Patch the function, then start the launcher."""
    place, number, action, dashes, *argv = sys.argv[1:]
    if dashes != "--":
        sys.exit(f"expected -- before the launcher's arguments, got {dashes!r}")
    patch(place, int(number), action)
    from experiments import console, run

    sys.argv = ["experiments.run", *argv]
    console.command(run.launch)


if __name__ == "__main__":
    main()
