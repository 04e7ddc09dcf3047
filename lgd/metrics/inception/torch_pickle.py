"""Reader of pickles that contain tensors, without unpickling.

A pickle is a program that may call anything. This reader follows only the instructions that a
dictionary of tensors needs: constants, tuples, lists, dictionaries, and a few names that are
recognised but never imported. It refuses all others by name.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

DTYPES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_DICT, _TENSOR = "collections.OrderedDict", "torch._utils._rebuild_tensor_v2"
_KNOWN = {_DICT, _TENSOR, *(f"torch.{name}" for name in DTYPES)}


class _Name(str):
    """A name in a pickle, which is not imported."""


class Storage(NamedTuple):
    """An array of numbers in the file, of which tensors are views."""

    key: str
    dtype: np.dtype
    size: int


class View(NamedTuple):
    """A tensor, which is a part of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def followed(stream: io.BytesIO) -> Any:
    """Return the value of the next pickle of a stream, which moves behind the pickle.

    Raises:
      ValueError: at the first instruction that is not in `_STEPS`, or name that is not in `_KNOWN`.
    """
    machine = _Machine()
    for code, argument, _ in pickletools.genops(stream):
        if code.name == "STOP":
            return machine.stack.pop()
        if code.name not in _STEPS:
            raise ValueError(f"got the instruction {code.name}: refused, nothing was run")
        _STEPS[code.name](machine, argument)
    raise ValueError("got a pickle without an end")


class _Machine:
    """Stack and memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def take(self, count: int) -> list[Any]:
        """Remove and return the last values of the stack."""
        if len(self.stack) < count:
            raise ValueError("got a pickle that takes more than it has")
        start = len(self.stack) - count
        values, self.stack[start:] = self.stack[start:], []
        return values

    def since_mark(self) -> list[Any]:
        """Remove and return the values above the last mark."""
        return self.take(len(self.stack) - self.marks.pop())

    def name(self, name: str) -> None:
        if name not in _KNOWN:
            raise ValueError(f"got the name {name}: refused, nothing was run")
        self.push(_Name(name))

    def call(self) -> None:
        name, arguments = self.take(2)
        if name == _DICT and isinstance(name, _Name):
            return self.push(dict(*arguments))
        if name == _TENSOR and isinstance(name, _Name):
            storage, offset, shape, strides = arguments[:4]
            if not isinstance(storage, Storage):
                raise ValueError("expected a storage below a tensor, got none")
            return self.push(View(storage, offset, shape, strides))
        raise ValueError(f"got a call of {name!r}: refused, nothing was run")

    def storage(self) -> None:
        """Replace ("storage", type, key, device, size) by a `Storage`.

        In the older format a view follows, which is always None.
        """
        tag, kind, key, _, size, *view = self.take(1)[0]
        known = isinstance(kind, _Name) and kind.removeprefix("torch.") in DTYPES
        if tag != "storage" or not known or view not in ([], [None]) or type(size) is not int:
            raise ValueError(f"expected a storage, got {(tag, kind, key, size, *view)!r}")
        self.push(Storage(key, DTYPES[kind.removeprefix("torch.")], size))

    def append(self, values: list[Any]) -> None:
        self.stack[-1].extend(values)

    def set_items(self, pairs: list[Any]) -> None:
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def attributes(self) -> None:
        """Drop the attributes of a dictionary, which are PyTorch's versions of modules."""
        target, _ = self.take(2)
        if not isinstance(target, dict):
            raise ValueError(f"got attributes of a {type(target).__name__}: refused")
        self.push(target)


Step = Callable[[_Machine, Any], None]


def _constant(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _ignored(machine: _Machine, argument: Any) -> None:
    """Ignore the protocol and frames."""


_STEPS: dict[str, Step] = {
    **dict.fromkeys(("PROTO", "FRAME"), _ignored),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "INT", "LONG"), _constant),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING"), _constant),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "APPEND": lambda machine, _: machine.append(machine.take(1)),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    **dict.fromkeys(
        ("BINPUT", "LONG_BINPUT"),
        lambda machine, place: machine.memo.__setitem__(place, machine.stack[-1]),
    ),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET"), lambda machine, place: machine.push(machine.memo[place])
    ),
    "GLOBAL": lambda machine, name: machine.name(name.replace(" ", ".")),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.attributes(),
    "BINPERSID": lambda machine, _: machine.storage(),
}
