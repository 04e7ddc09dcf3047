"""Data sets in three splits, from labelled images for training and for test."""

from collections.abc import Sequence
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


def by_caption(
    path: str | Path, texts: Sequence[str], sizes: tuple[int, int, int], *, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the examples of train, validation and test, which share no caption.

    Captions come in random order, first those of test, then of validation, then of train, each
    split with so many captions that it has enough examples, of which it keeps its number.

    Args:
      path: folder that messages name.
      texts: the caption of every example.
      sizes: numbers of examples for train, validation and test.
      seed: of the order.

    Raises:
      DataFileError: where there are too few examples, or too few captions.
    """
    names = "num_train + num_validation + num_test"
    check_count(path, names, sum(sizes), len(texts), "all")
    distinct, caption = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(distinct))[caption]  # a random place of every caption
    examples = np.lexsort((rng.permutation(len(texts)), order))  # by caption, then at random
    parts, first = [], 0
    for name, count in zip(("num_test", "num_validation", "num_train"), sizes[::-1], strict=True):
        last = first + count
        if last > len(examples):
            raise DataFileError(
                f"{path}: {name}: expected at most {len(examples) - first}, the number of images "
                f"with captions that no other split has, got {count}"
            )
        parts.append(rng.permutation(examples[first:last]))
        while last < len(examples) and order[examples[last]] == order[examples[last - 1]]:
            last += 1  # the rest of this caption belongs to no split
        first = last
    test, validation, train = parts
    return train, validation, test


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
