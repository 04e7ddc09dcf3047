"""Optional packages, imported when they are needed."""

import importlib
from types import ModuleType


def required(module: str, extra: str) -> ModuleType:
    """A module of an optional package.

    Raises:
      ImportError: naming the command that brings it, where it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        command = f"pip install 'lgd[{extra}]'"
        raise ImportError(f"{module}: expected the extra {extra!r}; {command} ({error})") from error
