"""The one reader of JSON in files: bounded in depth and in the length of numbers, names once.

A file of 16 MB takes less than a GB and some seconds, whatever is in it.
"""

import collections
import json
import math
import os
import re
from typing import Any, NoReturn

import numpy as np

from lgd.machinery import files
from lgd.machinery.words import one_line, shown

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 100  # of lists and objects in each other
MAX_DIGITS = 100  # of an integer
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read(
    path: str | os.PathLike[str],
    what: str,
    *,
    max_bytes: int = MAX_BYTES,
    max_values: int | None = None,
) -> Any:
    """The value in a file of JSON, see `parsed`.

    Args:
      path: the file.
      what: what it should be, for messages.
      max_bytes: the largest size that is taken.
      max_values: the most numbers, texts and names that are taken; None: any.

    Raises:
      FileNotFoundError: where there is no file.
      InputFileError: for anything but a regular file of that size with JSON in it.
    """
    raw = files.read(path, what, max_bytes=max_bytes)
    try:
        if max_values is not None and (count := raw.count(b",") + raw.count(b":")) > max_values:
            raise ValueError(f"about {count} values, expected at most {max_values}")
        return parsed(raw)
    except ValueError as error:
        name = one_line(path, 1000)
        raise files.InputFileError(f"{name}: expected {what}, got {one_line(error)}") from None


def parsed(raw: bytes, *, strict: bool = True) -> Any:
    """The value of JSON in UTF-8.

    Args:
      raw: the bytes.
      strict: whether to refuse what JSON does not have but Python writes: NaN and Infinity, and
        halves of characters, which stand for bytes in the names of files.

    Raises:
      ValueError: for whatever is wrong: also a name twice in an object, more than `MAX_DEPTH` lists
        and objects in each other, an integer of more than `MAX_DIGITS` digits.
    """
    check_depth(raw)
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_float if strict else float,
            parse_constant=_refused if strict else None,
        )
        if strict and _SURROGATE.search(raw):  # perhaps without its other half
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text with half a character, of \\ud800 to \\udfff") from None
    except RecursionError:  # called near the end of the stack
        raise ValueError("lists and objects too deep in each other") from None
    return value


def check_depth(raw: bytes) -> None:
    """Raise ValueError for JSON of more than `MAX_DEPTH` lists and objects in each other."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    text = np.frombuffer(raw.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    outside = np.cumsum(text == ord('"'), dtype=np.uint8) % 2 == 0  # of what is in quotes
    opens, closes = (outside & (text | ord(" ") == ord(bracket)) for bracket in "{}")  # or [ and ]
    depth = np.cumsum(opens.astype(np.int8) - closes.astype(np.int8), dtype=np.int32)
    if depth.max(initial=0) > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} lists and objects in each other")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = collections.Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{shown(twice)} twice in one object")
    return values


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{one_line(text)}, which is too large for a number")
    return value


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant}, which JSON does not have")
