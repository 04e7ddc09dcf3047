"""Parameters on disk, as safetensors: nothing is ever unpickled."""

from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lgd.types import Params


def save_params(path: Path, params: Params) -> None:
    """Write a tree of arrays, one tensor for each leaf, named by its path; atomic."""
    tensors = {
        jax.tree_util.keystr(key, simple=True, separator="/"): np.asarray(leaf)
        for key, leaf in jax.tree.leaves_with_path(params)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(path)


def load_params(path: Path, like: Params) -> Params:
    """Read a tree of the structure, shapes and dtypes of ``like`` (arrays or ShapeDtypeStructs).

    Raises FileNotFoundError, or ValueError naming the file and what does not fit.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a safetensors file, found none")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a safetensors file, got a damaged one: {error}"
        ) from None

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
