"""Precision and recall of samples by nearest neighbours, computed in float64 and in blocks."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from lgd.metrics.checks import checked, checked_pair

BLOCK_NUMBERS = 4_000_000  # distances held at once: 32 MiB a copy
NUM_NEIGHBOURS = 3  # of the paper
_ROUNDING = 1e-14  # squared distances below this share of the squared norms are rounding


class PrecisionRecall(NamedTuple):
    """Precision and recall of samples, both in [0, 1]."""

    precision: float
    recall: float


def precision_recall(
    samples: Float[np.ndarray, "m f"],
    real: Float[np.ndarray, "n f"],
    *,
    k: int = NUM_NEIGHBOURS,
    real_radii: Float[np.ndarray, " n"] | None = None,
) -> PrecisionRecall:
    """Return improved precision and recall (Kynkaanniemi et al., 2019, arXiv 1904.06991).

    The manifold of a set is the union of balls about its features, whose radii are the distances to
    the k-th nearest other feature of the set. Precision is the share of samples in the manifold of
    the real features, recall the share of real features in the manifold of the samples.

    Args:
      samples: features of samples (m, f).
      real: features of real examples (n, f).
      k: number of the neighbour.
      real_radii: `squared_radii` of the real features if they are known; None: computed.

    Raises:
      ValueError: for sets of k features or fewer, different widths, or values that are not finite.
    """
    samples, real = checked_pair(samples, real)
    radii = squared_radii(real, k=k) if real_radii is None else np.asarray(real_radii)
    if radii.shape != (len(real),) or not (np.isfinite(radii) & (radii >= 0.0)).all():
        raise ValueError(f"real_radii: expected {len(real)} finite numbers >= 0, got others")
    sample_radii = squared_radii(samples, k=k)
    precise = np.zeros(len(samples), bool)
    recalled: Bool[np.ndarray, " n"] = np.zeros(len(real), bool)
    for rows in _blocks(len(samples), len(real)):
        squares = squared_distances(samples[rows], real)
        precise[rows] = (squares <= radii).any(axis=1)
        recalled |= (squares <= sample_radii[rows, None]).any(axis=0)
    return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def squared_radii(
    x: Float[np.ndarray, "n f"], *, k: int = NUM_NEIGHBOURS
) -> Float[np.ndarray, " n"]:
    """Return the squared distance of every feature to its k-th nearest other one, (n,).

    Raises:
      ValueError: unless 1 <= k < n, for other shapes or values that are not finite.
    """
    x = checked(x)
    if not 1 <= k < len(x):
        raise ValueError(f"expected more than k = {k} >= 1 features, got {len(x)}")
    radii = np.empty(len(x))
    for rows in _blocks(len(x), len(x)):
        squares = squared_distances(x[rows], x)
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = np.inf
        radii[rows] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    return radii


def _blocks(num_rows: int, num_columns: int) -> list[slice]:
    size = max(1, BLOCK_NUMBERS // max(num_columns, 1))
    return [slice(i, min(i + size, num_rows)) for i in range(0, num_rows, size)]


def squared_distances(
    x: Float[np.ndarray, "m f"], y: Float[np.ndarray, "n f"]
) -> Float[np.ndarray, "m n"]:
    """Return ``|x|^2 + |y|^2 - 2 x'y`` (m, n) in float64, exact enough for float32 features."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    norms = np.sum(x * x, axis=1)[:, None] + np.sum(y * y, axis=1)
    squares = norms - 2.0 * (x @ y.T)
    squares[squares < _ROUNDING * norms] = 0.0
    return squares
