"""Kernel distance between two sets of features (KID), computed in float64 and in blocks."""

import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lgd.metrics.checks import checked, checked_pair

BLOCK = 2048  # rows of a block of the kernel matrix: 32 MiB, whatever the sets' sizes


class SubsetDistance(NamedTuple):
    """Mean of `kid` over subsets, and its standard deviation among them (ddof 1)."""

    mean: float
    std: float


def kid(
    x: Float[np.ndarray, "m f"], y: Float[np.ndarray, "n f"], *, within_y: float | None = None
) -> float:
    """Return the unbiased squared MMD of two sets, with the kernel ``k(a, b) = (a'b / f + 1)^3``.

    ``mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)``
    (U-statistic; Binkowski et al., 2018, arXiv 1801.01401). Equal laws have mean 0, so values may
    be negative.

    Args:
      x: features (m, f).
      y: features (n, f).
      within_y: `mean_within` of y if it is known; None: computed.

    Raises:
      ValueError: for fewer than two features a side, different widths, or values that are not
        finite or beyond `checks.LARGEST`.
    """
    x, y = checked_pair(x, y)
    if within_y is None:
        within_y = mean_within(y)
    elif not math.isfinite(within_y):
        raise ValueError(f"within_y: expected a finite number, got {within_y}")
    cross = _kernel_sum(x, y) / (len(x) * len(y))
    return mean_within(x) + within_y - 2.0 * cross


def kid_of_subsets(
    x: Float[np.ndarray, "m f"],
    y: Float[np.ndarray, "n f"],
    *,
    num_subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
) -> SubsetDistance:
    """Return `kid` between subsets drawn without replacement, the usual estimate for large sets.

    Args:
      x: features (m, f).
      y: features (n, f).
      num_subsets: number of pairs of subsets.
      size: number of features in a subset.
      seed: source of the draws.

    Returns:
      Mean and standard deviation over the pairs.

    Raises:
      ValueError: for a size below 2 or above that of x or y, and as `kid`.
    """
    x, y = checked_pair(x, y)
    if not 2 <= size <= min(len(x), len(y)):
        raise ValueError(f"expected size in [2, {min(len(x), len(y))}], got {size}")
    rng = np.random.default_rng(seed)
    values = [
        kid(*(side[rng.choice(len(side), size, replace=False)] for side in (x, y)))
        for _ in range(num_subsets)
    ]
    std = float(np.std(values, ddof=1)) if num_subsets > 1 else 0.0
    return SubsetDistance(float(np.mean(values)), std)


def mean_within(x: Float[np.ndarray, "n f"]) -> float:
    """Return ``mean_{i != j} k(x_i, x_j)``, with the kernel of `kid`.

    Raises:
      ValueError: for fewer than two features, or values that are not finite.
    """
    x = checked(x, least=2)
    blocks = _blocks(x)
    off_blocks = sum(_kernel(a, b).sum() for a, b in itertools.combinations(blocks, 2))
    in_blocks = 0.0
    for block in blocks:
        kernel = _kernel(block, block)
        in_blocks += kernel.sum() - np.trace(kernel)
    return float(2.0 * off_blocks + in_blocks) / (len(x) * (len(x) - 1))


def _kernel_sum(x: Float[np.ndarray, "m f"], y: Float[np.ndarray, "n f"]) -> float:
    return float(sum(_kernel(a, b).sum() for a in _blocks(x) for b in _blocks(y)))


def _blocks(x: Float[np.ndarray, "n f"]) -> list[np.ndarray]:
    x = np.asarray(x, np.float64)
    return [x[start : start + BLOCK] for start in range(0, len(x), BLOCK)]


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    base = x @ y.T
    base /= x.shape[1]
    base += 1.0
    return base * base * base
