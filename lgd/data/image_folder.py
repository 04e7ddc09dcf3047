"""Images in folders, one for each class: PNG or JPEG files of any size.

Images of other formats are refused; hidden files (``._1.png``) and files that are no images are
skipped. Files of the train split stay where they are and are read when they are indexed.
"""

import logging
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lgd.data import file_images, manifest, splits
from lgd.data.dataset import Dataset, Split, labelled
from lgd.data.faults import DataFileError, all_faults, content, local, reading
from lgd.data.file_images import OTHER_SUFFIXES, SUFFIXES

_log = logging.getLogger(__name__)

CLASSES = "classes.txt"
_LARGEST_CLASSES = 2**24  # bytes
_MOST_CLASSES = 2**16


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
      path: a folder with one folder of images for each class, or one with two such folders
        ``train`` and ``test``. Without these all splits are parts of the same images. Classes are
        labelled from 0 in the order of its file ``classes.txt``, the name of a folder on each line,
        or without one in natural order (2 before 10).
      num_train: images of the train split.
      num_validation: images of the validation split.
      num_test: images of the test split.
      size: side in pixels that images are resized to, see `file_images.fitted`.
      seed: for the order of the images.

    Raises:
      DataFileError: for a folder that does not fit; also when an image is read that is damaged or
        has changed since the folder was first used, see `manifest`.
      ValueError: for a size or number below 1.
    """
    if size < 1:
        raise ValueError(f"expected size >= 1, got {size}")
    root, sizes = local(path, "a folder of images"), (num_train, num_validation, num_test)
    parted = (root / "train").is_dir() and (root / "test").is_dir()
    class_names = _class_names(root, ("train", "test") if parted else ("",))
    training = _listed(root, "train/" if parted else "", class_names)
    testing = _listed(root, "test/", class_names) if parted else training
    pinned = manifest.pins(root, sorted({*training.files, *testing.files}))
    if parted:
        order, test_order = splits.orders(
            root, len(training.files), len(testing.files), sizes, seed
        )
    else:
        splits.check_positive(sizes)
        names = "num_train + num_validation + num_test"
        splits.check_count(root, names, sum(sizes), len(training.files), "all")
        order = np.random.default_rng(seed).permutation(len(training.files))
        test_order = order[num_train + num_validation :]

    def split(listed: _Listed, numbers: np.ndarray) -> Split:
        files = [listed.files[number] for number in numbers]
        return labelled(file_images.of(root, files, pinned, size), listed.labels[numbers])

    validation = split(training, order[num_train : num_train + num_validation])
    test = split(testing, test_order[:num_test])
    return Dataset(
        train=split(training, order[:num_train]),
        validation=validation._replace(x=validation.x[:]),
        test=test._replace(x=test.x[:]),
        class_names=class_names,
    )


def _class_names(root: Path, parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the classes in their order, which all parts have folders of."""
    by_part = {root / part: _folders(root / part) for part in parts}
    listed = _listed_classes(root / CLASSES)
    first = next(iter(by_part))
    names, source = (by_part[first], first) if listed is None else (listed, root / CLASSES)
    with all_faults() as noted:
        for folder, folders in by_part.items():
            missing = sorted(set(names) - set(folders), key=_natural)
            unknown = sorted(set(folders) - set(names), key=_natural)
            with noted():
                if missing or unknown:
                    raise DataFileError(
                        f"{folder}: expected the same folders as in {source}, got "
                        f"{_some(missing)} missing and {_some(unknown)} more"
                    )
    _log.info("%s: labels %s", root, _some([f"{k} {name}" for k, name in enumerate(names)]))
    return tuple(names)


def _some(names: list[str]) -> str:
    """Return the first names in words."""
    rest = f", ... ({len(names)} in all)" if len(names) > 20 else ""
    return (", ".join(name[:80] for name in names[:20]) or "none") + rest


def _listed_classes(file: Path) -> list[str] | None:
    """Return the names of a file of classes, one a line; None without a file."""
    if not file.exists():
        return None
    with reading(f"{file}", "names of classes, one a line"):
        lines = content(file, _LARGEST_CLASSES).decode("utf-8-sig").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if len(names) > _MOST_CLASSES:
        raise DataFileError(f"{file}: expected up to {_MOST_CLASSES} classes, got {len(names)}")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice or not names:
        got = f"{_some(twice)} more than once" if twice else "no name"
        raise DataFileError(f"{file}: expected different names of classes, one a line, got {got}")
    return names


def _folders(folder: Path) -> list[str]:
    with reading(f"{folder}", "a folder of one folder of images for each class"):
        names = sorted((path.name for path in folder.iterdir() if path.is_dir()), key=_natural)
    names = [name for name in names if not name.startswith(".") and name != "__MACOSX"]
    if not names:
        raise DataFileError(f"{folder}: expected a folder of images for each class, got none")
    return names


def _natural(name: str) -> list[tuple[int, str, str]]:
    """Return the key of natural order: numbers in a name count as numbers, "2" before "10"."""
    keys = []
    for place, part in enumerate(re.split("([0-9]+)", name)):
        digits = part.lstrip("0")  # as a number it may be too long
        keys.append((len(digits), digits, part) if place % 2 else (-1, "", part))
    return keys


def _listed(root: Path, part: str, class_names: tuple[str, ...]) -> _Listed:
    files, labels = [], []
    for label, name in enumerate(class_names):
        folder = root / part / name
        with reading(f"{folder}", "a folder of images"):
            entries = sorted(path.name for path in folder.iterdir())
        entries = [entry for entry in entries if not entry.startswith(".")]
        images = [entry for entry in entries if entry.lower().endswith(SUFFIXES)]
        others = [entry for entry in entries if entry.lower().endswith(OTHER_SUFFIXES)]
        if others:
            raise DataFileError(
                f"{folder / others[0]}: expected {', '.join(SUFFIXES)} files, got another format; "
                f"convert it to PNG, and {len(others) - 1} others of this folder"
            )
        if not images:
            raise DataFileError(f"{folder}: expected {', '.join(SUFFIXES)} files, got none")
        for image in images:
            file_images.require_image(folder / image)
        files += [f"{part}{name}/{image}" for image in images]
        labels += [label] * len(images)
    return _Listed(files, np.asarray(labels, np.int32))
