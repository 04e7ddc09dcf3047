"""Digests: names of bytes, files, trees of arrays and whole values that every process computes.

All are sha256, in hexadecimal, except `crc`.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgd.machinery import files
from lgd.machinery.processes import to_host

Nameless = Callable[[Any], str]

NO_RESULT = {"no result": True}  # metadata of a field of a dataclass that no result depends on
_CHUNK = 2**20  # bytes of a file that are read at once
_NAMELESS = (
    "expected a value with a name, a frozen dataclass or a function that a module defines, got {}; "
    "or give it an attribute `description`, a text that changes whenever its behaviour does"
)


def of_bytes(data: bytes | np.ndarray) -> str:
    """The sha256 of bytes, or of the bytes of an array."""
    return of_parts([data])


def of_parts(parts: Iterable[bytes | np.ndarray]) -> str:
    """The sha256 of bytes and arrays, one after another, as if they were joined."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(_bytes_of(part) if isinstance(part, np.ndarray) else part)
    return sha.hexdigest()


def of_file(path: str | Path, what: str = "a file", *, first: int | None = None) -> str:
    """The sha256 of the content of a file, or of its first bytes; what: it is, for messages.

    Raises FileNotFoundError, or InputFileError for anything but a regular file.
    """
    with files.opened(path, what) as file:
        if first is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        sha = hashlib.sha256()
        while part := file.read(min(first, _CHUNK)):
            sha.update(part)
            first -= len(part)
        return sha.hexdigest()


def of_json(value: Any) -> str:
    """The sha256 of a value as JSON with sorted keys. Raises ValueError for NaN and inf."""
    return of_bytes(json.dumps(value, sort_keys=True, allow_nan=False).encode())


def of_examples(arrays: Iterable[Any]) -> str:
    """The sha256 of arrays in their order: dtype, shape and bytes of each.

    A text among them stands for examples that are not in memory.
    """

    def parts() -> Iterable[bytes | np.ndarray]:
        for array in arrays:
            if isinstance(array, str):
                yield array.encode()
            else:
                yield f"{array.dtype.str}{array.shape}".encode()
                yield np.asarray(array)

    return of_parts(parts())


def of_tree(tree: Any) -> str:
    """The sha256 of a tree of arrays: every path, dtype, shape and byte of it.

    Several processes call it together. Raises ValueError for leaves that are no numbers.
    """
    return of_json(table(to_host(named_leaves(tree))))


def table(leaves: Mapping[str, np.ndarray]) -> dict[str, str]:
    """A line for every array: dtype, shape and sha256."""
    return {name: f"{structure(leaf)} {of_bytes(leaf)}" for name, leaf in leaves.items()}


def structure(leaf: Any) -> str:
    """The dtype and the shape of an array, for example ``float32[3, 2]``."""
    return f"{leaf.dtype}{list(leaf.shape)}"


def differing_structures(leaves: Mapping[str, Any], lines: Mapping[str, str]) -> list[str]:
    """A message for every array whose dtype or shape is not that of its line in a `table`."""
    expected = {name: structure(leaf) for name, leaf in leaves.items()}
    got = {name: line.rpartition(" ")[0] for name, line in lines.items()}
    differing = [n for n in sorted(expected | got) if expected.get(n) != got.get(n)]
    return [f"leaf {n}: expected {expected.get(n)}, got {got.get(n)}" for n in differing]


def named_leaves(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their path. Raises ValueError for leaves that are no numbers."""
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in pairs}
    for name, leaf in leaves.items():
        if not _is_numbers(leaf):
            got = getattr(leaf, "dtype", None) or type(leaf)
            raise ValueError(f"leaf {name}: expected numbers, got {got}")
    return leaves


def crc(data: bytes) -> int:
    """The CRC-32 of bytes: a cheap number, for uses where equal numbers do no harm."""
    return zlib.crc32(data)


def describe(value: Any, *, nameless: Nameless | None = None) -> str:
    """A value in words: the same in every process, and other words for another value.

    Dataclasses and Flax modules are named by class and fields, but for those of `NO_RESULT`, arrays
    by dtype, shape and sha256, mappings of arrays by one sha256, functions by their module and
    name. A text attribute ``description`` stands for all of these. Several processes call it
    together.

    Args:
      value: what is described.
      nameless: words for a value without a name: a lambda, a closure that captured values, an
        object that is no dataclass and has no repr. None: it is refused.

    Raises ValueError for a value without a name.

    >>> from lgd.machinery import digests
    >>> from lgd import schedules
    >>> digests.describe(schedules.edm(sigma_max=10.0))
    'EDM(sigma_min=0.002, sigma_max=10.0, rho=7.0)'
    """
    description = getattr(value, "description", None)
    if isinstance(description, str):
        return description
    if isinstance(value, np.ndarray | jax.Array):
        return f"{structure(value)} sha256 {of_bytes(to_host(value))}"
    if isinstance(value, np.generic):
        return describe(value.item())
    inner = functools.partial(describe, nameless=nameless or _refused)
    if isinstance(value, Mapping | tuple | list | set | frozenset):
        return _describe_container(value, inner)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {name: getattr(value, name) for name in _fields(value)}
        return _call(type(value).__name__, fields, inner)
    words = _describe_callable(value, inner) if callable(value) else repr(value)
    if words is None or " at 0x" in words:  # the address of an object, another in every process
        return (nameless or _refused)(value)
    return words


def kind_of(value: Any) -> str:
    """The name of a function, or of the class of an object: words for one without a name."""
    return getattr(value, "__qualname__", None) or type(value).__name__


def _refused(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or repr(value)
    raise ValueError(_NAMELESS.format(f"{type(value).__name__} {name}"))


def _describe_container(value: Any, inner: Callable[[Any], str]) -> str:
    if isinstance(value, Mapping):
        leaves = jax.tree.leaves(dict(value))
        if leaves and all(isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves):
            return f"{len(leaves)} arrays sha256 {of_tree(dict(value))}"
        return "{" + ", ".join(f"{key}: {inner(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(inner, value))) + "}"
    if hasattr(value, "_fields"):
        return _call(type(value).__name__, value._asdict(), inner)
    return "(" + ", ".join(map(inner, value)) + ")"


def _describe_callable(value: Any, inner: Callable[[Any], str]) -> str | None:
    """The name of a function, None for one without."""
    if isinstance(value, functools.partial):
        parts = {"args": value.args, "keywords": value.keywords}
        return _call(f"partial {inner(value.func)}", parts, inner)
    if inspect.ismethod(value):
        return f"{inner(value.__self__)}.{value.__name__}"
    innermost = inspect.unwrap(value)
    name = getattr(value, "__qualname__", None)
    if name is None or "<lambda>" in name or getattr(innermost, "__closure__", None):
        return None
    return f"{value.__module__}.{name}"


def _fields(value: Any) -> list[str]:
    """Names of the fields that decide what a dataclass computes.

    Not those of a Flax module that say where it stands, or how parameters were drawn at first.
    """
    fields = dataclasses.fields(value)
    names = [field.name for field in fields if not NO_RESULT.items() <= field.metadata.items()]
    if "parent" not in names:
        return names
    return [n for n in names if n not in ("parent", "name") and not n.endswith("_init")]


def _call(name: str, fields: Mapping[str, Any], inner: Callable[[Any], str]) -> str:
    return f"{name}({', '.join(f'{key}={inner(field)}' for key, field in fields.items())})"


def _is_numbers(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    kinds = (np.number, np.bool_)
    return dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in kinds)


def _bytes_of(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
