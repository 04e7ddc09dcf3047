"""The command line that studies and benchmarks share: measure, print, write, draw."""

import argparse
import ast
import dataclasses
import importlib
import importlib.util
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import console
from experiments.publish import markdown, tables
from experiments.workdir import write_json, write_text
from experiments.workdir.provenance import provenance
from lgd import plots
from lgd.machinery import progress, stopping

_PATHS = ("--workdir", "--data", "--out")  # arguments that name places of a machine
Add = Callable[..., Any]  # `argparse.ArgumentParser.add_argument`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What a module of studies or benchmarks offers to the command line, as its ``STUDY``.

    measure: parsed arguments -> results as JSON, which carry the columns of their tables, see
      `markdown`. Results are left in the folder ``--out``, or else ``--workdir``, where there is
      such an argument.
    arguments: adds the study's own.
    figures: results, also published ones, -> figures by what their files' names end on, "" for a
      only one.
    refused: errors that are the user's, beside those of a config and of a workdir.
    is_published: whether its results may be; else only its figures.
    """

    measure: Callable[[Namespace], Mapping[str, Any]]
    arguments: Callable[[Add], None] = lambda add: None
    figures: Callable[[Mapping[str, Any]], Mapping[str, Figure]] = lambda results: {}
    refused: tuple[type[Exception], ...] = ()
    is_published: bool = True


def main(package: str, modules: Mapping[str, str], argv: Sequence[str] | None = None) -> None:
    """Run ``python -m PACKAGE COMMAND ...``; modules: by command, where its ``STUDY`` is."""
    words = sys.argv[1:] if argv is None else list(argv)
    names = [f"  {name:20} {_first_line(module)}" for name, module in modules.items()]
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["commands:", *names]),
    )
    parser.add_argument(
        "command", choices=modules, metavar="COMMAND", help="its own arguments: COMMAND --help"
    )
    command = parser.parse_args(words[:1]).command
    _run(f"{parser.prog} {command}", modules[command], words[1:])


def _first_line(module: str) -> str:
    """First line of a module's docstring, read without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"expected a module, got {module!r}")
    documentation = ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8")))
    return (documentation or "").partition("\n")[0]


def _run(prog: str, module: str, words: Sequence[str]) -> None:
    code = importlib.import_module(module)
    study: Study = code.STUDY
    parser = argparse.ArgumentParser(
        prog=prog,
        description=code.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    study.arguments(parser.add_argument)
    kinds = "experiments/results/NAME.json and docs/NAME*.png"
    parser.add_argument("--name", default="", help=f"publish as {kinds}")
    options = parser.parse_args(words)
    with stopping.on_signals(), console.in_words(*study.refused):
        with progress.phase(prog.split()[-1]):
            measured = study.measure(options)
        results = {**provenance(_command(prog, words)), **measured}
        _publish(options, prog.split()[-1], module, study, results)


def _publish(
    options: Namespace, command: str, module: str, study: Study, results: Mapping[str, Any]
) -> None:
    """Leave results on the screen, in the folder, and in the repository where they have a name."""
    console.say(markdown.everything(results))
    folder = vars(options).get("out", vars(options).get("workdir"))
    if folder is not None:
        _leave(_first_line(module), command, results, study, Path(folder))
    if options.name:
        if study.is_published:
            write_json(tables.RESULTS / f"{options.name}.json", results)
        _draw(study, results, tables.ROOT / "docs", options.name)


def _leave(
    title: str, command: str, results: Mapping[str, Any], study: Study, folder: Path
) -> None:
    """COMMAND.json, and in report/ the tables with the figures."""
    report = folder / "report"
    report.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{command}.json", results)
    pictures = [f"![{name}]({name}.png)\n" for name in _draw(study, results, report, command)]
    parts = [f"# {title}\n", markdown.everything(results), tables.provenance(results), *pictures]
    write_text(report / f"{command}.md", "\n".join(parts))
    console.say(f"report: {report / command}.md")


def _draw(study: Study, results: Mapping[str, Any], folder: Path, stem: str) -> list[str]:
    """Save the figures; names of their files, without the ending."""
    figures = {f"{stem}-{end}" if end else stem: fig for end, fig in study.figures(results).items()}
    for name, figure in figures.items():
        plots.save(figure, folder / f"{name}.png")
    return list(figures)


def _command(prog: str, words: Sequence[str]) -> str:
    """The command that measures this again, without the paths of a machine."""
    kept, rest = prog.split(), iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in (*_PATHS, "--name", "--set") and not equals:
            value = next(rest, "")
            word = f"{name}={value}"
        if name != "--name" and not (name == "--set" and value.startswith("data.path=")):
            kept.append(f"{name}=..." if name in _PATHS else word)
    return shlex.join(kept)
