"""A progress bar for anything that takes more than a few seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lgd.machinery.processes import is_main_process


@contextmanager
def bar(label: str, total: int, *, show: bool = True) -> Iterator[Callable[[str], None]]:
    """Yield ``advance(note)``, which moves the bar by one step and shows a short note beside it.

    With several processes, only process 0 shows the bar.
    """
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, disable=not (show and is_main_process())) as progress:
        task = progress.add_task(label, total=total, note="")

        def advance(note: str = "") -> None:
            state = progress.tasks[task]
            more = max(state.total or 0, state.completed + 1)  # a search may outgrow its estimate
            progress.update(task, advance=1, total=more, note=note)

        yield advance
