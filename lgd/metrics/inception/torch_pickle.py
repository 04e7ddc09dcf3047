"""Reader of pickles that contain tensors, without unpickling.

A pickle is a program that may call anything. This reader follows only the instructions that a
dictionary of tensors needs: constants, tuples, lists, dictionaries, and a few names that are
recognised but never imported. It refuses all others by name. Values are bounded while they are
made: nothing is nested deeper than a shape in the arguments of a tensor, keys are text, and no
value of the file is hashed, compared or shown but numbers and text.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MAX_STEPS = 2**17  # instructions of a pickle; that of Inception-v3 has some ten thousand
MAX_DIMS = 8
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
      ValueError: at the first instruction that is not in `_STEPS`, name that is not in `_KNOWN`, or
        value that no dictionary of tensors has, and for more than `MAX_STEPS` instructions.
      IndexError, KeyError: for a pickle that takes what it does not have.
    """
    machine = _Machine()
    for count, (code, argument, _) in enumerate(pickletools.genops(stream)):
        if code.name == "STOP":
            return machine.stack.pop()
        if count == MAX_STEPS:
            raise ValueError(f"got a pickle of more than {MAX_STEPS} instructions")
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

    def push_tuple(self, values: list[Any]) -> None:
        """Push a tuple; those inside it have numbers only."""
        for inner in values:
            if isinstance(inner, tuple) and not isinstance(inner, Storage | View):
                _check_all(inner, int, "a tuple")
        self.push(tuple(values))

    def append(self, values: list[Any]) -> None:
        """Add to a list, of which a file has only one of keys."""
        _check_all(values, str, "a list")
        _checked(self.stack[-1], list).extend(values)

    def set_items(self, pairs: list[Any]) -> None:
        _check_all(pairs[::2], str, "the keys of a dictionary")
        _checked(self.stack[-1], dict).update(zip(pairs[::2], pairs[1::2], strict=True))

    def attributes(self) -> None:
        """Drop the attributes of a dictionary, which are PyTorch's versions of modules."""
        target, _ = self.take(2)
        self.push(_checked(target, dict))

    def call(self) -> None:
        name, arguments = self.take(2)
        called = (str(_checked(name, _Name)), len(_checked(arguments, tuple)))
        if called == (_DICT, 0):
            return self.push({})
        if called != (_TENSOR, 6):
            raise ValueError(f"got a call of {name}: refused, nothing was run")
        storage, offset, shape, strides, *_ = arguments
        _check_numbers(shape, strides, (offset,))
        self.push(View(_checked(storage, Storage), offset, shape, strides))

    def storage(self) -> None:
        """Replace ("storage", type, key, device, size) by a `Storage`.

        In the older format a view follows, which is always None.
        """
        tag, kind, key, _, size, *view = _checked(self.stack.pop(), tuple)
        dtype = DTYPES.get(_checked(kind, _Name).removeprefix("torch."))
        is_whole = all(each is None for each in view)
        if _checked(tag, str) != "storage" or dtype is None or not is_whole:
            raise ValueError("got something else than a storage: refused")
        self.push(Storage(_checked(key, str), dtype, _checked(size, int)))


def _checked(value: Any, kind: type) -> Any:
    """A value of exactly this type."""
    if type(value) is not kind:
        raise ValueError(
            f"got a {type(value).__name__} in the place of a {kind.__name__.strip('_')}: refused"
        )
    return value


def _check_all(values: Any, kind: type, what: str) -> None:
    for value in values:
        if type(value) is not kind:
            raise ValueError(
                f"got a {type(value).__name__} in {what}, which has only {kind.__name__}: refused"
            )


def _check_numbers(*shapes: Any) -> None:
    for shape in shapes:
        _check_all(_checked(shape, tuple), int, "a shape")
        if len(shape) > MAX_DIMS or min(shape, default=0) < 0:
            raise ValueError(f"got a shape that is not up to {MAX_DIMS} numbers >= 0: refused")


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
    "TUPLE": lambda machine, _: machine.push_tuple(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.push_tuple(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.push_tuple(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.push_tuple(machine.take(3)),
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
