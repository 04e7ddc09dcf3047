"""Parameters on disk as safetensors files. Nothing is ever unpickled."""

import json
import os
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lgd.machinery import digests
from lgd.types import Params

DIGEST = "sha256"  # key of the metadata; its value covers every name, dtype, shape and byte
_FOREIGN = {  # first bytes of files that could run code when opened
    b"PK\x03\x04": "a zip archive, as PyTorch saves",
    b"\x80": "a pickle",
    b"\x93NUMPY": "a NumPy file",
    b"\x89HDF": "an HDF5 file",
}


def save_params(path: Path, params: Params) -> None:
    """Write a tree of arrays with a digest, one tensor for every leaf, named by its path.

    The write is atomic. Raises OSError if the disk refuses it; an earlier file then is unchanged.
    """
    tensors = {
        jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(leaf, order="C")
        for key, leaf in jax.tree.leaves_with_path(params)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, save(tensors, {DIGEST: _digest(tensors)}))


def write(file: Path, data: bytes) -> None:
    """Write a file atomically, through FILE.partial.

    Raises OSError if the disk refuses it; an earlier file then stays unchanged.
    """
    partial = file.with_name(file.name + ".partial")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def load_params(path: Path, like: Params, *, sha256: str | None = None) -> Params:
    """Read a tree with the structure, shapes and dtypes of ``like`` (arrays or ShapeDtypeStructs).

    A file of `save_params` is compared with the digest that it holds; ``sha256`` is that of the
    whole file, for a file from elsewhere.

    Raises FileNotFoundError, or a ValueError that names the file and what does not fit.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a safetensors file, found none")
    raw = path.read_bytes()
    if sha256 is not None and (got := digests.of_bytes(raw)) != sha256:
        raise ValueError(f"{path}: expected a file of sha256 {sha256}, got {got}")
    tensors = _parsed(path, raw)

    def read(key: tuple, leaf: jax.Array | np.ndarray | jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(key, simple=True, separator="/")
        if name not in tensors:
            raise ValueError(f"{path}: expected a tensor {name!r}, got only {sorted(tensors)}")
        tensor = tensors.pop(name)
        if tensor.shape != leaf.shape or tensor.dtype != leaf.dtype:
            raise ValueError(
                f"{path}: {name}: expected {leaf.dtype} {leaf.shape}, "
                f"got {tensor.dtype} {tensor.shape}"
            )
        if not np.isfinite(tensor).all():
            raise ValueError(f"{path}: {name}: expected finite values, got others")
        return tensor

    params = jax.tree.map_with_path(read, like)
    if tensors:
        raise ValueError(f"{path}: expected no further tensors, got {sorted(tensors)}")
    return params


def _parsed(path: Path, raw: bytes) -> dict[str, np.ndarray]:
    """The tensors of a file. Raises ValueError for one that is damaged or of another format."""
    try:
        tensors = load(raw)
        size = int.from_bytes(raw[:8], "little")
        metadata = json.loads(raw[8 : 8 + size]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        for start, kind in _FOREIGN.items():
            if raw.startswith(start):
                raise ValueError(
                    f"{path}: expected a safetensors file, got {kind}: not opened"
                ) from None
        raise ValueError(
            f"{path}: expected a safetensors file, got a damaged one: {error}"
        ) from None
    expected, got = metadata.get(DIGEST), _digest(tensors)
    if expected not in (None, got):
        raise ValueError(
            f"{path}: expected a safetensors file, got a damaged one: its digest is {expected}, "
            f"that of its tensors {got}"
        )
    return tensors


def _digest(tensors: dict[str, np.ndarray]) -> str:
    parts: list[bytes | np.ndarray] = []
    for name, tensor in sorted(tensors.items()):
        parts += [f"{name} {tensor.dtype} {tensor.shape} ".encode(), tensor]
    return digests.of_parts(parts)
