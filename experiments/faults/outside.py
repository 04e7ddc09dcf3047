"""What lies around a run: its terminal, where it is started, links and folders in its way."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.faults.bench import Bench
from experiments.faults.endings import REFUSED, wrong_end

MINE = "not yours"  # what a link leads to


def terminal(bench: Bench) -> Iterator[str]:
    """A terminal that knows no character beyond ASCII: the table is shown, with others replaced."""
    environment = bench.environment | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    with bench.copy("report") as workdir:
        ended = bench.launch(workdir, ["report"], env=environment)
        wrong = wrong_end(ended, 0, "| unguided |", "Fr?chet")
        yield wrong or bench.difference(workdir, "report")


def packages(bench: Bench) -> Iterator[str]:
    """Packages of the names of ours where the run is started: they are not taken for ours."""
    with bench.copy("collect") as workdir:
        here = workdir.parent / "here"
        for name in ("configs", "lgd", "tests"):
            (here / name).mkdir(parents=True)
            (here / name / "__init__.py").write_text("raise RuntimeError('not ours')", "utf-8")
        yield wrong_end(bench.launch(workdir, ["denoiser"], cwd=here), 0)


def flag(bench: Bench) -> Iterator[str]:
    """A flag that does not exist."""
    with bench.copy("denoiser") as workdir:
        ended = bench.launch(workdir, ["denoiser"], "--restart_damagd")
        yield wrong_end(ended, REFUSED, "restart_damagd", "Did you mean: restart_damaged")


def url(bench: Bench) -> Iterator[str]:
    """A workdir that is not on this machine: refused before anything is made or trained."""
    with bench.copy("denoiser") as workdir:
        ended = bench.launch(Path("gs://bucket/run"), ["denoiser"], cwd=workdir)
        yield wrong_end(ended, REFUSED, "--workdir: gs:/bucket/run: expected a local path")
        yield "" if not os.listdir(workdir) else f"expected nothing, got {os.listdir(workdir)}"


def platform(bench: Bench) -> Iterator[str]:
    """Devices that are not there."""
    with bench.copy("denoiser") as workdir:
        for name in ("nothing", "cuda"):
            environment = bench.environment | {"JAX_PLATFORMS": name}
            ended = bench.launch(workdir, ["denoiser"], env=environment)
            yield wrong_end(ended, REFUSED, f"JAX_PLATFORMS: expected devices of {name!r}")


def _link(path: Path) -> None:
    (path.parent.parent / "elsewhere").write_text(MINE, "utf-8")
    path.symlink_to(path.parent.parent / "elsewhere")


def _folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _nothing_in_it(path: Path) -> None:
    path.write_text("{}", "utf-8")


PLACES: dict[str, tuple[str, str, Callable[[Path], None], str]] = {
    "a link as lock": ("denoiser", "lock", _link, "got a link"),
    "a folder as lock": ("denoiser", "lock", _folder, "got a folder"),
    "a link as timings.jsonl": ("denoiser", "timings.jsonl", _link, "got a link"),
    "a folder as config.json": ("collect", "config.json", _folder, "a folder"),
    "an empty config.json": ("collect", "config.json", _nothing_in_it, "made with another config"),
    "a folder as results.json": ("report", "results.json", _folder, "found none"),
    "a folder as LEDGER": ("collect", "LEDGER", _folder, "a folder"),
    "a folder as measured.jsonl": ("evaluate", "measured.jsonl", _folder, "a folder"),
}


def in_a_place(bench: Bench, name: str) -> Iterator[str]:
    """Put something else in the place of a file of the workdir: the run is refused by its name."""
    stage, file, put, words = PLACES[name]
    with bench.copy(stage) as workdir:
        put(workdir / file)
        ended = bench.launch(workdir, [stage])
        elsewhere = workdir.parent / "elsewhere"
        changed = elsewhere.exists() and elsewhere.read_text("utf-8") != MINE
        yield (
            "what the link leads to changed"
            if changed
            else wrong_end(ended, REFUSED, str(workdir), words)
        )


def results_of_nothing(bench: Bench) -> Iterator[str]:
    """Results without anything in them, taken as they are: the report names what it misses."""
    with bench.copy("report") as workdir:
        _nothing_in_it(workdir / "results.json")
        ended = bench.launch(workdir, ["report"], "--adopt")
        yield wrong_end(ended, REFUSED, "results.json: expected an object with config, rows")
