"""The examples in docstrings of the library run, and every name of the front door has one."""

import ast
import doctest
import importlib
import inspect
import time
from pathlib import Path

import pytest

import lgd

ROOT = Path(__file__).resolve().parents[1]
QUICK = 60.0  # seconds of processors for all examples of a module, compilation included


def documented(module):
    """Names and docstrings of a module and of everything defined in it.

    From its source: decorated functions hide their docstrings from `doctest`.
    """
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source_of(module).read_text())):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)) and ">>>" in text:
            yield getattr(node, "name", module), text, getattr(node, "lineno", 0)


def source_of(module):
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


FILES = [file.relative_to(ROOT).with_suffix("") for file in (ROOT / "lgd").rglob("*.py")]
MODULES = sorted(".".join(file.parts).removesuffix(".__init__") for file in FILES)


@pytest.mark.parametrize("module", [name for name in MODULES if any(documented(name))])
def test_examples_run(module, tmp_path, monkeypatch):
    """As a reader would type them: nothing is defined but what they define themselves."""
    monkeypatch.chdir(tmp_path)
    runner, told = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE), []
    start = time.process_time()
    for name, text, line in documented(module):
        example = doctest.DocTestParser().get_doctest(
            text, {"__name__": "__main__"}, f"{module}.{name}", str(source_of(module)), line
        )
        runner.run(example, out=told.append)
    assert not runner.failures, "".join(told)
    assert time.process_time() - start < QUICK


@pytest.mark.parametrize("name", sorted(lgd._NAMES))
def test_a_name_of_the_front_door_has_an_example(name):
    value = inspect.unwrap(getattr(lgd, name))
    module = importlib.import_module(value.__module__)
    assert value.__name__ in {found for found, _, _ in documented(module.__name__)}
