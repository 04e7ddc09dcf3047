"""What is under way: bars on a terminal, lines where the output goes into a pipe or a file.

Phases may lie in one another. Each that lasts says so: a line comes `FIRST_SECONDS` after it began,
and then, of the innermost one, every `EVERY_SECONDS`. One that is over before says nothing.
"""

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import rich
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

FIRST_SECONDS = 2.0
EVERY_SECONDS = 30.0


@dataclasses.dataclass(eq=False)
class _Phase:
    """Something that takes time: its label, steps done and in all (0: not counted)."""

    label: str
    total: int
    start: float
    done: int = 0
    note: str = ""
    is_told: bool = False

    def advance(self, note: str = "") -> None:
        """Count a step; a search may outgrow its estimate."""
        self.done, self.note = self.done + 1, note
        self.total = max(self.total, self.done)

    def line(self) -> str:
        """The line that the bar shows."""
        count = f" {self.done}/{self.total}" if self.total else ""
        note = f", {self.note}" if self.note else ""
        return f"{self.label}{count}, {time.monotonic() - self.start:.0f} s{note}"


class _Lines:
    """Tells of the phases under way from a thread, which lives as long as there are any."""

    def __init__(self) -> None:
        self._phases: list[_Phase] = []
        self._changed = threading.Condition()
        self._last = 0.0

    @contextlib.contextmanager
    def showing(self, phase: _Phase) -> Iterator[Callable[[str], None]]:
        with self._changed:
            self._phases.append(phase)
            if len(self._phases) == 1:
                self._last = phase.start
                threading.Thread(target=self._tell, args=(phase,), daemon=True).start()
        try:
            yield phase.advance
        finally:
            with self._changed:
                self._phases.remove(phase)
                self._changed.notify_all()

    def _tell(self, first: _Phase) -> None:
        while True:
            with self._changed:
                if first not in self._phases:
                    return
                wait = self._due() - time.monotonic()
                if wait > 0:
                    self._changed.wait(min(wait, 1.0))
                    continue
                line, self._last = self._phases[-1].line(), time.monotonic()
                for phase in self._phases:
                    phase.is_told = True
            _print(line)

    def _due(self) -> float:
        """When the next line is due."""
        untold = [phase.start + FIRST_SECONDS for phase in self._phases if not phase.is_told]
        return min([*untold, self._last + EVERY_SECONDS])


class _Bars:
    """Draws the phases under way, and leaves the outermost bars that are over above them."""

    def __init__(self) -> None:
        self._tasks: list[TaskID] = []
        self._progress: Progress

    @contextlib.contextmanager
    def showing(self, phase: _Phase) -> Iterator[Callable[[str], None]]:
        if not self._tasks:
            self._progress = Progress(*_columns(), transient=True)
            self._progress.start()
        progress = self._progress
        task = progress.add_task(phase.label, total=phase.total or None, note="")
        self._tasks.append(task)

        def advance(note: str = "") -> None:
            phase.advance(note)
            progress.update(task, completed=phase.done, total=phase.total, note=note)

        try:
            yield advance
        finally:
            if phase.total and not any(each.total for each in progress.tasks if each.id != task):
                over = [each for each in progress.tasks if each.id == task]
                progress.console.print(progress.make_tasks_table(over))
            progress.remove_task(task)
            self._tasks.remove(task)
            if not self._tasks:
                progress.stop()


class _Count(ProgressColumn):
    """Steps done and in all, where they are counted."""

    def render(self, task: Task) -> Text:
        """The count of one task."""
        return Text("" if task.total is None else f"{int(task.completed)}/{int(task.total)}")


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=28),
        _Count(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )


_LINES, _BARS = _Lines(), _Bars()
_hidden = 0  # phases under way that are not shown, nor is what lies in them


@contextlib.contextmanager
def bar(label: str, total: int, *, show: bool = True) -> Iterator[Callable[[str], None]]:
    """Yield ``advance(note)``, which counts one of the steps and shows a short note beside it.

    With several processes, only process 0 shows anything. What is not shown hides all inside it.
    """
    global _hidden
    console, phase = rich.get_console(), _Phase(label, total, time.monotonic())
    if show and not _hidden and _speaks():
        drawn = console.is_interactive or console.is_jupyter
        with (_BARS if drawn else _LINES).showing(phase) as advance:
            yield advance
        return
    _hidden += 1
    try:
        yield phase.advance
    finally:
        _hidden -= 1


def phase(label: str, *, show: bool = True) -> contextlib.AbstractContextManager[object]:
    """Show that something is under way whose steps nobody counts."""
    return bar(label, 0, show=show)


def _speaks() -> bool:
    """Whether this process shows anything; without JAX yet, it is alone for all that it knows."""
    processes: Any = sys.modules.get("lgd.machinery.processes")
    return processes is None or processes.is_main_process()


def _print(line: str) -> None:
    """Print at once, with what the stream can encode; nothing where nobody reads it any more."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        print(line.encode(encoding, "replace").decode(encoding), flush=True)
