"""The 1,797 handwritten digits of scikit-learn, 8x8 (Alpaydin & Kaynak, 1998, UCI, 8x8 digits).

https://archive.ics.uci.edu/dataset/80
"""

import itertools

import numpy as np

from lgd.data import splits
from lgd.data.dataset import Dataset, labelled


def load(
    num_train: int = 900, num_validation: int = 400, num_test: int = 497, *, seed: int = 0
) -> Dataset:
    """Return digits (n, 8, 8, 1) in [-1, 1], shuffled by seed, in three splits of these sizes.

    Raises:
      ValueError: for sizes below 1, or whose sum is above 1,797.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    sizes = (num_train, num_validation, num_test)
    splits.check_positive(sizes)
    if sum(sizes) > len(pixels):
        raise ValueError(
            "num_train + num_validation + num_test: expected a sum <= "
            f"{len(pixels)}, got sum {sum(sizes)}"
        )
    order = np.random.default_rng(seed).permutation(len(pixels))
    x = (pixels[order].reshape(-1, 8, 8, 1) / 8.0 - 1.0).astype(np.float32)
    y = labels[order].astype(np.int32)
    ends = np.cumsum([0, *sizes])
    train, validation, test = (labelled(x[lo:hi], y[lo:hi]) for lo, hi in itertools.pairwise(ends))
    return Dataset(train, validation, test, tuple(str(digit) for digit in range(10)))
