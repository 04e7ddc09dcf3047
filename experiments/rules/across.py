"""A rule of several fields."""

from collections.abc import Callable
from typing import NamedTuple


class Across(NamedTuple):
    """Takes the values of its fields, returns what is wrong with the first or None.

    Runs only when every one of these fields is right by itself. A rule sees values of the default's
    type, and completes "field: expected ..., got ...".
    """

    fields: tuple[str, ...]
    wrong: Callable[..., str | None]
