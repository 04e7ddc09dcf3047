"""Values and errors in the messages of a program: one printable line, of bounded length."""

import re
from typing import Any


def shown(value: Any, limit: int = 200) -> str:
    """A value as it is written in Python, on one line; the name of its type if that fails.

    Of large lists, tuples, dicts and texts only the beginning is written.
    """
    try:
        return one_line(_written(value, limit), limit)
    except Exception:  # integers of more than 4,300 digits, deep lists, objects of users
        return f"a value of type {type(value).__name__}"


def _written(value: Any, limit: int) -> str:
    """``repr(value)``, or a text of more than ``limit`` characters that begins like it."""
    if type(value) in (str, bytes):
        head, rest = value[: limit + 1], value[limit + 1 :]
        quotes = ("'", '"') if type(value) is str else (b"'", b'"')
        for quote in quotes:  # those inside decide which ones stand around
            head += quote if quote in rest else quote[:0]
        return repr(head)
    if type(value) not in (list, tuple, dict) or not value:
        return repr(value)
    parts: list[str] = []
    room = limit
    for item in value.items() if isinstance(value, dict) else ((each,) for each in value):
        parts.append(": ".join(_written(each, room) for each in item))
        room -= len(parts[-1]) + 2
        if room < 0:
            break
    inside = ", ".join(parts)
    if isinstance(value, tuple):
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return f"{{{inside}}}" if isinstance(value, dict) else f"[{inside}]"


def one_line(said: object, limit: int = 200) -> str:
    """A text, or that of an error, on one printable line."""
    whole = str(said)
    start = whole[: 100 * limit]  # texts of megabytes are not split into words
    text = " ".join(start.split()) or "''"
    text = text if text.isprintable() else repr(text)
    is_all = len(text) <= limit and len(start) == len(whole)
    return text if is_all else f"{text[:limit]}..."


def cell(text: str) -> str:
    r"""A text of any origin for a cell of a Markdown table, where it is shown as it is.

    >>> from lgd.machinery import words
    >>> print(words.cell("limited_interval(1, 0, 0.5)"), words.cell("a|b <i>*c*</i>"))
    limited_interval(1, 0, 0.5) a\|b &lt;i&gt;\*c\*&lt;/i&gt;
    """
    line = one_line(text) if text else ""
    for character, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        line = line.replace(character, name)
    return re.sub(r"[\\`*|~$]|\[(?=\^)|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)


def code(text: str) -> str:
    """A text of any origin as code in Markdown."""
    line = one_line(text, 10_000)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"{fence}{line}{fence}"


def described(value: Any, limit: int = 80) -> str:
    """A value that was passed, in few words: arrays by dtype and shape, classes by their name."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if shape is not None and shape != () and dtype is not None:
        return f"an array {dtype} {one_line(shape)}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    text = shown(value, limit)
    plain = value is None or isinstance(value, bool | int | float | complex | str | bytes)
    return text if plain or type(value).__name__ in text else f"{type(value).__name__} {text}"
