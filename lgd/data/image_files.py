"""Labelled images on disk: one .npz file, or a folder of IDX files (MNIST's format).

Nothing is ever unpickled, and every fault of a file is a `DataFileError`. Checksums of .npz and .gz
files detect a changed byte. Plain IDX files have none: those of known data sets are compared with
pinned sums, other ones only with what a run recorded before (data.json of its workdir).
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

from lgd.machinery import digests

IDX_UINT8 = b"\x00\x00\x08"  # the magic number but for its last byte, the number of dimensions
IDX_FILES = {
    "x": "train-images-idx3-ubyte",
    "y": "train-labels-idx1-ubyte",
    "xt": "t10k-images-idx3-ubyte",
    "yt": "t10k-labels-idx1-ubyte",
}


class DataFileError(ValueError):
    """A file cannot be read or does not fit: "file: field: expected ..., got ..."."""


class LabelledImages(NamedTuple):
    """Images (n, h, w) or (n, h, w, channels) and their labels (n,), both uint8, n >= 1."""

    images: np.ndarray
    labels: np.ndarray


class _Field(NamedTuple):
    """An array of a file, and the place that messages name."""

    where: str
    values: np.ndarray


class _IdxFile(NamedTuple):
    """The array of an IDX file, and the bytes of the file, decompressed."""

    field: _Field
    content: bytes


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
      path: a .npz file of uint8 arrays x, y (training) and xt, yt (test), or a folder of IDX files
        with the names of MNIST (train-images-idx3-ubyte, ...), each gzipped (.gz) or not.
      size: (h, w) that images must have.
      num_classes: labels must be below it.
      pins: the four published IDX files of a known data set, by the names of their arrays.

    Raises:
      DataFileError: if a file is missing, damaged or does not fit.
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
    """Return training and test images of a .npz file of uint8 arrays x, y and xt, yt.

    Images are (n, h, w) or (n, h, w, channels), all of one shape.

    Raises:
      DataFileError: if the file is missing, damaged or does not fit.
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
    """Raise DataFileError unless a field is uint8 of this shape; None is any length above 0."""
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
            require_regular(path)
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
    """Read an IDX file: magic number, a big-endian uint32 for each dimension, and the bytes."""
    gzipped = plain.with_name(plain.name + ".gz")
    file = gzipped if gzipped.exists() and not plain.exists() else plain
    with reading(f"{file}", "an IDX file"):
        require_regular(file)
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
        for pair in (("x", "y"), ("xt", "yt"))
        for key in pair
        if key in known
        or counts[key] == pins[key].num_examples
        or (known and known.isdisjoint(pair))
        or exchanged
    ]


def require_regular(file: Path) -> None:
    """Raise DataFileError for a FIFO, device or folder, which may never end when it is read."""
    if file.exists() and not file.is_file():
        raise DataFileError(f"{file}: expected a regular file, got another")


@contextlib.contextmanager
def reading(where: str, expected: str) -> Iterator[None]:
    """Turn any exception into a DataFileError, because parsers fail in many ways on damaged files.

    Args:
      where: file, or file and field, at the beginning of the message.
      expected: what the file should be, for the message.
    """
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
