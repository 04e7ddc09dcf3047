"""Reader of tensors in files saved by PyTorch, without PyTorch and without unpickling.

It reads two formats: the zip archive of PyTorch 1.6 and later, and the older stream of five pickles
followed by storages, in which the weights of Inception-v3 are published. See `torch_pickle` for the
pickles. Neither the storages that are read nor the tensors are together larger than the file.
"""

import io
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lgd.machinery import files
from lgd.machinery.words import one_line, shown
from lgd.metrics.inception.torch_pickle import View, followed

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the older format
MAX_BYTES = 2**30


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file by name; nothing in the file is executed.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the file, if it is damaged or contains anything but tensors.
    """
    raw = files.read(path, "a PyTorch file", max_bytes=MAX_BYTES)
    try:
        views, storages = (_read_zip if raw.startswith(b"PK\x03\x04") else _read_stream)(raw)
        if sum(_num_bytes(view) for view in views.values()) > len(raw):
            raise ValueError("got tensors that are together larger than the file")
        return {name: _tensor(name, view, storages) for name, view in views.items()}
    except Exception as error:  # parsers fail in many ways on damaged files
        reason = one_line(error) if str(error) else type(error).__name__
        raise ValueError(
            f"{one_line(path, 1000)}: expected tensors saved by PyTorch: {reason}"
        ) from None


def _read_zip(raw: bytes) -> tuple[dict[str, View], dict[str, bytes]]:
    """Read a zip archive: NAME/data.pkl, and NAME/data/KEY for every storage."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        names = archive.namelist()
        programs = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(programs) != 1:
            raise ValueError(f"expected one data.pkl, got {len(programs)}")
        root = programs[0].removesuffix("data.pkl")
        if (order := f"{root}byteorder") in names and _entry(archive, order) != b"little":
            raise ValueError("expected little-endian numbers, got others")
        views = _views(followed(io.BytesIO(_entry(archive, programs[0]))))
        parts = {view.storage.key: f"{root}data/{view.storage.key}" for view in views.values()}
        if sum(archive.getinfo(name).file_size for name in parts.values()) > len(raw):
            raise ValueError("got storages that are together larger than the file")
        return views, {key: _entry(archive, name) for key, name in parts.items()}


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read an entry; PyTorch compresses none, so that no entry is larger than the file."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{one_line(name)}: expected it as it is, got it compressed")
    return archive.read(name)


def _read_stream(raw: bytes) -> tuple[dict[str, View], dict[str, bytes]]:
    """Read the older format: five pickles, then size and bytes of every storage.

    The pickles are magic number, version, system, tensors and keys of the storages.
    """
    stream = io.BytesIO(raw)
    magic, version, system = (followed(stream) for _ in range(3))
    if type(magic) is not int or type(version) is not int or (magic, version) != (MAGIC, PROTOCOL):
        raise ValueError("expected PyTorch's magic number and version, got others")
    if system["little_endian"] is not True:
        raise ValueError("expected little-endian numbers, got big-endian ones")
    views = _views(followed(stream))
    sizes = {view.storage.key: view.storage for view in views.values()}
    storages = {}
    for key in followed(stream):
        (count,) = struct.unpack("<q", stream.read(8))
        if key not in sizes or not 0 <= count == sizes[key].size:
            raise ValueError(f"expected the storages of the tensors, got {key} of {count}")
        storages[key] = stream.read(count * sizes[key].dtype.itemsize)
    return views, storages


def _views(content: Any) -> dict[str, View]:
    if not isinstance(content, dict) or not content:
        raise ValueError(f"expected a dictionary of tensors, got {type(content).__name__}")
    for name, view in content.items():
        if not isinstance(view, View):
            raise ValueError(f"{one_line(name)}: expected a tensor, got {type(view).__name__}")
    return content


def _num_bytes(view: View) -> int:
    return math.prod(view.shape, start=view.storage.dtype.itemsize)


def _tensor(name: str, view: View, storages: dict[str, bytes]) -> np.ndarray:
    """Return a copy of a part of a storage, in C order."""
    storage = view.storage
    if len(storages[storage.key]) != storage.size * storage.dtype.itemsize:
        raise ValueError(f"{one_line(name)}: expected {storage.size} numbers, got another length")
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    count = math.prod(view.shape)
    if count > storage.size or (count and last >= storage.size):
        raise ValueError(
            f"{one_line(name)}: expected a part of {storage.size} numbers, got {shown(view[1:])}"
        )
    values = np.frombuffer(storages[storage.key], storage.dtype)
    if not count:
        return np.zeros(view.shape, storage.dtype)
    strides = [stride * storage.dtype.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(
        values[view.offset :], view.shape, strides, writeable=False
    ).copy(order="C")
