"""Arrays of .npz archives, and bounds on what compressed files may unpack to.

A file of some megabytes can unpack to gigabytes. Sizes are therefore taken from headers and bounded
before anything is unpacked: at most 128 MiB from a file of up to 16 MiB, and 200 times its size, up
to 32 GiB, from a larger one. Images of shapes on black pack by about 100, photographs by less than
2.
"""

import math
import zipfile
from typing import NamedTuple

import numpy as np

SMALL, LARGEST_OF_SMALL = 2**24, 2**27  # bytes of a file, and of all that it unpacks to
RATIO, LARGEST = 200, 2**35  # of a larger file: unpacked bytes for each of its own, and in all
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that NumPy writes


class Header(NamedTuple):
    """Shape and dtype that a .npy member declares."""

    shape: tuple[int, ...]
    dtype: np.dtype


def check_size(unpacked: int, packed: int) -> None:
    """Raise ValueError if a file unpacks to more bytes than the bounds of this module allow."""
    limit = LARGEST_OF_SMALL if packed <= SMALL else min(LARGEST, RATIO * packed)
    if unpacked > max(limit, packed):
        raise ValueError(
            f"expected at most {limit} bytes unpacked from {packed}, got {unpacked}; "
            "store it without compression if it is no mistake"
        )


def header(archive: zipfile.ZipFile, name: str, file_size: int) -> Header:
    """Return the header of a .npy member of an archive, without its values.

    Args:
      archive: an open archive.
      name: of the member, without ``.npy``.
      file_size: bytes of the archive.

    Raises:
      ValueError: for Python objects, which are never unpickled, for members that are too large
        together, or one that has more or fewer bytes than its header declares.
    """
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in _METHODS:
        raise ValueError(f"expected a stored or deflated member, got method {info.compress_type}")
    check_size(sum(member.file_size for member in archive.infolist()), file_size)
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):  # others have headers beyond 64 KiB, of many fields
            raise ValueError(f"expected .npy version 1.0, got {version}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        start = member.tell()
    if dtype.hasobject:
        raise ValueError("expected numbers, got Python objects, which are never unpickled")
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared != info.file_size - start:
        raise ValueError(
            f"expected {declared} bytes for {dtype} {shape}, got {info.file_size - start}"
        )
    return Header(shape, dtype)


def values(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return the array of a member whose header `header` has accepted."""
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)
