"""Times of runs, and their ratios: of things run in turn, so that a busy machine slows both."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def ratios(
    runs: Mapping[str, Callable[[], Any]], *, against: str, rounds: int
) -> dict[str, dict[str, float]]:
    """Time of each run over that of ``against``, round by round.

    Returns ``{name: {"seconds", "ratio", "low", "high"}}``: the median time, and the median and the
    quartiles of the ratio. Every run is called once before, to compile; results are waited for.
    """
    for run in runs.values():
        jax.block_until_ready(run())
    seconds = np.array([[_timed(run) for run in runs.values()] for _ in range(rounds)])
    relative = seconds / seconds[:, [list(runs).index(against)]]
    low, middle, high = np.quantile(relative, (0.25, 0.5, 0.75), axis=0)
    medians = np.median(seconds, axis=0)
    return {
        name: {
            "seconds": float(medians[i]),
            "ratio": float(middle[i]),
            "low": float(low[i]),
            "high": float(high[i]),
        }
        for i, name in enumerate(runs)
    }


def median_seconds(run: Callable[[], Any], rounds: int) -> float:
    """Of one run, after a first one that compiles."""
    jax.block_until_ready(run())
    return float(np.median([_timed(run) for _ in range(rounds)]))


def _timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start
