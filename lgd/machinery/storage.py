"""Parameters on disk as safetensors files. Nothing is ever unpickled."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lgd.machinery import digests, files
from lgd.machinery.tensors import check_finite, host_array, nested, packed, unpacked
from lgd.machinery.words import one_line, shown
from lgd.types import Params

DIGEST = "sha256"  # key of the metadata; its value covers every name, dtype, shape and byte
_OF = "of"  # key of the metadata; its value says what the arrays belong to
_FOREIGN = {  # first bytes of files that could run code when opened
    b"PK\x03\x04": "a zip archive, as PyTorch saves",
    b"\x80": "a pickle",
    b"\x93NUMPY": "a NumPy file",
    b"\x89HDF": "an HDF5 file",
}


def save_params(path: str | Path, params: Params, *, of: str = "") -> None:
    """Write a tree of arrays with a digest, one tensor for every leaf, named by its path.

    The write is atomic; folders are made where there are none.

    Args:
      path: the file.
      params: arrays of numbers, finite.
      of: what they are of, for `load_arrays`.

    Raises:
      ValueError: naming the file and the leaf, for what `load_params` would refuse: leaves that are
        no arrays of numbers, or not finite, and leaves of one name.
      OSError: if the disk refuses it; an earlier file then is unchanged.
    """
    file = files.output(path)
    try:
        tensors = named_arrays(params)
        raw = packed(tensors, {DIGEST: _digest(tensors)} | ({_OF: of} if of else {}))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    write(file, raw)


def named_arrays(params: Params) -> dict[str, np.ndarray]:
    """The arrays of a tree by their path, as they are written.

    Raises ValueError, naming the leaf, for what no file can hold.
    """
    tensors: dict[str, np.ndarray] = {}
    for key, leaf in jax.tree.leaves_with_path(params):
        name = leaf_name(key)
        if name in tensors:
            raise ValueError(f"{name}: expected one leaf of this name, got two")
        tensors[name] = host_array(name, leaf)
    return tensors


def leaf_name(key: tuple[Any, ...]) -> str:
    """The name of the tensor of a leaf: its path in the tree."""
    return jax.tree_util.keystr(key, simple=True, separator="/")


def write(file: Path, data: bytes) -> None:
    """Write a file atomically, through FILE.partial.

    Raises OSError if the disk refuses it, or FILE.partial is a link or a pipe; an earlier file then
    stays unchanged.
    """
    partial = file.with_name(file.name + ".partial")
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with open(partial, "wb", opener=lambda name, _: os.open(name, new, 0o666)) as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def load_params(path: str | Path, like: Params, *, sha256: str | None = None) -> Params:
    """Read a tree with the structure, shapes and dtypes of ``like`` (arrays or ShapeDtypeStructs).

    A file of `save_params` is compared with the digest that it holds; ``sha256`` is that of the
    whole file, for a file from elsewhere.

    Raises FileNotFoundError, or a ValueError that names the file and what does not fit.
    """
    raw = files.read(path, "a safetensors file")
    if sha256 is not None and (got := digests.of_bytes(raw)) != sha256:
        raise ValueError(f"{path}: expected a file of sha256 {sha256}, got {got}")
    tensors = _parsed(path, raw)

    def read(key: tuple, leaf: jax.Array | np.ndarray | jax.ShapeDtypeStruct) -> np.ndarray:
        name = leaf_name(key)
        if name not in tensors:
            raise ValueError(f"{path}: expected a tensor {name!r}, got only {_names(tensors)}")
        tensor = tensors.pop(name)
        if tensor.shape != leaf.shape or tensor.dtype != leaf.dtype:
            raise ValueError(
                f"{path}: {name}: expected {leaf.dtype} {leaf.shape}, "
                f"got {tensor.dtype} {tensor.shape}"
            )
        check_finite(f"{path}: {name}", tensor)
        return tensor

    params = jax.tree.map_with_path(read, like)
    if tensors:
        raise ValueError(f"{path}: expected no further tensors, got {_names(tensors)}")
    return params


def load_arrays(path: str | Path, *, of: str) -> dict[str, Any]:
    """Read a tree of dicts of arrays that `save_params` wrote ``of`` the same.

    Raises FileNotFoundError, or a ValueError that names the file: for damage, and for a file
    without a digest or of something else.
    """
    raw = files.read(path, "a safetensors file")
    tensors = _parsed(path, raw)
    metadata = unpacked(raw).metadata
    if DIGEST not in metadata or metadata.get(_OF) != of:
        raise ValueError(f"{path}: expected a file of {of}, got {shown(metadata)}")
    for name, tensor in tensors.items():
        check_finite(f"{path}: {name}", tensor)
    return nested(tensors)


def foreign(raw: bytes) -> str | None:
    """What bytes of another format are, in words, if they could run code when they are opened."""
    return next((kind for start, kind in _FOREIGN.items() if raw.startswith(start)), None)


def _parsed(path: str | Path, raw: bytes) -> dict[str, np.ndarray]:
    """The tensors of a file. Raises ValueError for one that is damaged or of another format."""
    expected = f"{path}: expected a safetensors file"
    try:
        metadata, tensors = unpacked(raw)
    except ValueError as error:
        if kind := foreign(raw):
            raise ValueError(f"{expected}, got {kind}: not opened") from None
        raise ValueError(f"{expected}, got a damaged one: {one_line(error)}") from None
    said, got = metadata.get(DIGEST), _digest(tensors)
    if said not in (None, got):
        raise ValueError(
            f"{expected}, got a damaged one: its digest is {one_line(said)}, that of its "
            f"tensors {got}"
        )
    return tensors


def _names(tensors: Mapping[str, np.ndarray]) -> str:
    return shown(sorted(tensors), 1000)


def _digest(tensors: dict[str, np.ndarray]) -> str:
    parts: list[bytes | np.ndarray] = []
    for name, tensor in sorted(tensors.items()):
        parts += [f"{name} {tensor.dtype} {tensor.shape} ".encode(), tensor]
    return digests.of_parts(parts)
