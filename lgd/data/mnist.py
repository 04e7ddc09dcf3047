"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28.

LeCun et al., 1998, doi 10.1109/5.726791.
"""

import os
from pathlib import Path

from lgd.data import image_files, splits
from lgd.data.dataset import Dataset
from lgd.data.faults import DataFileError, local
from lgd.data.image_files import Pin

CLASS_NAMES = tuple(str(digit) for digit in range(10))
PINS = {
    "x": Pin(60_000, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "y": Pin(60_000, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "xt": Pin(10_000, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "yt": Pin(10_000, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
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
    path = local(path, "MNIST")
    if not os.path.exists(path):
        raise DataFileError(
            f"{path}: expected MNIST, one .npz file or a folder of its four IDX files, gzipped or "
            "not, got no such file. Get train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
            "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz from "
            "https://storage.googleapis.com/cvdf-datasets/mnist/"
        )
    parts = image_files.read(path, size=(28, 28), num_classes=len(CLASS_NAMES), pins=PINS)
    sizes = (num_train, num_validation, num_test)
    return splits.dataset(path, *parts, sizes, CLASS_NAMES, seed=seed)
