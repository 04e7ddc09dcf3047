"""Files of some megabytes that unpack to gigabytes, refused by their headers in little memory."""

import contextlib
import gzip
import io
import resource
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from lgd.data import image_files, npz
from lgd.data.image_files import IDX_FILES, DataFileError

BLOCK = 2**24
IMAGES = {"y": np.zeros(5, np.int64), "xt": np.zeros((5, 8, 8), np.uint8), "yt": np.zeros(5, int)}


def npy_header(shape, dtype="|u1"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"shape": shape, "fortran_order": False, "descr": dtype}
    )
    return file.getvalue()


def archive(path, head, zeros):
    """A .npz whose array x is a header and zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in IMAGES.items():
            with file.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
        with file.open("x.npy", "w") as member:
            member.write(head)
            member.write(bytes(zeros))
    return path


def zeros_gz(head, blocks):
    """A gzip file that unpacks to a head and so many times 16 MiB, joined from members."""
    return gzip.compress(head) + gzip.compress(bytes(BLOCK), 9) * blocks


@contextlib.contextmanager
def refused_at_once(*words):
    """Less than a second of CPU time and 64 MiB, and all words in the message."""
    tracemalloc.start()
    before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with pytest.raises(DataFileError) as refusal:
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - before[0] < 1.0
    assert peak < 2**26
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[1] < 2**18  # KiB
    missing = [word for word in words if word not in str(refusal.value)]
    assert not missing, str(refusal.value)


LARGE = 192  # blocks of 16 MiB: 3 GiB


def gigabytes(path, level):
    """A .npz whose array x is 3 GiB of zeros."""
    head = npy_header((LARGE * BLOCK // 64, 8, 8))
    packer = zlib.compressobj(level, wbits=-15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    archive(path, head, 0)
    with zipfile.ZipFile(path) as file:
        others = {name: file.read(name) for name in file.namelist() if name != "x.npy"}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in others.items():
            file.writestr(name, data)
        file.writestr("x.npy", start + block * LARGE + packer.flush())
        local = file.getinfo("x.npy").header_offset
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    for method, size in ((local + 8, local + 22), (entry + 10, entry + 24)):
        content[method : method + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        content[size : size + 4] = struct.pack("<I", len(head) + LARGE * BLOCK)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("level", "size"), [(9, 4e6), (1, 15e6)])
def test_a_npz_that_unpacks_gigabytes_is_refused_by_its_headers(tmp_path, level, size):
    path = gigabytes(tmp_path / "a.npz", level)
    assert path.stat().st_size < size
    with refused_at_once("a.npz: x: expected an array", "bytes unpacked from", "got 32212"):
        npz.load(path, 1, 1, 1)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (npy_header((5, 8, 8)), "expected 320 bytes for uint8 (5, 8, 8), got 33554432"),
        (npy_header((2**40, 8, 8)), "expected 70368744177664 bytes for uint8"),
        (npy_header((-5, -8, 8)), "expected 320 bytes"),
        (npy_header((0, 8, 8)), "expected 0 bytes"),
        (npy_header((2**22, 8), "|O"), "never unpickled"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**25 - 64), "version 1.0, got (2, 0)"),
    ],
)
def test_a_member_of_another_size_than_its_header_says_is_refused(tmp_path, head, words):
    path = archive(tmp_path / "a.npz", head, 2 * BLOCK)
    with refused_at_once(words):
        npz.load(path, 1, 1, 1)


@pytest.mark.parametrize("field", ["size of the member", "size of its packing"])
def test_sizes_that_an_archive_lies_about_bound_what_is_unpacked(tmp_path, field):
    """The central directory says 384 bytes; or that 30 MiB are packed in as many."""
    path = archive(tmp_path / "a.npz", npy_header((5, 8, 8)), 2 * BLOCK)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    offset, lie = (24, 128 + 320) if field == "size of the member" else (20, 2**30)
    content[entry + offset : entry + offset + 4] = struct.pack("<I", lie)
    path.write_bytes(content)
    with refused_at_once("a.npz: x: expected an array"):
        npz.load(path, 1, 1, 1)


def test_members_are_stored_or_deflated(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as file:
        for name in ("x", "y", "xt", "yt"):
            file.writestr(f"{name}.npy", npy_header((4, 8, 8)) + bytes(256))
    with refused_at_once("expected a stored or deflated member, got method 12"):
        npz.load(tmp_path / "a.npz", 1, 1, 1)


def idx(folder, head, blocks):
    (folder / f"{IDX_FILES['x']}.gz").write_bytes(zeros_gz(head, blocks))
    return folder


HEAD = bytes([0, 0, 8, 3])


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "magic number: expected 00000803, got 00000000"),
        (HEAD + struct.pack(">3I", 256, 4096, 4096), "bytes unpacked from"),
        (HEAD + struct.pack(">3I", 5, 28, 28), "expected 3920 bytes for the shape (5, 28, 28)"),
        (HEAD + b"\xff" * 12, "bytes unpacked from"),
    ],
)
def test_a_gzip_file_of_4_gib_is_refused_by_its_header(tmp_path, head, words):
    path = idx(tmp_path, head, 256)
    with refused_at_once("train-images-idx3-ubyte.gz: ", words):
        image_files.read(path, size=(28, 28), num_classes=10)


def test_a_sparse_file_is_refused_by_its_header(tmp_path):
    with open(tmp_path / IDX_FILES["x"], "wb") as file:
        file.write(HEAD + struct.pack(">3I", 5, 28, 28))
        file.truncate(2**40)
    with refused_at_once("expected 3920 bytes for the shape (5, 28, 28)"):
        image_files.read(tmp_path, size=(28, 28), num_classes=10)


def test_black_images_are_read(tmp_path):
    """Packed by more than 200, but small."""
    values = {"x": np.zeros((2000, 32, 32), np.uint8), "y": np.arange(2000) % 2}
    np.savez_compressed(tmp_path / "a.npz", **values, xt=values["x"], yt=values["y"])
    assert (tmp_path / "a.npz").stat().st_size * 200 < values["x"].nbytes * 2
    assert (npz.load(tmp_path / "a.npz", 9, 9, 9).train.x == -1.0).all()
