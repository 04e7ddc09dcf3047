"""Labelled images on disk: one .npz file, or a folder of IDX files (MNIST's format).

Nothing is ever unpickled. Whatever is wrong with a file is a `DataFileError`. A changed byte is
found by the checksums of .npz and .gz files; plain IDX files have none, so those of known data sets
are compared with pinned sums, and one's own only with what a run has seen of them before (data.json
of its workdir).
"""

import contextlib
import gzip
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from lgd.data.dataset import Dataset, Split, labelled, scaled
from lgd.machinery import digests

IDX_UINT8 = b"\x00\x00\x08"  # the magic number but for its last byte, the number of dimensions
IDX_FILES = {
    "x": "train-images-idx3-ubyte",
    "y": "train-labels-idx1-ubyte",
    "xt": "t10k-images-idx3-ubyte",
    "yt": "t10k-labels-idx1-ubyte",
}


class DataFileError(ValueError):
    """A file that cannot be read or does not fit: "file: field: expected ..., got ..."."""


class LabelledImages(NamedTuple):
    """Images (n, h, w) or (n, h, w, channels) and their labels (n,), both uint8, n >= 1."""

    images: np.ndarray
    labels: np.ndarray


class _Field(NamedTuple):
    """An array, and where it was found."""

    where: str
    values: np.ndarray


class _IdxFile(NamedTuple):
    """The array of an IDX file, and its bytes, unzipped."""

    field: _Field
    content: bytes


class Pin(NamedTuple):
    """A published IDX file of a known data set: its number of examples, and sha256 unzipped."""

    num_examples: int
    sha256: str


def read(
    path: str | Path,
    *,
    size: tuple[int, int],
    num_classes: int,
    pins: Mapping[str, Pin] = MappingProxyType({}),
) -> tuple[LabelledImages, LabelledImages]:
    """Training and test images of this size, with labels in [0, num_classes).

    path: a .npz file of uint8 arrays x, y (training) and xt, yt (test), or a folder of the IDX
    files that MNIST has (train-images-idx3-ubyte, ...), each gzipped (.gz) or not. Raises
    DataFileError.

    pins: of the four IDX files of a known set, by the names of their arrays. As soon as a file of
    the folder is a published one under any name, or has as many examples as the published one of
    its name, or training and test images have each other's numbers, each of the four has to be the
    one published under its name; any other folder is a set of one's own.
    """
    fields = _read_folder(Path(path), pins) if os.path.isdir(path) else _read_npz(Path(path))
    for name in ("x", "xt"):
        _check(fields[name], (None, *size))
    for name in ("y", "yt"):
        _check(fields[name], (None,))
    return (
        _labelled(fields["x"], fields["y"], num_classes),
        _labelled(fields["xt"], fields["yt"], num_classes),
    )


def read_npz(path: str | Path) -> tuple[LabelledImages, LabelledImages]:
    """Training and test images of a .npz file: uint8 arrays x, y and xt, yt.

    Images are (n, h, w) or (n, h, w, channels), all of one shape. Raises DataFileError.
    """
    fields = _read_npz(Path(path))
    shape = fields["x"].values.shape[1:]
    if len(shape) not in (2, 3) or 0 in shape:
        raise DataFileError(
            f"{fields['x'].where}: expected images (n, h, w) or (n, h, w, channels), "
            f"got {fields['x'].values.shape}"
        )
    for name in ("x", "xt"):
        _check(fields[name], (None, *shape))
    for name in ("y", "yt"):
        _check(fields[name], (None,))
    training = _labelled(fields["x"], fields["y"], 256)
    num_classes = int(training.labels.max()) + 1
    return training, _labelled(fields["xt"], fields["yt"], num_classes)


def dataset(
    path: str | Path,
    training: LabelledImages,
    testing: LabelledImages,
    sizes: tuple[int, int, int],
    class_names: tuple[str, ...],
    *,
    seed: int,
) -> Dataset:
    """Images (n, h, w, channels) in [-1, 1]: three splits of these sizes, shuffled by seed.

    Train and validation are disjoint parts of the training images, test is part of the test images.
    Raises DataFileError where a file has too few, ValueError for sizes below 1.
    """
    num_train, num_validation, num_test = sizes
    order, test_order = split_orders(path, len(training.labels), len(testing.labels), sizes, seed)
    return Dataset(
        train=_split(training, order[:num_train]),
        validation=_split(training, order[num_train : num_train + num_validation]),
        test=_split(testing, test_order[:num_test]),
        class_names=class_names,
    )


def split_orders(
    path: str | Path, num_training: int, num_testing: int, sizes: tuple[int, int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Orders in which training and test images are taken; both have enough of them."""
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


def _labelled(images: _Field, labels: _Field, num_classes: int) -> LabelledImages:
    if len(labels.values) != len(images.values):
        raise DataFileError(
            f"{labels.where}: expected {len(images.values)} labels, one for each image of "
            f"{images.where}, got {len(labels.values)}"
        )
    if labels.values.max() >= num_classes:
        raise DataFileError(
            f"{labels.where}: expected labels in [0, {num_classes}), got {labels.values.max()}"
        )
    return LabelledImages(images.values, labels.values)


def _check(field: _Field, shape: tuple[int | None, ...]) -> None:
    """None stands for any length above 0."""
    got = field.values.shape
    fits = len(got) == len(shape) and all(
        length == wanted if wanted is not None else length > 0
        for length, wanted in zip(got, shape, strict=True)
    )
    if field.values.dtype != np.uint8 or not fits:
        wanted = ", ".join("n >= 1" if length is None else str(length) for length in shape)
        raise DataFileError(
            f"{field.where}: expected uint8 ({wanted}), got {field.values.dtype} {got}"
        )


def _read_npz(path: Path) -> dict[str, _Field]:
    with contextlib.ExitStack() as stack:
        with reading(f"{path}", "a .npz file"):
            file = stack.enter_context(path.open("rb"))
            if file.read(4) != b"PK\x03\x04":
                raise ValueError("no zip archive of files")
            file.seek(0)
            archive = stack.enter_context(np.load(file, allow_pickle=False))
        return {key: _npz_field(path, archive, key) for key in IDX_FILES}


def _npz_field(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> _Field:
    where = f"{path}: {key}"
    if key not in archive.files:
        raise DataFileError(f"{where}: expected an array, got only {sorted(archive.files)}")
    with reading(where, "an array"):
        values = archive[key]
        if not isinstance(values, np.ndarray):
            raise ValueError("no .npy header")
    return _Field(where, values)


def _read_folder(folder: Path, pins: Mapping[str, Pin]) -> dict[str, _Field]:
    files = {key: _idx_file(folder / name) for key, name in IDX_FILES.items()}
    if pins:
        _check_published(files, pins)
    return {key: file.field for key, file in files.items()}


def _idx_file(plain: Path) -> _IdxFile:
    """An IDX file: magic number, one uint32 (big-endian) a dimension, and the bytes."""
    gzipped = plain.with_name(plain.name + ".gz")
    file = gzipped if gzipped.exists() and not plain.exists() else plain
    with reading(f"{file}", "an IDX file"):
        content = file.read_bytes() if file == plain else gzip.decompress(file.read_bytes())
    num_dims = 3 if "idx3" in plain.name else 1
    magic = IDX_UINT8 + bytes([num_dims])
    if content[:4] != magic:
        raise DataFileError(
            f"{file}: magic number: expected {magic.hex()}, got {content[:4].hex() or 'no bytes'}"
        )
    start = 4 + 4 * num_dims
    if len(content) < start:
        raise DataFileError(f"{file}: dimensions: expected {start} bytes, got {len(content)}")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", num_dims, offset=4))
    if len(content) - start != math.prod(shape):
        raise DataFileError(
            f"{file}: data: expected {math.prod(shape)} bytes for the shape {shape}, "
            f"got {len(content) - start}"
        )
    with reading(f"{file}", "an IDX file"):  # beside a length of 0, others may be too large
        values = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    return _IdxFile(_Field(f"{file}", values), content)


def _check_published(files: Mapping[str, _IdxFile], pins: Mapping[str, Pin]) -> None:
    sums = {key: digests.of_bytes(file.content) for key, file in files.items()}
    counts = {key: len(file.field.values) for key, file in files.items()}
    names = {pin.sha256: IDX_FILES[key] for key, pin in pins.items()}
    for key in _bound(sums, counts, pins):
        if sums[key] != pins[key].sha256:
            got = f"those of {names[sums[key]]}" if sums[key] in names else f"{counts[key]} others"
            raise DataFileError(
                f"{files[key].field.where}: data: expected the {pins[key].num_examples} published "
                f"as {IDX_FILES[key]}, of sha256 {pins[key].sha256}, got {got}, of {sums[key]}; "
                "images of one's own go into a .npz file (data npz)"
            )


def _bound(
    sums: Mapping[str, str], counts: Mapping[str, int], pins: Mapping[str, Pin]
) -> list[str]:
    """The arrays whose files have to be those published, by the rule of `read`.

    A published file binds the other pair. In its own pair numbers tell: there are as many labels as
    images, and as many as published are bound.
    """
    published = {pin.sha256 for pin in pins.values()}
    known = {key for key in pins if sums[key] in published}
    exchanged = all(counts[a] == pins[b].num_examples for a, b in (("x", "xt"), ("xt", "x")))
    return [
        key
        for pair in (("x", "y"), ("xt", "yt"))
        for key in pair
        if key in known
        or counts[key] == pins[key].num_examples
        or (known and known.isdisjoint(pair))
        or exchanged
    ]


@contextlib.contextmanager
def reading(where: str, expected: str) -> Iterator[None]:
    """Turns any failure into a DataFileError: parsers fail in many ways on damaged files."""
    try:
        yield
    except DataFileError:
        raise
    except FileNotFoundError:
        raise DataFileError(f"{where}: expected {expected}, got no such file") from None
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataFileError(
            f"{where}: expected {expected}, got one that cannot be read ({reason})"
        ) from None
