"""What the tests of readers on changed files share."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from mutations import changed
from readers import Reader, outcome, part_of, place


def check_valid(reader: Reader, folder: Path) -> None:
    """Fail unless the valid files are read."""
    place(reader, folder / "valid", part_of(reader))
    assert outcome(reader, folder / "valid") == "read"


def check_changed(
    reader: Reader,
    folder: Path,
    *,
    max_examples: int,
    read: Callable[[Path], str] | None = None,
) -> None:
    """Fail for a change that is neither read nor refused by name.

    read: returns the outcome of reading a folder; None: here.
    """

    @settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        derandomize=read is None,
        suppress_health_check=[*HealthCheck],
    )
    @given(changed(part_of(reader), is_json=reader.is_json))
    def check(part: bytes) -> None:
        place(reader, folder / "changed", part)
        said = outcome(reader, folder / "changed") if read is None else read(folder / "changed")
        assert not said.startswith("fault"), said

    check()
