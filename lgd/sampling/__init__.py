"""Guided sampling on a grid of times."""

from lgd.sampling.walk import (
    Samples,
    Solver,
    count_nfe,
    count_skipping_nfe,
    sample,
    sample_adaptive,
    unroll,
)

__all__ = [
    "Samples",
    "Solver",
    "count_nfe",
    "count_skipping_nfe",
    "sample",
    "sample_adaptive",
    "unroll",
]
