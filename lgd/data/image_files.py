"""Labelled images on disk: one .npz file, or a folder of IDX files (MNIST's format).

Nothing is ever unpickled, and every fault of a file is a `DataFileError`. Checksums of .npz and .gz
files detect a changed byte. Plain IDX files have none: those of known data sets are compared with
pinned sums, other ones only with what a run recorded before (data.json of its workdir).
"""

import contextlib
import gzip
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from lgd.data import unpacking
from lgd.data.faults import DataFileError, all_faults, local, reading, require_regular
from lgd.machinery import digests
from lgd.machinery.words import shown

IDX_UINT8 = b"\x00\x00\x08"  # the magic number but for its last byte, the number of dimensions
IDX_FILES = {
    "x": "train-images-idx3-ubyte",
    "y": "train-labels-idx1-ubyte",
    "xt": "t10k-images-idx3-ubyte",
    "yt": "t10k-labels-idx1-ubyte",
}
_PAIRS = (("x", "y"), ("xt", "yt"))
_MOST_CLASSES = 2**16


class LabelledImages(NamedTuple):
    """Images (n, h, w) or (n, h, w, channels), uint8, and their labels (n,), int32, n >= 1."""

    images: np.ndarray
    labels: np.ndarray


class _Field(NamedTuple):
    """An array of a file: the place that messages name, its header, and how it is read."""

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype
    values: Callable[[], np.ndarray]


class _IdxFile(NamedTuple):
    """The array of an IDX file, and the sha256 of the decompressed file."""

    field: _Field
    sha256: str


class Pin(NamedTuple):
    """A published IDX file: its number of examples, and the sha256 of its decompressed bytes."""

    num_examples: int
    sha256: str


def read(
    path: str | Path,
    *,
    size: tuple[int, int],
    num_classes: int,
    pins: Mapping[str, Pin] = MappingProxyType({}),
) -> tuple[LabelledImages, LabelledImages]:
    """Return training and test images of a file or folder.

    Pins protect a known data set: if a file of the folder is a published one under any name, or has
    as many examples as the published one of its name, or training and test images have each other's
    numbers, then all four must be the files published under their names. Any other folder is taken
    for another data set.

    Args:
      path: a .npz file of arrays x, y (training) and xt, yt (test), images of uint8 and labels of
        any integer dtype, or a folder of IDX files with the names of MNIST
        (train-images-idx3-ubyte, ...), each gzipped (.gz) or not. `unpacking` bounds their sizes.
      size: (h, w) that images must have.
      num_classes: labels must be below it.
      pins: the four published IDX files of a known data set, by the names of their arrays.

    Raises:
      DataFileError: if a file is missing, damaged or does not fit, a line for each fault.
    """
    path = local(path, "a .npz file or a folder of IDX files")
    if os.path.isdir(path):
        return _labelled(_read_folder(path, pins).__getitem__, size, num_classes)
    with _opened_npz(path) as field:
        return _labelled(field, size, num_classes)


def read_npz(path: str | Path) -> tuple[LabelledImages, LabelledImages]:
    """Return training and test images of a .npz file of arrays x, y and xt, yt.

    Images are uint8 (n, h, w) or (n, h, w, channels) with 1 or 3 channels, all of one shape. Labels
    are integers from 0, below 65,536; test has no other ones than training.

    Raises:
      DataFileError: if the file is missing, damaged or does not fit, a line for each fault.
    """
    with _opened_npz(local(path, "a .npz file")) as field:
        return _labelled(field, None, None)


def _labelled(
    field: Callable[[str], _Field], size: tuple[int, ...] | None, num_classes: int | None
) -> tuple[LabelledImages, LabelledImages]:
    """Return the arrays of four fields; headers are checked before images are read.

    Where size or number of classes is None, that of the training arrays is expected of the others.
    """
    labels: dict[str, np.ndarray] = {}
    with all_faults() as noted:
        for x, y in _PAIRS:
            with noted():
                _check_images(field(x), size)
                size = field(x).shape[1:] if size is None else size
            with noted():
                labels[y] = _read_labels(field(y), num_classes or _MOST_CLASSES)
                num_classes = num_classes or int(labels[y].max()) + 1
            with noted():
                _check_counts(field(x), field(y))
    training, testing = (LabelledImages(_values(field(x)), labels[y]) for x, y in _PAIRS)
    return training, testing


def _check_images(images: _Field, size: tuple[int, ...] | None) -> None:
    got, hint = images.shape, ""
    if size is None:
        fits = len(got) in (3, 4) and min(got) > 0 and (*got, 1)[3] in (1, 3)
        wanted = "(n, height, width) or (n, height, width, channels) with 1 or 3 channels"
    else:
        fits = got[1:] == size and got[0] > 0
        wanted = f"({', '.join(map(str, ('n >= 1', *size)))})"
    if not fits and len(got) == 4 and got[1] in (1, 3):
        hint = "; transpose channels to the end by .transpose(0, 2, 3, 1)"
    if images.dtype != np.uint8:
        fits, hint = False, hint + "; scale pixels to 0 to 255, round, and store .astype(np.uint8)"
    if not fits:
        raise DataFileError(
            f"{images.where}: expected images, uint8 {wanted}, got {images.dtype} {got}{hint}"
        )


def _read_labels(labels: _Field, num_classes: int) -> np.ndarray:
    if labels.dtype.kind not in "iu" or len(labels.shape) != 1 or not labels.shape[0]:
        raise DataFileError(
            f"{labels.where}: expected integer labels (n >= 1), got {labels.dtype} {labels.shape}"
        )
    values = _values(labels)
    least, most = int(values.min()), int(values.max())
    if least < 0 or most >= num_classes:
        got = least if least < 0 else most
        raise DataFileError(f"{labels.where}: expected labels in [0, {num_classes}), got {got}")
    return values.astype(np.int32)


def _check_counts(images: _Field, labels: _Field) -> None:
    if images.shape[:1] != labels.shape[:1] and min(images.shape, default=0) and labels.shape:
        raise DataFileError(
            f"{labels.where}: expected {images.shape[0]} labels, one for each image of "
            f"{images.where}, got {labels.shape[0]}"
        )


def _values(field: _Field) -> np.ndarray:
    with reading(field.where, "an array"):
        return field.values()


@contextlib.contextmanager
def _opened_npz(path: Path) -> Iterator[Callable[[str], _Field]]:
    """Open a .npz file, and give the function from the name of an array to its field."""
    with contextlib.ExitStack() as stack:
        with reading(f"{path}", "a .npz file"):
            require_regular(path)
            file = stack.enter_context(path.open("rb"))
            if file.read(4) != b"PK\x03\x04":
                raise ValueError("no zip archive of files")
            archive = stack.enter_context(zipfile.ZipFile(file))
            names = [name.removesuffix(".npy") for name in archive.namelist()]

        def field(key: str) -> _Field:
            where = f"{path}: {key}"
            if key not in names:
                raise DataFileError(f"{where}: expected an array, got only {shown(sorted(names))}")
            with reading(where, "an array"):
                shape, dtype = unpacking.header(archive, key, path.stat().st_size)
            return _Field(where, shape, dtype, lambda: unpacking.values(archive, key))

        yield field


def _read_folder(folder: Path, pins: Mapping[str, Pin]) -> dict[str, _Field]:
    files: dict[str, _IdxFile] = {}
    with all_faults() as noted:
        for key, name in IDX_FILES.items():
            with noted():
                files[key] = _idx_file(folder / name)
    if pins:
        _check_published(files, pins)
    return {key: file.field for key, file in files.items()}


def _idx_file(plain: Path) -> _IdxFile:
    """Read an IDX file: magic number, a big-endian uint32 for each dimension, and the bytes."""
    gzipped = plain.with_name(plain.name + ".gz")
    file = gzipped if gzipped.exists() and not plain.exists() else plain
    num_dims = 3 if "idx3" in plain.name else 1
    magic, start = IDX_UINT8 + bytes([num_dims]), 4 + 4 * num_dims
    with contextlib.ExitStack() as stack:
        with reading(f"{file}", "an IDX file"):
            require_regular(file)
            packed = file.stat().st_size
            stream = stack.enter_context((gzip.open if file == gzipped else open)(file, "rb"))
            head = stream.read(start)
        if head[:4] != magic:
            raise DataFileError(
                f"{file}: magic number: expected {magic.hex()}, got {head[:4].hex() or 'no bytes'}"
            )
        if len(head) < start:
            raise DataFileError(f"{file}: dimensions: expected {start} bytes, got {len(head)}")
        shape = tuple(int(length) for length in np.frombuffer(head, ">u4", num_dims, offset=4))
        declared, got = math.prod(shape), packed - start
        with reading(f"{file}", "an IDX file"):
            if file == gzipped or got == declared:
                unpacking.check_size(declared, packed)
                content = stream.read(declared)
                got = len(content) + len(stream.read(1))  # the end, where checksums are compared
    if got != declared:
        raise DataFileError(
            f"{file}: data: expected {declared} bytes for the shape {shape}, got "
            f"{got if got < declared or file == plain else f'{got} or more'}"
        )
    with reading(f"{file}", "an IDX file"):  # beside a length of 0, others may be too large
        values = np.frombuffer(content, np.uint8).reshape(shape)
    field = _Field(f"{file}", shape, values.dtype, lambda: values)
    return _IdxFile(field, digests.of_parts([head, content]))


def _check_published(files: Mapping[str, _IdxFile], pins: Mapping[str, Pin]) -> None:
    sums = {key: file.sha256 for key, file in files.items()}
    counts = {key: file.field.shape[0] for key, file in files.items()}
    names = {pin.sha256: IDX_FILES[key] for key, pin in pins.items()}
    for key in _bound(sums, counts, pins):
        if sums[key] != pins[key].sha256:
            got = f"those of {names[sums[key]]}" if sums[key] in names else f"{counts[key]} others"
            raise DataFileError(
                f"{files[key].field.where}: data: expected the {pins[key].num_examples} published "
                f"as {IDX_FILES[key]}, of sha256 {pins[key].sha256}, got {got}, of {sums[key]}; "
                "put other images into a .npz file (data npz)"
            )


def _bound(
    sums: Mapping[str, str], counts: Mapping[str, int], pins: Mapping[str, Pin]
) -> list[str]:
    """Return the arrays whose files must be the published ones, by the rule of `read`.

    A published file binds both files of the other pair. Within its pair numbers decide: labels are
    as many as images, and both are bound if they are as many as published.
    """
    published = {pin.sha256 for pin in pins.values()}
    known = {key for key in pins if sums[key] in published}
    exchanged = all(counts[a] == pins[b].num_examples for a, b in (("x", "xt"), ("xt", "x")))
    return [
        key
        for pair in _PAIRS
        for key in pair
        if key in known
        or counts[key] == pins[key].num_examples
        or (known and known.isdisjoint(pair))
        or exchanged
    ]
