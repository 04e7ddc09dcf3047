"""Rank correlations, with bootstrap intervals over what is ranked."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

RESAMPLES = 1000


def rank_correlations(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """Spearman's rho and Kendall's tau-b, each with a 95% interval.

    The interval is that of the percentiles of bootstrap resamples of the n pairs. Raises ValueError
    for fewer than 3 pairs.
    """
    if len(x) < 3:
        raise ValueError(f"expected at least 3 pairs, got {len(x)}")
    rng = np.random.default_rng(0)
    index = rng.integers(len(x), size=(RESAMPLES, len(x)))
    index = index[[len(set(each)) > 2 for each in index.tolist()]]
    found = {}
    for name, measure in {"spearman": spearman, "kendall": kendall}.items():
        low, high = np.nanpercentile(measure(x[index], y[index]), [2.5, 97.5])
        value = float(measure(x[None], y[None])[0])
        found[name] = {"value": value, "interval": [float(low), float(high)]}
    return found


def spearman(x: Float[np.ndarray, "r n"], y: Float[np.ndarray, "r n"]) -> Float[np.ndarray, " r"]:
    """Pearson's correlation of ranks, ties at their mean rank; of every row."""
    ranks = [rankdata(each, axis=1) - 0.5 * (each.shape[1] + 1) for each in (x, y)]
    sizes = [np.sum(each**2, axis=1) for each in ranks]
    return np.sum(ranks[0] * ranks[1], axis=1) / np.sqrt(sizes[0] * sizes[1])


def kendall(x: Float[np.ndarray, "r n"], y: Float[np.ndarray, "r n"]) -> Float[np.ndarray, " r"]:
    """Pairs in the same order less those in the other, over the mean of pairs without ties."""
    signs = [np.sign(each[:, :, None] - each[:, None, :]) for each in (x, y)]
    sizes = [np.sum(np.abs(each), axis=(1, 2)) for each in signs]
    return np.sum(signs[0] * signs[1], axis=(1, 2)) / np.sqrt(sizes[0] * sizes[1])
