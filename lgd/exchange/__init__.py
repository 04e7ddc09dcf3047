"""What other programs read and write: guidance in `files`, schedules as JSON in `schedules`."""

import importlib
from typing import Any

_MODULES = ("files", "kinds", "schedules")


def __getattr__(name: str) -> Any:
    """A module of this room, imported when it is first used."""
    if name in _MODULES:
        return importlib.import_module(f"lgd.exchange.{name}")
    raise AttributeError(f"module 'lgd.exchange' has no attribute {name!r}")
