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
