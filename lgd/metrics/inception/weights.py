"""Weights of Inception-v3: from a local file, or from the published PyTorch port."""

from pathlib import Path

import jax
import numpy as np

from lgd.machinery import digests, files
from lgd.machinery.paths import local
from lgd.machinery.storage import load_params, save_params
from lgd.metrics.inception import torch_file
from lgd.metrics.inception.network import template
from lgd.types import Params

# pt_inception-2015-12-05-6726825d.pth of the release "fid_weights" of mseitzer/pytorch-fid, a port
# of the weights in http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def load(path: str | Path, *, sha256: str) -> Params:
    """Return the parameters in a safetensors file that `experiments.convert_inception` wrote.

    Args:
      path: the file.
      sha256: sha256 of the file, which the conversion prints.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the file, for another sha256, other names or shapes, or values that are not
        finite.
    """
    return load_params(path, template(), sha256=sha256)


def from_torch(tensors: dict[str, np.ndarray]) -> Params:
    """Return parameters made from the tensors of the PyTorch port, by name.

    Counters of batches, which inference does not need, are dropped.

    Raises:
      ValueError: for missing or further tensors, other shapes, or values that are not finite.
    """
    remaining = {name: value for name, value in tensors.items() if not _is_counter(name)}

    def converted(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = _torch_name(path)
        if name not in remaining:
            raise ValueError(f"expected a tensor {name!r}, got only {sorted(tensors)}")
        value = remaining.pop(name)
        value = np.transpose(value, (2, 3, 1, 0) if value.ndim == 4 else None)  # OIHW to HWIO
        if value.shape != leaf.shape or value.dtype != leaf.dtype:
            raise ValueError(
                f"{name}: expected {leaf.dtype} {leaf.shape} transposed, "
                f"got {value.dtype} {value.shape}"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"{name}: expected finite values, got others")
        return np.ascontiguousarray(value)

    params = jax.tree.map_with_path(converted, template())
    if remaining:
        raise ValueError(f"expected no further tensors, got {sorted(remaining)}")
    return params


def _torch_name(path: tuple) -> str:
    """Return PyTorch's name of a path.

    For params/Mixed_5b/branch1x1/conv/kernel it is Mixed_5b.branch1x1.conv.weight.
    """
    *modules, leaf = [key.key for key in path[1:]]
    if leaf == "fc_bias":
        return "fc.bias"
    return ".".join([*modules, _LEAVES[leaf]])


def _is_counter(name: str) -> bool:
    return name.endswith(".num_batches_tracked")


def convert(source: str | Path, out: str | Path, *, sha256: str = PUBLISHED_SHA256) -> str:
    """Write the parameters of a PyTorch file; the sha256 of the new one, which depends on it alone.

    Args:
      source: PyTorch file.
      out: safetensors file to write.
      sha256: expected sha256 of the source.

    Raises:
      FileNotFoundError: without a source.
      InputFileError: for URLs, or a source that is no regular file.
      ValueError: naming the source, for another sha256 or tensors that do not fit.
    """
    source, out = local(source), files.output(out)
    got = digests.of_file(source, "a PyTorch file")
    if got != sha256:
        raise ValueError(f"{source}: expected a file of sha256 {sha256}, got {got}")
    tensors = torch_file.read(source)
    try:
        params = from_torch(tensors)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    save_params(out, params)
    return digests.of_file(out)
