"""Named arrays as bytes in the safetensors format, read under bounds that hold for any bytes.

The library's own reader takes headers of any structure first and 100 MB of them; here every name,
dtype, shape and offset is checked before an array is made, and arrays take no more than the bytes.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from lgd.machinery import json_file
from lgd.machinery.words import shown

MAX_HEADER = 8 * 2**20  # bytes; JSON of that size takes up to 27 times as many in memory
MAX_DIMS = 32
DTYPES: dict[str, np.dtype] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "BF16": jnp.bfloat16, "F16": np.float16, "F32": np.float32, "F64": np.float64,
        "F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2, "C64": np.complex64,
        "BOOL": np.bool_, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64,
        "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    }.items()
}  # fmt: skip
_METADATA = "__metadata__"


class TensorFile(NamedTuple):
    """What a safetensors file holds: texts by name, and arrays by name."""

    metadata: dict[str, str]
    tensors: dict[str, np.ndarray]


def host_array(name: str, leaf: Any) -> np.ndarray:
    """An array of numbers as it is written: on the host, in C order, little-endian.

    Raises ValueError for anything that would not come back: other types and dtypes, values that are
    not finite.
    """
    dtype = getattr(leaf, "dtype", None)
    native = dtype.newbyteorder("<") if isinstance(dtype, np.dtype) else None
    if native is None or native not in DTYPES.values():  # numpy takes None for float64
        known = ", ".join(str(dtype) for dtype in DTYPES.values())
        got = type(leaf).__name__ if dtype is None else f"dtype {dtype}"
        raise ValueError(f"{name}: expected an array of numbers, {known}; got {got}")
    array = np.asarray(leaf, order="C").astype(native, copy=False)
    check_finite(name, array)
    return array


def nested(arrays: Mapping[str, Any], *, max_depth: int = 16) -> dict[str, Any]:
    """Arrays by paths such as "text/tokens" as dicts in each other.

    Raises ValueError for paths of more parts, or a path that is the beginning of another.
    """
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *outer, last = path.split("/")
        place = tree
        for name in outer[:max_depth]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                break
        if len(outer) >= max_depth or not isinstance(place, dict) or last in place:
            raise ValueError(
                f"expected arrays, or dicts of arrays at most {max_depth} deep, got {shown(path)}"
            )
        place[last] = array
    return tree


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise ValueError for an array with NaN or inf."""
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got NaN or inf")


def packed(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of arrays from `host_array`. Raises ValueError for more than one holds."""
    if _METADATA in tensors:
        raise ValueError(
            f"expected other names of tensors than {_METADATA}, which the format takes"
        )
    raw = bytes(save(dict(tensors), dict(metadata) or None))
    if (size := int.from_bytes(raw[:8], "little")) > MAX_HEADER:
        raise ValueError(f"expected names and texts of at most {MAX_HEADER} bytes, got {size}")
    return raw


def unpacked(raw: bytes) -> TensorFile:
    """The texts and arrays of a safetensors file; the arrays are copies.

    Raises ValueError for bytes that are no such file, as a whole: any hole, overlap or remainder.
    """
    size = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or size > len(raw) - 8:
        raise ValueError("a header of more bytes than the file")
    if size > MAX_HEADER:
        raise ValueError(f"a header of {size} bytes, expected at most {MAX_HEADER}")
    text = raw[8 : 8 + size].rstrip(b" ")  # which the format fills headers with, and nothing else
    if not text.endswith(b"}"):
        raise ValueError("a header without an end")
    header = json_file.parsed(text)
    if not isinstance(header, dict):
        raise ValueError(f"a header of {type(header).__name__}")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("metadata that are no texts")
    spans = {name: _span(name, entry) for name, entry in header.items()}
    body = memoryview(raw)[8 + size :]
    _check_whole(spans.values(), len(body))
    tensors = {
        name: _array(name, header[name], body[start:end]) for name, (start, end) in spans.items()
    }
    return TensorFile(metadata, tensors)


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Where the bytes of a tensor start and end, as its dtype and shape ask for."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown(name)}: no description of a tensor")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ValueError(f"{shown(name)}: the dtype {shown(entry['dtype'])}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not (_are_sizes(shape, MAX_DIMS) and _are_sizes(offsets, 2) and len(offsets) == 2):
        raise ValueError(f"{shown(name)}: the shape {shown(shape)} at {shown(offsets)}")
    start, end = offsets
    if end - start != math.prod(shape) * DTYPES[entry["dtype"]].itemsize:
        raise ValueError(f"{shown(name)}: the shape {shown(shape)} in {end - start} bytes")
    return start, end


def _array(name: str, entry: Mapping[str, Any], content: memoryview) -> np.ndarray:
    dtype = DTYPES[entry["dtype"]]
    if dtype == np.bool_ and np.frombuffer(content, np.uint8).max(initial=0) > 1:
        raise ValueError(f"{shown(name)}: truth values other than 0 and 1")
    return np.frombuffer(content, dtype).reshape(entry["shape"]).copy()


def _are_sizes(value: Any, most: int) -> bool:
    """Whether a value is a list of at most so many integers, each of an array's size."""
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(n) is int and 0 <= n < 2**48 for n in value)
    )


def _check_whole(spans: Iterable[tuple[int, int]], size: int) -> None:
    """Raise ValueError unless the spans, in order, are all the bytes, each once."""
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise ValueError("tensors with a gap between them, or that share bytes")
        position = end
    if position != size:
        raise ValueError(f"{size - position} bytes behind the last tensor")
