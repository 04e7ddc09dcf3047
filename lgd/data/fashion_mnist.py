"""Fashion-MNIST: 60,000 training and 10,000 test images of clothing, 28x28.

Xiao et al., 2017, arXiv 1708.07747. Debian's package dataset-fashion-mnist contains it, and
https://github.com/zalandoresearch/fashion-mnist (MIT licence).
"""

import os
from pathlib import Path

from lgd.data import image_files, splits
from lgd.data.dataset import Dataset
from lgd.data.faults import DataFileError, local
from lgd.data.image_files import Pin

CLASS_NAMES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
PINS = {
    "x": Pin(60_000, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "y": Pin(60_000, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "xt": Pin(10_000, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "yt": Pin(10_000, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}


def load(
    path: str | Path,
    num_train: int = 50_000,
    num_validation: int = 10_000,
    num_test: int = 10_000,
    *,
    seed: int = 0,
) -> Dataset:
    """Return images (n, 28, 28, 1) in [-1, 1] in three splits, shuffled by seed.

    Train and validation are disjoint parts of the training images, test is part of the test images.

    Args:
      path: one .npz file, or a folder of the four IDX files; see `image_files.read`.
      num_train: images of the train split.
      num_validation: images of the validation split.
      num_test: images of the test split.
      seed: for the order of the images.

    Raises:
      DataFileError: if files are missing, damaged or have too few images.
      ValueError: for sizes below 1.
    """
    path = local(path, "Fashion-MNIST")
    if not os.path.exists(path):
        raise DataFileError(
            f"{path}: expected Fashion-MNIST, one .npz file or a folder of its four IDX files, got "
            "no such file. Install Debian's package dataset-fashion-mnist (it fills "
            "/usr/share/datasets/fashion-mnist) or get the files from "
            "https://github.com/zalandoresearch/fashion-mnist"
        )
    parts = image_files.read(path, size=(28, 28), num_classes=len(CLASS_NAMES), pins=PINS)
    sizes = (num_train, num_validation, num_test)
    return splits.dataset(path, *parts, sizes, CLASS_NAMES, seed=seed)
