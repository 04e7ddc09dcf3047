"""Who may import whom, and how long a file or a function may be; read from the syntax trees."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (  # a room may import from the floors below its own
    "types",
    "machinery",
    "schedules conditions encoders discrepancy rewards",
    "diffusion",
    "guidance denoisers",
    "omega data sampling",
    "training metrics plots",
    "objectives starts report",
    "checks",
    "gram direct",
    "learn",
    "evaluation",
    "exchange",
)
FOREIGN = {"torch", "diffusers", "transformers", "tensorflow"}  # for lgd.exchange alone, lazily
FOREIGN_CLASSES = {"lgd/exchange/diffusers/guider.py"}  # imported with the framework it extends
LAUNCHER = {"absl", "ml_collections", "experiments", "tests"}  # not for the library
HEAVY = ("scipy.stats", "matplotlib", "orbax", "grain", "sklearn", "PIL")
LONGEST_FILE, LONGEST_FUNCTION = 300, 50

# Tests of experiments; those of the library import only lgd. Names may go, none should come.
EXPERIMENTS = """
    ablations accelerator benchmarks build config console denoiser_rules faults floor
    fuzz_workdir gram_rank gram_runs image_runs inspect convert_inception launcher ledger
    ledger_runs loggers notebook_use notebooks path_runs pretrained pretrained_guidance process_runs
    rank_schedules report_page train_pipeline readme
    reward_runs scale workdir
"""


class Import(NamedTuple):
    """A module that a file imports; whether it does so inside a function, when that runs."""

    file: Path
    line: int
    module: str
    lazy: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def imports(file: Path) -> Iterator[Import]:
    """Every import of a file; of ``from lgd import name``, the module is lgd.name."""
    tree = ast.parse(file.read_text())
    lazy = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            whole = module == "lgd"
            modules = [f"lgd.{alias.name}" for alias in node.names] if whole else [module]
        else:
            continue
        yield from (Import(file, node.lineno, module, node in lazy) for module in modules)


def top(module: str) -> str:
    return module.partition(".")[0]


def room(module: str) -> str:
    """The room of a module of lgd: "sampling" of lgd.sampling.walk."""
    return module.split(".")[1]


def room_of_file(file: Path) -> str:
    return file.relative_to(ROOT / "lgd").parts[0].removesuffix(".py")


def rooms() -> dict[str, list[Import]]:
    """The imports of every room from other rooms."""
    found: dict[str, list[Import]] = {}
    for file in python_files("lgd"):
        if file != ROOT / "lgd" / "__init__.py":  # the face, which imports rooms by name
            name = room_of_file(file)
            others = [i for i in imports(file) if i.module.startswith("lgd.")]
            found.setdefault(name, []).extend(i for i in others if room(i.module) != name)
    return found


def drawing(edges: dict[str, list[Import]]) -> str:
    """The floors from the roof down, and what every room imports."""
    lines = []
    for number, floor in reversed(list(enumerate(FLOORS))):
        for name in floor.split():
            below = sorted({room(i.module) for i in edges.get(name, [])})
            lines.append(f"{number:2} {name:12} <- {', '.join(below)}")
    return "\n".join(lines)


def test_every_room_imports_from_the_floors_below_it():
    edges = rooms()
    level = {name: number for number, floor in enumerate(FLOORS) for name in floor.split()}
    assert not set(edges) - set(level), "rooms without a floor: add them to FLOORS"
    assert not set(level) - set(edges) - {"exchange"}, "floors for rooms that are gone"
    upward = [
        str(i)
        for name, found in edges.items()
        for i in found
        if level.get(room(i.module), len(FLOORS)) >= level[name]
    ]
    assert not upward, "\n".join(["", drawing(edges), "", *upward])


def test_the_library_knows_no_launcher_and_foreign_frameworks_only_to_exchange_with_them():
    wrong = []
    for file in python_files("lgd"):
        for found in imports(file):
            extends = str(file.relative_to(ROOT)) in FOREIGN_CLASSES
            may = extends or (found.lazy and room_of_file(file) == "exchange")
            if top(found.module) in LAUNCHER or (top(found.module) in FOREIGN and not may):
                wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_tests_of_the_library_do_without_experiments():
    known = {f"test_{name}" for name in EXPERIMENTS.split()} | {"untrained", "workdir_readers"}
    files = [f for f in python_files("tests") if f.parent.name != "experiments"]
    wrong = [
        str(found)
        for file in files
        if file.stem not in known
        for found in imports(file)
        if top(found.module) == "experiments"
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_what_learns_and_samples_loads_nothing_heavy():
    code = "import lgd, sys; lgd.learn_guidance; lgd.sampling.sample; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert "lgd.learn" in ran.stdout.split()
    assert not set(HEAVY) & set(ran.stdout.split())


def test_every_module_is_there_after_importing_the_library_alone():
    files = [str(f.relative_to(ROOT)) for f in python_files("lgd") if f.name[0] != "_"]
    here = sorted(set(files) - FOREIGN_CLASSES)
    names = [file.removesuffix(".py").replace("/", ".") for file in here]
    code = f"import lgd\nfor name in {names}: eval(name)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr


def too_long(file: Path) -> Iterator[str]:
    """The file, and functions of it, that exceed their length without a comment ``# long:``.

    The docstring of a function does not count.
    """
    lines = file.read_text().splitlines()
    where = file.relative_to(ROOT)
    if len(lines) > LONGEST_FILE:
        yield f"{where}: {len(lines)} lines"
    for node in ast.walk(ast.parse("\n".join(lines))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0]
        has_docstring = ast.get_docstring(node) is not None
        docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
        length = (node.end_lineno or 0) - node.lineno + 1 - docstring
        body = lines[node.lineno - 1 : node.end_lineno]
        if length > LONGEST_FUNCTION and not any("# long: " in line for line in body):
            yield f"{where}:{node.lineno}: {node.name}: {length} lines"


def test_files_and_functions_are_short():
    found = [line for file in python_files("lgd", "experiments") for line in too_long(file)]
    assert not found, "\n".join(found)


def test_text_is_utf8_whatever_the_machine():
    """Also where the terminal knows fewer characters."""
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in python_files("lgd", "experiments")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if (node.func.attr == "read_text" and not node.args)
        or (node.func.attr == "write_text" and len(node.args) == 1)
        if not any(keyword.arg == "encoding" for keyword in node.keywords)
    ]
    assert not wrong, "\n".join(wrong)


def functions(file: Path) -> Iterator[ast.FunctionDef]:
    """Public functions of a module, and public methods of its public classes."""
    for node in ast.parse(file.read_text()).body:
        body = node.body if isinstance(node, ast.ClassDef) and node.name[0] != "_" else [node]
        for inner in body:
            if isinstance(inner, ast.FunctionDef) and inner.name[0] != "_":
                yield inner


@pytest.mark.parametrize("room", ["lgd", "experiments"])
def test_functions_of_many_arguments_describe_them(room):
    """Five or more without self; what an Args section must name is checked by ruff's D417."""
    bare = []
    for file in python_files(room):
        for function in functions(file):
            names = [arg.arg for arg in (*function.args.args, *function.args.kwonlyargs)]
            is_contract = file.name == "types.py" or function.name in ("apply", "step", "__call__")
            many = len([name for name in names if name != "self"]) >= 5
            if many and not is_contract and "Args:" not in (ast.get_docstring(function) or ""):
                bare.append(f"{file.relative_to(ROOT)}:{function.lineno} {function.name}")
    assert not bare, "\n".join(bare)
