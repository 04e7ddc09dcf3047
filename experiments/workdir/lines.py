"""Files of a workdir that grow by lines of JSON, and what the ledger knows of them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.workdir.files import read_lines, write_text
from experiments.workdir.ledger import FileLedger
from lgd.machinery import files, processes

METRICS = {"training": str, "step": int}  # fields of every line of metrics.jsonl
Tell = Callable[[int, Mapping[str, Any]], None]


class GrowingFiles:
    """While a process appends to a file the ledger knows its beginning, and all of it at the end.

    A line that a kill leaves behind the beginning is judged by whoever reads it.
    """

    def __init__(self, ledger: FileLedger) -> None:
        self._ledger, self._files = ledger, set[Path]()

    def add(self, file: Path) -> None:
        """Expect lines from now on, here or by another writer."""
        if file not in self._files and file in self._ledger:
            self._ledger.note(file, grows=True)
        self._files.add(file)

    @processes.by_main
    def append(self, file: Path, line: Mapping[str, Any]) -> None:
        """Append a JSON object."""
        self.add(file)
        append(file, json.dumps(line))

    @processes.by_main
    def rewrite(self, file: Path, lines: list[dict]) -> None:
        """Replace all lines."""
        self._files.add(file)
        with self._ledger.writing(file, grows=True) as draft:
            write_text(draft, "".join(f"{json.dumps(line)}\n" for line in lines))

    @processes.by_main
    def note(self, *, grow: bool) -> None:
        """Let the ledger know all lines up to now, and whether there will be more."""
        self._ledger.note(*sorted(filter(Path.exists, self._files)), grows=grow)


def append(file: Path, line: str) -> None:
    """Append a line of text to a file, which is no link."""
    files.append(file, f"{line}\n".encode())


def metrics(growing: GrowingFiles, file: Path, name: str, tell: Tell) -> Tell:
    """A function that appends lines of one training to metrics.jsonl and tells them on.

    Its first call drops the lines that an interrupted run logged from that step on, and tells the
    others again.
    """
    resumed = False

    @processes.by_main
    def log(step: int, values: Mapping[str, Any]) -> None:
        nonlocal resumed
        if not resumed:
            kept = [line for line in read_lines(file, METRICS) if not _is_later(line, name, step)]
            growing.rewrite(file, kept)
            resumed = True
            for line in kept:
                if line.pop("training") == name:
                    tell(line.pop("step"), line)
        growing.append(file, {"training": name, "step": step, **values})
        tell(step, values)

    return log


def _is_later(line: Mapping[str, Any], name: str, step: int) -> bool:
    return line["training"] == name and line["step"] >= step
