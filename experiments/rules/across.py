"""The form of a rule across fields."""

from collections.abc import Callable
from typing import NamedTuple


class Across(NamedTuple):
    """A rule across several fields of a config.

    ``wrong`` takes the values of the fields, in the types of the defaults, and returns the mistake
    in the first one, "expected ..., got ...", or None. It is called only if all fields are valid by
    themselves.
    """

    fields: tuple[str, ...]
    wrong: Callable[..., str | None]
