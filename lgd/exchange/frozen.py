"""A denoiser as one file that needs no other framework: converted once, used without PyTorch.

    lgd.exchange.frozen.freeze("denoiser.safetensors", denoiser, params, shape=(4, 64, 64), c=c)
    denoiser, params = lgd.exchange.frozen.thaw("denoiser.safetensors")

The file holds the traced program (`jax.export`, StableHLO, with its first derivative), the
parameters, the noise schedule and the unconditional input. It runs on the platforms it was frozen
for, differentiates once, by reverse mode, and takes batches of any size in parts of the size it
was frozen with. A file holds a program: thaw only files that you trust.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array

from lgd.denoisers import FunctionDenoiser, from_function
from lgd.exchange.extras import required
from lgd.exchange.files import FileError, decode, encode
from lgd.machinery import digests, files, json_file, storage
from lgd.machinery.tensors import packed, unpacked
from lgd.machinery.words import one_line
from lgd.types import Condition, MakesPair, Params

FORMAT = 1
MAX_BYTES = 64 * 2**30
_WHAT = "a denoiser written by lgd.exchange.frozen.freeze"
_DESCRIPTION, _PROGRAM = "description", "program"
_PARAMS, _NULL = "params", "null"  # beginnings of the names of their tensors


def freeze(
    path: str | Path,
    denoiser: FunctionDenoiser,
    params: Params,
    *,
    shape: Sequence[int],
    c: Condition,
    batch_size: int = 8,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> None:
    """Write a denoiser to a file that `thaw` reads without the framework it came from.

    Args:
      path: of the file.
      denoiser: from `denoisers.from_function`, `exchange.torch` or `exchange.diffusers`.
      params: its parameters.
      shape: of one example.
      c: conditions of at least one example, leaves (n, ...), whose shapes it will take.
      batch_size: examples of one call of the program; other batches are cut and filled up.
      platforms: where it shall run, names of `jax.export`.

    Raises:
      ImportError: without flatbuffers, which `jax.export` writes with.
      ValueError: for a denoiser whose halves are a pair, or whose unconditional input has not the
        structure of c.
    """
    path = files.output(path)
    required("flatbuffers", "frozen")
    if not isinstance(denoiser, FunctionDenoiser) or isinstance(denoiser, MakesPair):
        got = type(denoiser).__name__
        raise ValueError(f"denoiser: expected one made by from_function with null=, got {got}")
    row = jax.tree.map(lambda leaf: jnp.asarray(leaf[:1]), c)
    null = denoiser.null(row)
    structure: Any = jax.tree.structure(null)
    if structure != jax.tree.structure(row):
        raise ValueError(f"null: expected a condition like c, got {structure}")

    def like(leaf: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype)

    x = jax.ShapeDtypeStruct((batch_size, *shape), np.float32)
    t = jax.ShapeDtypeStruct((batch_size,), np.float32)
    kept = jax.tree.map(jnp.asarray, params)
    exported = export.export(jax.jit(denoiser.function), platforms=tuple(platforms))(
        kept, x, t, jax.tree.map(like, row)
    )
    tensors = {_PROGRAM: np.frombuffer(exported.serialize(vjp_order=1), np.uint8)}
    for beginning, tree in ((_PARAMS, kept), (_NULL, null)):
        arrays = storage.named_arrays(tree)
        tensors |= {f"{beginning}/{name}": array for name, array in arrays.items()}
    described = {
        "format": FORMAT,
        "kind": denoiser.kind,
        "schedule": encode(denoiser.schedule),
        "batch_size": batch_size,
        "digest": digests.of_json(digests.table(tensors)),
    }
    storage.write(path, packed(tensors, {_DESCRIPTION: json.dumps(described)}))


def thaw(path: str | Path) -> tuple[FunctionDenoiser, Params]:
    """The denoiser and parameters that `freeze` wrote.

    Raises:
      FileNotFoundError: where there is no file.
      FileError: for a damaged file, or one of something else.
    """
    try:
        raw = files.read(path, _WHAT, max_bytes=MAX_BYTES)
    except files.InputFileError as error:
        raise FileError(str(error)) from None
    required("flatbuffers", "frozen")
    try:
        metadata, tensors = unpacked(raw)
        described = json_file.parsed(metadata[_DESCRIPTION].encode())
        if described["format"] != FORMAT:
            raise ValueError(f"format {described['format']}, expected {FORMAT}")
        if described["digest"] != digests.of_json(digests.table(tensors)):
            raise ValueError("a damaged file: its tensors differ")
        schedule, program = decode(described["schedule"]), tensors.pop(_PROGRAM).tobytes()
        exported = export.deserialize(bytearray(program))
    except Exception as error:  # whatever the parts of a foreign file raise
        raise FileError(f"{path}: expected {_WHAT}, got {one_line(error)}") from error
    function = Frozen(digests.of_bytes(program), described["batch_size"], exported)
    inputs: Any = exported.in_tree
    (params_like, _, _, c_like), _ = inputs.unflatten(exported.in_avals)
    params = _tree(_PARAMS, params_like, tensors)
    null = jax.tree.map(lambda leaf: leaf[0], _tree(_NULL, c_like, tensors))
    kind = described["kind"]
    return from_function(function, schedule=schedule, kind=kind, null=null), params


def _tree(beginning: str, like: Any, tensors: dict[str, np.ndarray]) -> Any:
    return jax.tree.map_with_path(
        lambda key, leaf: jnp.asarray(tensors[f"{beginning}/{storage.leaf_name(key)}"]), like
    )


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A program as a function of (params, x, t, c), for batches of any size.

    description: the sha256 of the program; batch_size: of one call.
    """

    description: str
    batch_size: int
    exported: Any = dataclasses.field(repr=False, compare=False)

    def __call__(self, params: Params, x: Array, t: Array, c: Condition) -> Array:
        """The predictions for x (b, *dims), t (b,) and c."""
        count, size = len(x), self.batch_size
        parts = -(-count // size)

        def cut(leaf: Any) -> Array:
            leaf = jnp.asarray(leaf)
            filled = jnp.concatenate([leaf, jnp.repeat(leaf[:1], parts * size - count, axis=0)])
            return filled.reshape(parts, size, *leaf.shape[1:])

        def call(some: tuple[Array, Array, Condition]) -> Array:
            return self.exported.call(params, *some)

        output = jax.lax.map(call, jax.tree.map(cut, (x, t, c)))
        return output.reshape(parts * size, *output.shape[2:])[:count]
