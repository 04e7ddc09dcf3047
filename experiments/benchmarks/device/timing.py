"""Times of runs, and their ratios: of things run in turn, so that a busy machine slows both."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Run = Callable[[], Any]


def ratio(run: Run, against: Run, rounds: int) -> dict[str, float]:
    """Return the time of a run over that of another, round by round.

    ``ratio`` is the median, ``low`` and ``high`` are the quartiles; ``seconds`` and
    ``against_seconds`` are median times. Both are called twice before, to compile: where a state
    lies is settled after a first step. Results are waited for.
    """
    runs = (run, against)
    for each in (*runs, *runs):
        jax.block_until_ready(each())
    seconds = np.array([[_timed(each) for each in runs] for _ in range(rounds)])
    low, middle, high = np.quantile(seconds[:, 0] / seconds[:, 1], (0.25, 0.5, 0.75)).tolist()
    first, other = np.median(seconds, axis=0).tolist()
    return {
        "seconds": first,
        "against_seconds": other,
        "ratio": middle,
        "low": low,
        "high": high,
    }


def median_seconds(run: Run, rounds: int) -> float:
    """Return the time of one run, after a first one that compiles."""
    jax.block_until_ready(run())
    return float(np.median([_timed(run) for _ in range(rounds)]))


def _timed(run: Run) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start
