"""Data sets in three splits, from labelled images for training and for test."""

from pathlib import Path

import numpy as np

from lgd.data.dataset import Dataset, Split, labelled, scaled
from lgd.data.faults import DataFileError, all_faults
from lgd.data.image_files import LabelledImages


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
    check_positive(sizes)
    num_train, num_validation, num_test = sizes
    with all_faults() as noted:
        for names, size, count, which in (
            ("num_train + num_validation", num_train + num_validation, num_training, "training"),
            ("num_test", num_test, num_testing, "test"),
        ):
            with noted():
                check_count(path, names, size, count, which)
    rng = np.random.default_rng(seed)
    return rng.permutation(num_training), rng.permutation(num_testing)


def check_positive(sizes: tuple[int, int, int]) -> None:
    """Raise ValueError unless num_train, num_validation and num_test are 1 or more."""
    names = ("num_train", "num_validation", "num_test")
    wrong = [f"{name} {size}" for name, size in zip(names, sizes, strict=True) if size < 1]
    if wrong:
        raise ValueError(f"expected positive sizes, got {', '.join(wrong)}")


def check_count(path: str | Path, names: str, size: int, count: int, which: str) -> None:
    """Check that there are as many images as arguments ask for.

    Args:
      path: file or folder that messages name.
      names: of the arguments.
      size: images that they ask for.
      count: images that there are.
      which: images these are, in a word.

    Raises:
      DataFileError: if there are too few images.
    """
    if size > count:
        raise DataFileError(
            f"{path}: {names}: expected at most {count}, the number of {which} images, got {size}"
        )


def _split(images: LabelledImages, index: np.ndarray) -> Split:
    x = images.images[index]
    x = x[..., None] if x.ndim == 3 else x
    return labelled(scaled(x), images.labels[index])
