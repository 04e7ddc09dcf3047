"""Generated images in the shape of a data set that is not at hand: to try a run, not for results.

Every class is a grating with its own frequency, direction and colours, under noise; examples of a
class differ in contrast and phase, so that classifiers and guidance have something to learn.
"""

import numpy as np
from jaxtyping import UInt8

from lgd.data.dataset import Dataset, FileImages, Split, labelled

_FREQUENCIES = (0.5, 3.0)  # waves across an image
_NOISE = 12.0  # standard deviation, of 255 levels


def load(
    shape: tuple[int, int, int],
    num_classes: int,
    num_train: int,
    num_validation: int,
    num_test: int,
    *,
    seed: int = 0,
    streaming: bool = False,
) -> Dataset:
    """Return images (n, *shape) in [-1, 1] in three splits, whose classes alternate.

    Args:
      shape: (h, w, channels).
      num_classes: number of classes.
      num_train: images of the train split.
      num_validation: images of the validation split.
      num_test: images of the test split.
      seed: of all images; the three splits differ.
      streaming: whether images of the train split are drawn when they are indexed, as if they were
        read from files.
    """
    sizes = (num_train, num_validation, num_test)
    train, *others = (
        _split(shape, num_classes, size, (seed, part)) for part, size in enumerate(sizes)
    )
    validation, test = (split._replace(x=split.x[:]) for split in others)
    if not streaming:
        train = train._replace(x=train.x[:])
    names = tuple(f"class {label}" for label in range(num_classes))
    return Dataset(train, validation, test, names)


def _split(
    shape: tuple[int, int, int], num_classes: int, size: int, seed: tuple[int, int]
) -> Split:
    labels = np.arange(size, dtype=np.int32) % num_classes

    def read(number: int) -> UInt8[np.ndarray, "h w channels"]:
        return drawn(shape, int(labels[number]), (*seed, number))

    return labelled(FileImages((size, *shape), read, f"generated {num_classes} {seed}"), labels)


def drawn(
    shape: tuple[int, int, int], label: int, seed: tuple[int, ...]
) -> UInt8[np.ndarray, "h w channels"]:
    """Return an image ``127.5 + 100 a cos(2 pi f (u cos r + v sin r) + p + q) + noise`` of a class.

    Frequency f, direction r and a phase p for each channel follow from the label; contrast a in
    [0.5, 1], phase q and noise from the seed. u, v in [0, 1) are the position.
    """
    of_class, of_image = np.random.default_rng(label), np.random.default_rng(seed)
    frequency, direction = of_class.uniform((_FREQUENCIES[0], 0.0), (_FREQUENCIES[1], np.pi))
    phases = of_class.uniform(0.0, 2.0 * np.pi, shape[2])
    u, v = np.meshgrid(*(np.arange(size) / size for size in shape[:2]), indexing="ij")
    waves = 2.0 * np.pi * frequency * (u * np.cos(direction) + v * np.sin(direction))
    angles = waves[..., None] + phases[None, None] + of_image.uniform(0.0, 0.5)
    contrast = of_image.uniform(0.5, 1.0)
    noise = _NOISE * of_image.normal(size=shape)
    values = 127.5 + 100.0 * contrast * np.cos(angles) + noise
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
