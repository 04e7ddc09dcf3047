"""Learned guidance as one file: model, parameters, noise schedule, convention, provenance.

A file is a safetensors file. Its tensors are the parameters; its metadata holds a description of
everything else as JSON, with digests of both. Nothing is unpickled and no code is named in a file:
classes come from one table, to which `register` adds.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import lgd
from lgd import encoders, omega, schedules
from lgd.machinery import digests, json_file, storage
from lgd.machinery import files as input_files
from lgd.machinery.tensors import TensorFile, check_finite, packed, unpacked
from lgd.machinery.words import one_line
from lgd.omega import CONVENTION, Guidance

FORMAT = 1
MAX_BYTES = 64 * 2**20
_DESCRIPTION, _DIGEST = "description", "description_sha256"  # keys of the metadata
_GUIDANCE = "a guidance written by lgd.save"
_HOW_TO_REGISTER = (
    "register it by lgd.exchange.files.register(cls), in a module that is imported wherever the "
    "file is read"
)

T = TypeVar("T")


class FileError(ValueError):
    """A file that holds no guidance, or a guidance that no file can hold."""


@dataclasses.dataclass(frozen=True)
class TensorName:
    """The place of an array in the description of a tree: the name of its tensor."""

    name: str


_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        omega.Network, omega.StepTable, omega.BinTable, omega.PerDirection, omega.Support,
        omega.One, omega.ByLabel, omega.Nearest,
        encoders.Labels, encoders.Vectors, encoders.Tokens, encoders.Several, encoders.Nothing,
        schedules.RectifiedFlow, schedules.Cosine, schedules.LinearVP, schedules.EDM,
        schedules.Discrete,
        TensorName,
    )
}  # fmt: skip


def register(cls: type[T]) -> type[T]:
    """Let files hold instances of a class, a frozen dataclass or a NamedTuple; also a decorator.

    Its fields are numbers, text, tuples, and instances of registered classes.

    Raises:
      ValueError: for a class of another kind, or with the name of a class already registered.
    """
    if not (dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")):
        raise ValueError(f"expected a dataclass or a NamedTuple, got {cls}")
    known = _CLASSES.get(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"expected a name other than that of {known}, got {cls}")
    _CLASSES[cls.__name__] = cls
    return cls


def save(guidance: Guidance, path: str | Path) -> None:
    """Write a guidance to a file, as a whole or not at all.

    Raises:
      FileError: for parameters that are not finite or over 64 MB, or a model, schedule or history
        of classes that are not registered.
      OSError: where the disk does not take it.

    >>> import jax.numpy as jnp, lgd
    >>> table, values = lgd.omega.StepTable(times=(1.0, 0.0)), {"values": jnp.array([[2.0]])}
    >>> lgd.save(lgd.omega.Guidance(table, values, "init"), "guidance.safetensors")
    """
    path = input_files.output(path)
    try:
        tensors = storage.named_arrays(guidance.params)
        described = {
            "format": FORMAT,
            "lgd": lgd.__version__,
            "convention": CONVENTION,
            "model": encode(guidance.model),
            "schedule": encode(guidance.schedule),
            "start": guidance.start,
            "history": encode(jax.tree.map(_plain, dict(guidance.history))),
            "provenance": encode(_checked_provenance(guidance.provenance)),
            "params": encode(jax.tree.map_with_path(_tensor_name, guidance.params)),
            "tensors_sha256": _digest(tensors),
        }
        text = json.dumps(described, allow_nan=False)
        json_file.check_depth(text.encode())
        raw = packed(tensors, {_DESCRIPTION: text, _DIGEST: digests.of_bytes(text.encode())})
    except ValueError as error:
        raise FileError(f"{path}: {error}") from None
    if len(raw) > MAX_BYTES:
        raise FileError(f"{path}: expected at most {MAX_BYTES} bytes, got {len(raw)}")
    storage.write(path, raw)


def load(path: str | Path) -> Guidance:
    """Read a guidance that `save` wrote, on any machine, without the run that it came from.

    Raises:
      FileNotFoundError: where there is no file.
      FileError: for a file that is damaged or holds something else, naming what was expected.

    >>> import jax.numpy as jnp, lgd
    >>> table, values = lgd.omega.StepTable(times=(1.0, 0.0)), {"values": jnp.array([[2.0]])}
    >>> lgd.save(lgd.omega.Guidance(table, values, "init"), "guidance.safetensors")
    >>> float(lgd.load("guidance.safetensors")(0.5))
    2.0
    """
    metadata, tensors = _parsed(path)
    if _DESCRIPTION not in metadata:
        raise FileError(f"{path}: expected {_GUIDANCE}, got {_without_description(metadata)}")
    text = metadata[_DESCRIPTION].encode()
    if digests.of_bytes(text) != metadata.get(_DIGEST):
        raise FileError(f"{path}: expected {_GUIDANCE}, got a damaged one: its description differs")
    try:
        return _from_description(json_file.parsed(text), tensors)
    except FileError as error:
        raise FileError(f"{path}: {error}") from None
    except Exception as error:  # whatever the constructor of a registered class raises
        raise FileError(
            f"{path}: expected the description of a guidance, got: {one_line(error)}"
        ) from error


def _from_description(described: dict[str, Any], tensors: dict[str, np.ndarray]) -> Guidance:
    if described["format"] != FORMAT:
        raise FileError(
            f"expected format {FORMAT}, got {described['format']}, written by lgd "
            f"{described.get('lgd')}: read it with that version"
        )
    if described["convention"] != CONVENTION:
        raise FileError(f"expected the convention {CONVENTION!r}, got {described['convention']!r}")
    if described["tensors_sha256"] != _digest(tensors):
        raise FileError(f"expected {_GUIDANCE}, got a damaged one: its tensors differ")
    names = decode(described["params"])
    return Guidance(
        model=decode(described["model"]),
        params=jax.tree.map(lambda leaf: jnp.asarray(tensors[leaf.name]), names),
        start=described["start"],
        schedule=decode(described["schedule"]),
        history=decode(described["history"]),
        provenance=decode(described["provenance"]),
    )


def _parsed(path: str | Path) -> TensorFile:
    """Metadata and tensors of a safetensors file."""
    try:
        raw = input_files.read(path, _GUIDANCE, max_bytes=MAX_BYTES)
    except input_files.InputFileError as error:
        raise FileError(str(error)) from None
    try:
        content = unpacked(raw)
    except ValueError as error:
        kind = storage.foreign(raw) or f"no safetensors file, or a damaged one: {one_line(error)}"
        raise FileError(f"{path}: expected {_GUIDANCE}, got {kind}") from None
    for name, tensor in content.tensors.items():
        try:
            check_finite(name, tensor)
        except ValueError as error:
            raise FileError(f"{path}: {error}") from None
    return content


def _without_description(metadata: Mapping[str, str]) -> str:
    """What a safetensors file without a description is."""
    if storage.DIGEST not in metadata:
        return "a safetensors file of something else, without a description"
    return (
        "a file that holds parameters without their model, as lgd 0.1 wrote them. To convert it, "
        "make the model and read its parameters, params = lgd.machinery.storage.load_params(path, "
        "jax.eval_shape(model.init, key, c)), then save both, "
        'lgd.save(lgd.Guidance(model, params, start="..."), path)'
    )


def _tensor_name(key: tuple[Any, ...], leaf: Any) -> TensorName:
    return TensorName(storage.leaf_name(key))


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    return digests.of_json(digests.table(tensors))


def _plain(value: Any) -> Any:
    """An array as lists of numbers; anything else as it is."""
    return np.asarray(value).tolist() if isinstance(value, np.ndarray | jax.Array) else value


def _checked_provenance(provenance: Mapping[str, str]) -> dict[str, str]:
    wrong = {key: value for key, value in provenance.items() if not isinstance(value, str)}
    if wrong:
        raise FileError(f"provenance: expected text, got {wrong}")
    return dict(provenance)


def encode(value: Any) -> Any:
    """A value as JSON, with classes by their name."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if _CLASSES.get(type(value).__name__) is type(value):
        fields = {name: encode(getattr(value, name)) for name in _field_names(type(value))}
        return {"class": type(value).__name__, "fields": fields}
    if type(value) is list:
        return [encode(entry) for entry in value]
    if type(value) is tuple:
        return {"tuple": [encode(entry) for entry in value]}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"dict": {key: encode(entry) for key, entry in value.items()}}
    got = f"{type(value).__module__}.{type(value).__qualname__}"
    raise FileError(
        f"expected numbers, text, containers of these and registered classes, got {got}: "
        f"{_HOW_TO_REGISTER}"
    )


def decode(value: Any) -> Any:
    """The value that `encode` wrote."""
    if isinstance(value, list):
        return [decode(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"float": text}:
            return float(text)
        case {"tuple": entries}:
            return tuple(decode(entry) for entry in entries)
        case {"dict": entries}:
            return {key: decode(entry) for key, entry in entries.items()}
        case {"class": name, "fields": fields}:
            if name not in _CLASSES:
                raise FileError(f"expected registered classes, got {name!r}: {_HOW_TO_REGISTER}")
            return _CLASSES[name](**{key: decode(field) for key, field in fields.items()})
    raise FileError(f"expected an encoded value, got an object of {sorted(value)}")


def _field_names(cls: type) -> tuple[str, ...]:
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    return tuple(getattr(cls, "_fields"))  # noqa: B009
