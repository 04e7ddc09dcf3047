"""Images in folders, one for each class: PNG or JPEG files of any size.

Hidden files (``._1.png``) are skipped. Files of the train split stay where they are and are read
when they are indexed.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lgd.data import image_decoder, manifest, splits
from lgd.data.dataset import Dataset, FileImages, Split, labelled
from lgd.data.image_files import DataFileError, reading, require_regular
from lgd.machinery import digests

SUFFIXES = (".png", ".jpg", ".jpeg")


class _Listed(NamedTuple):
    """Paths of files relative to the root, and their classes (n,)."""

    files: list[str]
    labels: np.ndarray


def load(
    path: str | Path,
    num_train: int,
    num_validation: int,
    num_test: int,
    *,
    size: int,
    seed: int = 0,
) -> Dataset:
    """Return colour images (n, size, size, 3) in [-1, 1] in three splits, shuffled by seed.

    Args:
      path: a folder with one folder of images for each class, labelled in natural order (2 before
        10), or one with two such folders ``train`` and ``test``. Without these all splits are parts
        of the same images.
      num_train: images of the train split.
      num_validation: images of the validation split.
      num_test: images of the test split.
      size: side in pixels that images are resized to, see `fitted`.
      seed: for the order of the images.

    Raises:
      DataFileError: for a folder that does not fit; also when an image is read that is damaged or
        has changed since the folder was first used, see `manifest`.
      ValueError: for a size or number below 1.
    """
    if size < 1:
        raise ValueError(f"expected size >= 1, got {size}")
    root, sizes = Path(path), (num_train, num_validation, num_test)
    parted = (root / "train").is_dir() and (root / "test").is_dir()
    class_names = _class_names(root / "train" if parted else root)
    if parted and _class_names(root / "test") != class_names:
        raise DataFileError(f"{root}: expected the same folders in train and test, got others")
    training = _listed(root, "train/" if parted else "", class_names)
    testing = _listed(root, "test/", class_names) if parted else training
    pinned = manifest.pins(root, sorted({*training.files, *testing.files}))
    if parted:
        order, test_order = splits.orders(
            root, len(training.files), len(testing.files), sizes, seed
        )
    else:
        count = len(training.files)
        total = (num_train, num_validation + num_test, 1)
        order, _ = splits.orders(root, count, count, total, seed)
        test_order = order[num_train + num_validation :]

    def split(listed: _Listed, numbers: np.ndarray) -> Split:
        files = [listed.files[number] for number in numbers]
        return labelled(_images(root, files, pinned, size), listed.labels[numbers])

    validation = split(training, order[num_train : num_train + num_validation])
    test = split(testing, test_order[:num_test])
    return Dataset(
        train=split(training, order[:num_train]),
        validation=validation._replace(x=validation.x[:]),
        test=test._replace(x=test.x[:]),
        class_names=class_names,
    )


def fitted(image: Image.Image, size: int) -> Image.Image:
    """Return the largest central square of an image, resized to (size, size) by bicubic filter."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.BICUBIC)


def _class_names(folder: Path) -> tuple[str, ...]:
    with reading(f"{folder}", "a folder of one folder of images for each class"):
        names = sorted((path.name for path in folder.iterdir() if path.is_dir()), key=_natural)
    names = [name for name in names if not name.startswith(".") and name != "__MACOSX"]
    if not names:
        raise DataFileError(f"{folder}: expected a folder of images for each class, got none")
    return tuple(names)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return the key of natural order: numbers in a name count as numbers, "2" before "10"."""
    parts = re.split("([0-9]+)", name)
    return [(int(part) if part.isdecimal() else -1, part) for part in parts]


def _listed(root: Path, part: str, class_names: tuple[str, ...]) -> _Listed:
    files, labels = [], []
    for label, name in enumerate(class_names):
        folder = root / part / name
        with reading(f"{folder}", "a folder of images"):
            entries = sorted(path.name for path in folder.iterdir())
        images = [e for e in entries if e.lower().endswith(SUFFIXES) and not e.startswith(".")]
        if not images:
            raise DataFileError(f"{folder}: expected {', '.join(SUFFIXES)} files, got none")
        for image in images:
            require_regular(folder / image)
        files += [f"{part}{name}/{image}" for image in images]
        labels += [label] * len(images)
    return _Listed(files, np.asarray(labels, np.int32))


def _images(
    root: Path, files: list[str], pinned: dict[str, manifest.Entry], size: int
) -> FileImages:
    def read(number: int) -> UInt8[np.ndarray, "h w channels"]:
        file = root / files[number]
        with reading(f"{file}", "an image"):
            content = file.read_bytes()
        manifest.check(file, content, pinned[files[number]])
        with reading(f"{file}", "an image"):
            return np.asarray(fitted(image_decoder.decoded(content), size))

    lines = [f"{name} {pinned[name].sha256}" for name in files]
    return FileImages(
        shape=(len(files), size, size, 3),
        read=read,
        fingerprint=digests.of_bytes("\n".join(["RGB on white, centre, bicubic", *lines]).encode()),
    )
