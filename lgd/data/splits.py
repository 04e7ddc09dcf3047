"""Data sets in three splits, from labelled images for training and for test."""

from pathlib import Path

import numpy as np

from lgd.data.dataset import Dataset, Split, labelled, scaled
from lgd.data.image_files import DataFileError, LabelledImages


def dataset(
    path: str | Path,
    training: LabelledImages,
    testing: LabelledImages,
    sizes: tuple[int, int, int],
    class_names: tuple[str, ...],
    *,
    seed: int,
) -> Dataset:
    """Return images (n, h, w, channels) in [-1, 1] in three splits, shuffled by seed.

    Train and validation are disjoint parts of the training images, test is part of the test images.

    Args:
      path: file or folder that messages name.
      training: images of train and validation.
      testing: images of test.
      sizes: numbers of images for train, validation and test.
      class_names: names of the labels, in their order.
      seed: for the order of the images.

    Raises:
      DataFileError: if there are too few images.
      ValueError: for sizes below 1.
    """
    num_train, num_validation, num_test = sizes
    order, test_order = orders(path, len(training.labels), len(testing.labels), sizes, seed)
    return Dataset(
        train=_split(training, order[:num_train]),
        validation=_split(training, order[num_train : num_train + num_validation]),
        test=_split(testing, test_order[:num_test]),
        class_names=class_names,
    )


def orders(
    path: str | Path, num_training: int, num_testing: int, sizes: tuple[int, int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return random permutations of the training images and of the test images.

    Args:
      path: file or folder that messages name.
      num_training: images that train and validation are drawn from.
      num_testing: images that test is drawn from.
      sizes: numbers of images for train, validation and test.
      seed: of the permutations.

    Raises:
      DataFileError: if there are too few images.
      ValueError: for sizes below 1.
    """
    num_train, num_validation, num_test = sizes
    if min(sizes) < 1:
        raise ValueError(f"expected positive sizes, got {num_train}, {num_validation}, {num_test}")
    _check_count(path, "training", num_training, num_train + num_validation)
    _check_count(path, "test", num_testing, num_test)
    rng = np.random.default_rng(seed)
    return rng.permutation(num_training), rng.permutation(num_testing)


def _check_count(path: str | Path, name: str, count: int, least: int) -> None:
    if count < least:
        raise DataFileError(f"{path}: {name} images: expected {least} or more, got {count}")


def _split(images: LabelledImages, index: np.ndarray) -> Split:
    x = images.images[index]
    x = x[..., None] if x.ndim == 3 else x
    return labelled(scaled(x), images.labels[index].astype(np.int32))
