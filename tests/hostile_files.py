"""Files of at most 16 MB that would take gigabytes or minutes if nothing bounded what they ask for.

Each case is a part for one of `readers.READERS`, made when it is needed.
"""

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image
from readers import READERS, part_of
from torch_files import tensor_program, unicode

LARGEST = 16 * 10**6
SIZE = LARGEST - 10**4  # of a part, with room for what is around it
Case = tuple[str, Callable[[], bytes]]  # the name of a reader, and the part


def many(unit: bytes, size: int = SIZE, *, inside: bytes = b"[]") -> bytes:
    """A list of as many equal values as fit."""
    count = (size - 2) // (len(unit) + 1)
    return inside[:1] + b",".join([unit] * count) + inside[1:]


def numbered(form: bytes, size: int = SIZE, *, inside: bytes = b"{}") -> bytes:
    """Values, or names with values, with a number in each."""
    count = size // (len(form) + 7)
    return inside[:1] + b",".join(form % k for k in range(count)) + inside[1:]


JSON = {
    "empty lists": lambda size: many(b"[]", size),
    "objects": lambda size: many(b'{"a":{}}', size),
    "names": lambda size: numbered(b'"%x":0', size),
    "lists by name": lambda size: numbered(b'"%x":[1,""]', size),
    "depth": lambda size: b"[" * size,
    "digits": lambda size: b"9" * size,
}
JSON_OF_ONE = {
    "depth of objects": lambda size: b'{"":' * (size // 4),
    "exponent": lambda size: b"1e" + b"9" * (size - 2),
    "numbers of many digits": lambda size: many(b"9" * 4000, size),
    "quotes": lambda size: b'"' + b'\\"' * (size // 2 - 1),
}


def _json() -> Iterator[tuple[str, Case]]:
    for name, reader in READERS.items():
        size = 8 * 2**20 - 100 if name.endswith(("header", "of a shard")) else SIZE
        size = 4 * 2**20 - 1000 if name.endswith("description") else size  # quotes take two bytes
        cases = JSON | JSON_OF_ONE if name == "schedules" else JSON if reader.is_json else {}
        for case, make in cases.items():
            yield f"{name}: {case}", (name, lambda make=make, size=size: make(size))


# Data


def _zeros(**shapes: tuple[int, ...]) -> Callable[[], bytes]:
    def make() -> bytes:
        out = io.BytesIO()
        arrays = {name: np.zeros(shape, np.uint8) for name, shape in shapes.items()}
        np.savez_compressed(out, **arrays)
        return out.getvalue()

    return make


def _entries() -> bytes:
    """As many entries as fit, all of one place."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x.npy", b"")
    raw = out.getvalue()
    start = raw.index(b"PK\x01\x02")
    entry = bytearray(raw[start : start + 46])
    entry[28:30] = struct.pack("<H", 1)
    count = (SIZE - 1000) // 47
    entries = b"".join(bytes(entry) + bytes([97 + k % 26]) for k in range(count))
    counts = (count & 0xFFFF,) * 2
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *counts, len(entries), start, 0)
    return raw[:start] + entries + end


def _literal(text: str) -> Callable[[], bytes]:
    return lambda: text.encode()


def _members(filler: bytes) -> bytes:
    """A gzip file of a head and many members of nothing."""
    head = gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 5, 4, 4))
    return head + filler * ((SIZE - len(head)) // len(filler))


def _long_name() -> bytes:
    head = gzip.compress(part_of(READERS["idx"]), mtime=0)
    return head[:3] + b"\x08" + head[4:10] + b"a" * (SIZE - 1000) + b"\0" + head[10:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(
    before: bytes = b"", *, mode: int = 2, bits: int = 8, side: int = 16, woven: int = 0
) -> bytes:
    channels = {2: 3, 6: 4}[mode]
    rows = bytes((side * channels * bits // 8 + 1) * side + 8 * side)
    head = _chunk(b"IHDR", struct.pack(">2I5B", side, side, bits, mode, 0, 0, woven))
    data = before + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + data


def _packed(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def _jpeg(count: int) -> bytes:
    """A progressive file of 16 million pixels whose last scan comes as often again."""
    out = io.BytesIO()
    Image.new("RGB", (4096, 4096)).save(out, "JPEG", progressive=True, subsampling=0)
    raw = out.getvalue()
    return raw[:-2] + raw[raw.rindex(b"\xff\xda") : -2] * count + raw[-2:]


def _jpeg_behind(segments: bytes) -> bytes:
    raw = part_of(READERS["jpeg"])
    return raw[:2] + segments + raw[2:]


FILLED = _chunk(b"tEXt", b"a\0b")
DATA: dict[str, Case] = {
    "npz: four arrays of zeros": (
        "npz", _zeros(x=(300_000, 28, 28), y=(10**8,), xt=(300_000, 28, 28), yt=(10**8,))),
    "npz: an array of zeros": ("npz", _zeros(x=(4000, 28, 28), y=(4000,), xt=(5, 28, 28), yt=(5,))),
    "npz: images of one pixel": ("npz", _zeros(
        x=(60 * 10**6, 1, 1), y=(60 * 10**6,), xt=(1, 1, 1), yt=(1,))),
    "npz: entries": ("npz", _entries),
    "npz: brackets": ("npz, header", _literal("(" * 9000)),
    "npz: signs": ("npz, header", _literal("-" * 60_000 + "1")),
    "npz: fields": ("npz, header", _literal(
        "{'descr': [" + ",".join(f"('{k}', '|u1')" for k in range(3000)) + "], "
        "'fortran_order': False, 'shape': (5, 4, 4)}")),
    "npz: a field in a field": ("npz, header", _literal(
        "{'descr': " + "[('a', " * 500 + "'|u1'" + ")]" * 500
        + ", 'fortran_order': False, 'shape': (5, 4, 4)}")),
    "npz: no bytes of many": ("npz, header", _literal(
        "{'descr': '|V0', 'fortran_order': False, 'shape': (4611686018427387904,)}")),
    "idx: members": ("idx.gz", lambda: _members(gzip.compress(b"", mtime=0))),
    "idx: members of zeros": ("idx.gz", lambda: _members(gzip.compress(bytes(2**24), 9, mtime=0))),
    "idx: a long name": ("idx.gz", _long_name),
    "idx: dimensions": ("idx", lambda: bytes([0, 0, 8, 3]) + b"\xff" * 12),
    "png: pixels": ("png", lambda: _png(side=4096, mode=6, bits=16, woven=1)),
    "png: chunks": ("png", lambda: _png(_chunk(b"abCd", b"") * (SIZE // 12 - 100))),
    "png: texts": ("png", lambda: _png(FILLED * (SIZE // len(FILLED) - 100))),
    "png: packed texts": ("png", lambda: _png(
        b"".join(_chunk(b"zTXt", b"%d\0\0" % k + _packed(2**20 - 1)) for k in range(12_000)))),
    "png: a packed profile": ("png", lambda: _png(
        _chunk(b"iCCP", b"a\0\0" + _packed(10**9)) * 10)),
    "jpeg: scans": ("jpeg", lambda: _jpeg(400_000)),
    "jpeg: scans that are allowed": ("jpeg", lambda: _jpeg(85)),
    "jpeg: fill": ("jpeg", lambda: _jpeg_behind(b"\xff" * (SIZE - 1000))),
    "jpeg: comments": ("jpeg", lambda: _jpeg_behind(b"\xff\xfe\0\2" * (SIZE // 4 - 500))),
    "jpeg: EXIF": ("jpeg", lambda: _jpeg_behind(
        (b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527)) * 240)),
    "classes.txt: names": ("classes.txt", lambda: numbered(b"%x\n", inside=b"\n\n")),
    "classes.txt: a name": ("classes.txt", lambda: b"9" * SIZE),
    "classes.txt: lines": ("classes.txt", lambda: b"a\n" * (SIZE // 2)),
    "captions: lines": ("captions", lambda: _lines(b'{"file_name": "%x.png", "text": ""}\n')),
    "captions: line breaks": ("captions", lambda: b"\n" * SIZE),
    "captions: a line": ("captions", lambda: b'{"file_name": "' + b"a" * (SIZE - 100)),
    "captions: a text": ("captions", lambda: (
        b'{"file_name": "0/0.png", "text": "' + b"a" * (SIZE - 100) + b'"}')),
}  # fmt: skip

# Guidance and schedules


def _of(kind: str, **fields: Any) -> dict[str, Any]:
    return {"class": kind, "fields": fields}


def _description(**changes: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        return json.dumps(json.loads(part_of(READERS["guidance, description"])) | changes).encode()

    return make


HUGE = 10**18
NETWORK = _of(
    "Network",
    schedule=_of("Cosine"),
    encoder=_of("Labels", num_classes=HUGE),
    width=HUGE,
    depth=HUGE,
)
TIMES = {"tuple": [1.0 - k * 1e-7 for k in range(300_000)]}
LEVELS = {"tuple": [1.0 - k * 1e-6 for k in range(300_000)]}
TENSORS = {f"{k}": _of("TensorName", name="params/Dense_0/kernel") for k in range(60_000)}
GUIDANCE = {
    "a large network": _description(model=NETWORK),
    "many steps": _description(model=_of("StepTable", times=TIMES)),
    "many rows": _description(
        model=_of("StepTable", times={"tuple": [1.0, 0.0]}, rows=_of("ByLabel", num_labels=HUGE))
    ),
    "many levels": _description(schedule=_of("Discrete", alphas_cumprod=LEVELS)),
    "arrays many times": _description(params={"dict": TENSORS}),
    "a long history": _description(history={"dict": {"a": [[[0] * 100] * 100] * 200}}),
    "a number as text": _description(history={"dict": {"a": {"float": "9" * 10**6}}}),
    "a long start": _description(start="a" * 7 * 10**6),
}


def _schedules(entries: Callable[[], list[dict[str, Any]]]) -> Callable[[], bytes]:
    return lambda: json.dumps(entries()).encode()


TABLE = {"kind": "table", "times": [1, 0.5, 0], "values": [1, 2]}
LONG = [1 - k / 10**6 for k in range(500_000)]
SCHEDULES = {
    "many": lambda: [{"name": f"{k}", "kind": "constant", "w": 1} for k in range(10_000)],
    "many tables": lambda: [{"name": f"{k}", **TABLE} for k in range(10_000)],
    "a long table": lambda: [{"name": "a", **TABLE, "times": LONG, "values": LONG[1:]}],
    "rows": lambda: [{"name": "a", **TABLE, "times": [1, 0], "values": [[1]] * 2_500_000}],
    "fields": lambda: [{"name": "a", "kind": "constant"} | dict.fromkeys(map(str, range(10**6)))],
    "mistakes": lambda: [{"name": f"{k}", "kind": "x" * 1500} for k in range(10_000)],
    "strata": lambda: [
        {"name": "a", "kind": "limited_interval_per_class", "w": [1] * 10**6, "lo": [0.1] * 10**6,
         "hi": [0.5] * 10**6}],
    "files": lambda: [
        {"name": f"{k}", "kind": "guidance", "file": "./" * (k % 500) + "/dev/zero"}
        for k in range(10_000)],
}  # fmt: skip

# Arrays, sealed files and files of PyTorch


def _tensors(form: bytes, count: int) -> bytes:
    return b"{" + b",".join(form % ((k,) * form.count(b"%")) for k in range(count)) + b"}"


EMPTY = b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
HEADERS = {
    "names of arrays": lambda: _tensors(EMPTY, 130_000),
    "dimensions": lambda: (
        b'{"a":{"dtype":"F32","shape":[0' + b",281474976710655" * 30 + b'],"data_offsets":[0,0]}}'
    ),
    "a name": lambda: _tensors(EMPTY.replace(b"%x", b"a/" * 4 * 10**6), 1),
    "texts": lambda: b'{"__metadata__":' + numbered(b'"%x":""', 8 * 10**6) + b"}",
}  # fmt: skip


def _lines(form: bytes) -> bytes:
    return b"".join(form % k for k in range(SIZE // (len(form) + 7)))


def _pickles() -> Iterator[tuple[str, Case]]:
    one = tensor_program("0", np.zeros(10, np.float32), False)
    programs = {
        "lists": lambda: b"\x80\x02" + b"]" * SIZE,
        "tuples": lambda: b"\x80\x02)" + b"\x85" * SIZE,
        "numbers in tuples": lambda: b"\x80\x02" + b"K\x01" * 10**5 + b"K\x01\x85" * 10**4,
        "long texts": lambda: b"\x80\x02" + unicode("a " * (SIZE // 2 - 50)) + b".",
        "tensors": lambda: (
            b"\x80\x02}(" + b"".join(unicode(f"{k}") + one for k in range(3000)) + b"u."
        ),
        "marks": lambda: b"\x80\x02" + b"(" * SIZE,
    }
    for form in ("zip", "stream"):
        for case, make in programs.items():
            yield f"torch, {form}: {case}", (f"torch, pickle of the {form}", make)
    yield "torch, zip: entries", ("torch, zip", _entries)


HOSTILE: dict[str, Case] = {
    **dict(_json()),
    **DATA,
    **{f"guidance: {case}": ("guidance, description", make) for case, make in GUIDANCE.items()},
    **{f"schedules: {case}": ("schedules", _schedules(make)) for case, make in SCHEDULES.items()},
    **{
        f"{kind}: {case}": (f"{kind}", make)
        for kind in ("parameters, header", "guidance, header", "statistics, header of a shard")
        for case, make in HEADERS.items()
    },
    "journal: lines": ("journal", lambda: _lines(b'{"key": "%x"}\n')),
    "journal: line breaks": ("journal", lambda: b"\n" * SIZE),
    "journal: a line": ("journal", lambda: b'{"key": "' + b"a" * (SIZE - 100)),
    "checkpoint: lines": ("checkpoint, ledger", lambda: b"{}\n" + _lines(b"%x\n")),
    **dict(_pickles()),
}
