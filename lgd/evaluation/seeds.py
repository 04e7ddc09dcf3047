"""Means and paired differences over seeds."""

from collections.abc import Sequence

import numpy as np


def summary(values: Sequence[float]) -> dict:
    """``{"mean", "std" (ddof 1), "values"}`` over seeds."""
    array = np.asarray(values, np.float64)
    std = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return {"mean": float(array.mean()), "std": std, "values": array.tolist()}


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict:
    """Mean of ours - theirs over seeds that share their noise, and its standard error."""
    if not len(ours) == len(theirs) >= 2:
        raise ValueError(f"expected at least 2 seeds of both, got {len(ours)} and {len(theirs)}")
    gaps = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    return {
        "mean": float(gaps.mean()),
        "standard_error": float(gaps.std(ddof=1) / len(gaps) ** 0.5),
    }
