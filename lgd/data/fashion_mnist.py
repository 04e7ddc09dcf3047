"""Fashion-MNIST (Xiao et al., 2017): 60,000 training and 10,000 test images of clothing, 28x28.

It comes with Debian's package dataset-fashion-mnist, and from
https://github.com/zalandoresearch/fashion-mnist (MIT licence).
"""

import os
from pathlib import Path

import numpy as np

from lgd.data.dataset import Dataset, Split
from lgd.data.image_files import DataFileError, LabelledImages, read

CLASS_NAMES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip


def load(
    path: str | Path,
    num_train: int = 50_000,
    num_validation: int = 10_000,
    num_test: int = 10_000,
    *,
    seed: int = 0,
) -> Dataset:
    """Images (n, 28, 28, 1) in [-1, 1], shuffled by seed.

    Train and validation are disjoint parts of the training images, test is part of the test images.
    path: see `image_files.read`. Raises DataFileError for files that are missing, damaged or hold
    too few images, ValueError for sizes below 1.
    """
    if min(num_train, num_validation, num_test) < 1:
        raise ValueError(f"expected positive sizes, got {num_train}, {num_validation}, {num_test}")
    if not os.path.exists(path):
        raise DataFileError(
            f"{path}: expected Fashion-MNIST, one .npz file or a folder of its four IDX files, got "
            "no such file. Install Debian's package dataset-fashion-mnist (it fills "
            "/usr/share/datasets/fashion-mnist) or get the files from "
            "https://github.com/zalandoresearch/fashion-mnist"
        )
    training, testing = read(path, size=(28, 28), num_classes=len(CLASS_NAMES))
    _check_count(path, "training", training, num_train + num_validation)
    _check_count(path, "test", testing, num_test)
    rng = np.random.default_rng(seed)
    order, test_order = rng.permutation(len(training.labels)), rng.permutation(len(testing.labels))
    return Dataset(
        train=_split(training, order[:num_train]),
        validation=_split(training, order[num_train : num_train + num_validation]),
        test=_split(testing, test_order[:num_test]),
        class_names=CLASS_NAMES,
    )


def _check_count(path: str | Path, name: str, images: LabelledImages, least: int) -> None:
    if len(images.labels) < least:
        raise DataFileError(
            f"{path}: {name} images: expected {least} or more, got {len(images.labels)}"
        )


def _split(images: LabelledImages, index: np.ndarray) -> Split:
    x = images.images[index, ..., None].astype(np.float32) / 127.5 - 1.0
    return Split(x, images.labels[index].astype(np.int32))
