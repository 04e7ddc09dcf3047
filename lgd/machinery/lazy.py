"""Modules of a package that are there without being imported one by one."""

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType


def modules_of(package: str) -> Callable[[str], ModuleType]:
    """A ``__getattr__`` for a package, which imports its modules when they are first used.

    A package writes ``__getattr__ = modules_of(__name__)``.
    """

    def import_module(name: str) -> ModuleType:
        path = importlib.import_module(package).__path__
        if name in {module.name for module in pkgutil.iter_modules(path)}:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return import_module
