"""The form of a rule across fields."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Across(NamedTuple):
    """A rule across several fields of a config.

    ``wrong`` takes the values of the fields, in the types of the defaults, and returns the mistake
    in the first one, "expected ..., got ...", or None. It is called only if all fields are valid by
    themselves.
    """

    fields: tuple[str, ...]
    wrong: Callable[..., str | None]


def refused(fields: tuple[str, ...], holds: Callable[..., bool], expected: str) -> Across:
    """A rule against values of which something holds.

    expected: what the first field should be, in which {0}, {1} are the values.
    """
    return Across(
        fields,
        lambda *values: (
            f"expected {expected.format(*values)}, got {values[0]!r}" if holds(*values) else None
        ),
    )


def only(
    field: str, neutral: Any, other: str, fits: Callable[[Any], bool], rest: str, expected: str = ""
) -> Across:
    """A rule that a field has its neutral value unless another one fits.

    Args:
      field: whose value is looked at.
      neutral: the value that always may be.
      other: the field that it depends on.
      fits: of the other one, whether all values may be.
      rest: those values and where they may be, in words.
      expected: the neutral value in words.
    """
    what = other.removesuffix(".name").rpartition(".")[2]
    return refused(
        (field, other),
        lambda value, at: value != neutral and not fits(at),
        f"{expected or neutral} for {what} {{1}} ({rest} only)",
    )


def has_images(data: str) -> bool:
    """Whether a data set has images; the mixture has points."""
    return data != "mixture"
