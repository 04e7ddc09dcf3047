"""Values and errors in the messages of a program: one printable line, of bounded length."""

from typing import Any


def shown(value: Any, limit: int = 200) -> str:
    """A value as it is written in Python, on one line; the name of its type if that fails."""
    try:
        return one_line(repr(value), limit)
    except Exception:  # integers of more than 4,300 digits, deep lists, objects of users
        return f"a value of type {type(value).__name__}"


def one_line(said: object, limit: int = 200) -> str:
    """A text, or that of an error, on one printable line."""
    text = " ".join(str(said).split()) or "''"
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= limit else f"{text[:limit]}..."


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
