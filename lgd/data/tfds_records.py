"""Data sets of TensorFlow Datasets (tfds), from array_record files.

Reading needs no TensorFlow. Preparing a data set needs it once, possibly on another machine: see
`PREPARE`.
"""

import bisect
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from lgd.data import image_decoder, manifest, splits
from lgd.data.dataset import Dataset, FileImages, Split, labelled
from lgd.data.faults import DataFileError, local, reading, require_regular
from lgd.data.file_images import fitted
from lgd.machinery import digests

PREPARE = (
    'python -m pip install tensorflow tensorflow-datasets; python -c "import tensorflow_datasets '
    "as tfds; tfds.builder('{name}', data_dir='{data_dir}', "
    "file_format='array_record').download_and_prepare()\""
)
INSTALL = "python -m pip install 'lgd[tfds]'"


def load(
    path: str | Path,
    num_train: int,
    num_validation: int,
    num_test: int,
    *,
    size: int = 0,
    attributes: tuple[str, ...] = (),
    seed: int = 0,
) -> Dataset:
    """Return images (n, h, w, channels) in [-1, 1] of a data set with features image and label.

    Train and validation are disjoint parts of its split train, test is part of its split test, or
    of validation if it has no test. Images are read by `image_decoder`. Records of train stay in
    their files, which are read once here and compared with the manifest of their first use, see
    `manifest`.

    Args:
      path: the folder of the data set below the data_dir of tfds, for instance
        ~/tensorflow_datasets/cifar10; a name without folders is taken in ~/tensorflow_datasets.
      num_train: images of the train split.
      num_validation: images of the validation split.
      num_test: images of the test split.
      size: side in pixels that images are resized to, see `file_images.fitted`; 0: unchanged.
      attributes: names of binary entries of the feature attributes (celeb_a), whose combinations
        are the classes: the first one counts 1, the second 2, the third 4, ...
      seed: for the order of the images.

    Raises:
      DataFileError: for a data set that is not prepared, with the command that prepares it; for one
        whose files have changed, or with too few images.
      ValueError: for a number of images below 1.
    """
    path = local(path, "a data set of tfds")
    path = path if len(path.parts) > 1 else Path.home() / "tensorflow_datasets" / path
    folder = _prepared(path)
    files = sorted(file.name for file in folder.iterdir() if _belongs(file))
    if (folder / manifest.NAME).exists():
        manifest.check_all(folder, manifest.pins(folder, files))
    builder = _builder(path, folder)
    features = builder.info.features
    label, class_names = _labelling(folder, features, attributes)
    no_test = "test" not in builder.info.splits and "validation" in builder.info.splits
    parts = {"train": "train", "test": "validation" if no_test else "test"}
    labels = {name: _labels(folder, builder, part, label) for name, part in parts.items()}
    pinned = manifest.pins(folder, files)  # written only after all records could be read
    sources = {name: _encoded(builder, part) for name, part in parts.items()}
    shards = {name: _shards(builder.info.splits[part]) for name, part in parts.items()}
    shape = _shape(folder, features["image"], size)
    order, test_order = splits.orders(
        path, len(labels["train"]), len(labels["test"]), (num_train, num_validation, num_test), seed
    )
    content = digests.of_bytes(f"{sorted(pinned.items())} {size}".encode())

    def split(name: str, numbers: np.ndarray) -> Split:
        def read(number: int) -> UInt8[np.ndarray, "h w channels"]:
            record = int(numbers[number])
            with reading(shards[name].holding(record), "a record of an image"):
                return _pixels(sources[name][record]["image"], shape[2], size)

        which = digests.of_bytes(numbers)
        x = FileImages((len(numbers), *shape), read, f"{content} {name} {which}")
        return labelled(x, labels[name][numbers])

    validation = split("train", order[num_train : num_train + num_validation])
    test = split("test", test_order[:num_test])
    return Dataset(
        train=split("train", order[:num_train]),
        validation=validation._replace(x=validation.x[:]),
        test=test._replace(x=test.x[:]),
        class_names=class_names,
    )


def _prepared(path: Path) -> Path:
    """Return the folder of the newest version, which holds regular files only."""
    versions = [info.parent for info in path.glob("*/dataset_info.json")]
    if not versions:
        raise _unprepared(path, "no version of it")
    newest = max(
        versions, key=lambda folder: [int(n) for n in folder.name.split(".") if n.isdecimal()]
    )
    for file in newest.iterdir():
        if not file.is_dir():
            require_regular(file)
    return newest


def _unprepared(path: Path, got: str) -> DataFileError:
    home = Path.home() / "tensorflow_datasets"
    data_dir = home if path.is_relative_to(home) else path.parent
    name = path.relative_to(data_dir)  # with its config, as imagenet_resized/64x64
    command = PREPARE.format(name=name, data_dir=data_dir)
    return DataFileError(
        f"{path}: expected a data set of tfds in array_record files, got {got}; prepare it once, "
        f"in an environment of its own: {command}"
    )


def _belongs(file: Path) -> bool:
    return file.is_file() and file.name != manifest.NAME and not file.name.startswith(".")


def _builder(path: Path, folder: Path) -> Any:
    """Return the builder with which tfds reads a prepared data set."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise DataFileError(
            f"{path}: expected the package tensorflow-datasets, got none: {INSTALL}"
        ) from None
    with reading(f"{folder}", "a data set of tfds"):
        builder = tfds.builder_from_directory(folder)
        if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
            raise _unprepared(path, f"files of {builder.info.file_format}")
        return builder


def _labelling(
    folder: Path, features: Any, attributes: tuple[str, ...]
) -> tuple[Callable[[Any], int], tuple[str, ...]]:
    """Return the function from a record to its class, and the names of the classes."""
    if not attributes:
        if "label" not in features:
            raise DataFileError(f"{folder}: expected a feature label, got {sorted(features)}")
        return lambda record: int(record["label"]), tuple(features["label"].names)
    known = sorted(features["attributes"]) if "attributes" in features else []
    missing = [name for name in attributes if name not in known]
    if missing:
        raise DataFileError(f"{folder}: expected attributes {missing}, got only {known}")

    def label(record: Any) -> int:
        return sum(bool(record["attributes"][name]) << bit for bit, name in enumerate(attributes))

    bits = itertools.product((False, True), repeat=len(attributes))  # the last one counts most
    names = (
        ", ".join(
            name if has else f"not {name}"
            for name, has in zip(attributes, values[::-1], strict=True)
        )
        for values in bits
    )
    return label, tuple(names)


def _labels(folder: Path, builder: Any, name: str, label: Callable[[Any], int]) -> np.ndarray:
    """Return the labels (n,) of a split, without decoding images."""
    with reading(f"{folder}: {name}", "records of images with labels"):
        if name not in builder.info.splits:
            raise ValueError(f"no split {name}")
        missing = [file for file in builder.info.splits[name].filepaths if not file.exists()]
        if missing:
            raise DataFileError(f"{missing[0]}: expected a shard, got no such file")
        bare = _encoded(builder, name)
        shards = _shards(builder.info.splits[name])

    def read(number: int) -> int:
        with reading(shards.holding(number), "a record of an image with a label"):
            return label(bare[number])

    return np.asarray([read(number) for number in range(len(bare))], np.int32)


class _Shards(NamedTuple):
    """Files of a split, and its number of records up to the end of each file."""

    files: tuple[str, ...]
    ends: tuple[int, ...]

    def holding(self, number: int) -> str:
        """Return the file of a record."""
        return self.files[bisect.bisect_right(self.ends, number)]


def _shards(split: Any) -> _Shards:
    files = tuple(str(file) for file in split.filepaths)
    return _Shards(files, tuple(itertools.accumulate(split.shard_lengths)))


def _encoded(builder: Any, name: str) -> Any:
    """Return the records of a split, whose images are the bytes of PNG or JPEG files."""
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    return builder.as_data_source(split=name, decoders=decoders)


def _shape(folder: Path, declared: Any, size: int) -> tuple[int, int, int]:
    if np.dtype(declared.np_dtype) != np.uint8 or declared.shape[2] not in (1, 3):
        raise DataFileError(
            f"{folder}: expected images of uint8 with 1 or 3 channels, "
            f"got {np.dtype(declared.np_dtype)} {declared.shape}"
        )
    height, width = (size, size) if size else declared.shape[:2]
    if height is None or width is None:
        raise DataFileError(f"{folder}: expected images of one size, or data.size above 0, got 0")
    return height, width, declared.shape[2]


def _pixels(data: bytes, channels: int, size: int) -> np.ndarray:
    image = image_decoder.decoded(data).convert("L" if channels == 1 else "RGB")
    image = fitted(image, size) if size else image
    return np.asarray(image).reshape(image.height, image.width, channels)
