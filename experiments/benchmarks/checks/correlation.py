"""Rank correlations, with bootstrap intervals over what is ranked."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

RESAMPLES = 1000
_MEASURES = {"spearman": stats.spearmanr, "kendall": stats.kendalltau}


def rank_correlations(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """Return Spearman's rho and Kendall's tau-b, each with a 95% interval.

    The interval is that of the percentiles of bootstrap resamples of the n pairs that hold at least
    three different ones. Raises ValueError for fewer than 3 pairs.
    """
    if len(x) < 3:
        raise ValueError(f"expected at least 3 pairs, got {len(x)}")
    index = np.random.default_rng(0).integers(len(x), size=(RESAMPLES, len(x)))
    index = index[[len(set(each)) > 2 for each in index.tolist()]]
    correlations = {}
    for name, measure in _MEASURES.items():
        resampled = [measure(x[rows], y[rows]).statistic for rows in index]
        low, high = np.nanpercentile(resampled, [2.5, 97.5])
        value = float(measure(x, y).statistic)
        correlations[name] = {"value": value, "interval": [float(low), float(high)]}
    return correlations
