"""Labelled images in a .npz file: uint8 arrays x, y for training and xt, yt for test."""

from pathlib import Path

from lgd.data import image_files, splits
from lgd.data.dataset import Dataset


def load(
    path: str | Path, num_train: int, num_validation: int, num_test: int, *, seed: int = 0
) -> Dataset:
    """Return images (n, h, w, channels) in [-1, 1] in three splits, shuffled by seed.

    Train and validation are disjoint parts of x, test is part of xt. Classes are named by their
    labels.

    Args:
      path: the .npz file; see `image_files.read_npz`.
      num_train: images of the train split.
      num_validation: images of the validation split.
      num_test: images of the test split.
      seed: for the order of the images.

    Raises:
      DataFileError: if the file is missing, damaged or has too few images.
      ValueError: for sizes below 1.
    """
    training, testing = image_files.read_npz(path)
    class_names = tuple(str(label) for label in range(int(training.labels.max()) + 1))
    sizes = (num_train, num_validation, num_test)
    return splits.dataset(path, training, testing, sizes, class_names, seed=seed)
