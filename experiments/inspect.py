"""Look at a guidance file: when it guides, for whom, and which hand-made schedules it resembles.

    python -m experiments.inspect --guidance=runs/digits/guidance/trajectory.safetensors
    python -m experiments.inspect --guidance=FILE --names=cat,dog --schedules=constant:0.5,mine.json

FILE is what lgd.save wrote; neither the run nor its data are needed. Says in words at which times
and for which conditions its weights are largest and least, and leaves NAME.txt and NAME.png in the
folder --out: a map of omega over steps and conditions, and its curves beside hand-made schedules.
Of several directions each has a picture of its own, NAME-0.png and so on.

Steps are those it was learned on, where it is a table of steps, else 25 equal ones. Conditions are
its labels or the centroids of its table. Guidance of vectors needs some: --conditions=FILE.npy.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import lgd
from experiments import console, inspection
from experiments.console import local_path
from experiments.inspection import Grid
from experiments.workdir import write_text
from lgd import plots
from lgd.exchange.files import FileError
from lgd.exchange.schedules import ScheduleError, read
from lgd.machinery import files, json_file
from lgd.machinery.words import one_line
from lgd.omega import Guidance
from lgd.types import Condition

_MAX_BYTES = 2**28  # of a file of conditions
_DRAWN = 4  # schedules beside the curves, unless some are named


class InspectError(ValueError):
    """A guidance, or what was given beside it, that cannot be looked at; says why."""


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options = _parser().parse_args(argv)
    with console.in_words(FileError, ScheduleError, InspectError):
        guidance = lgd.load(options.guidance)
        console.say(inspect(guidance, options))


def inspect(guidance: Guidance, options: argparse.Namespace) -> str:
    """What is said of a guidance; leaves it in a text file, with pictures beside it.

    Raises InspectError for a guidance whose weights, or conditions, are not known.
    """
    if guidance.num_features:
        raise InspectError(
            f"{options.guidance}: expected weights that are known before sampling, got guidance "
            "that looks at predictions of the model"
        )
    c = _conditions(guidance, options.conditions)
    times = inspection.own_times(guidance, options.steps)
    omega = np.asarray(guidance.table(times, c), np.float64).swapaxes(0, 1)  # (g, k, *d)
    names = _names(options, len(omega))
    stem = re.sub(r"\W+", "_", options.guidance.stem) or "guidance"
    said = [f"{options.guidance.name}: {guidance.summary}"]
    directions = [omega] if omega.ndim == 2 else list(np.moveaxis(omega, -1, 0))
    for number, of_one in enumerate(directions):
        grid = Grid(of_one, times, names, guidance.schedule)
        near = inspection.nearest(grid) + _given(options.schedules, grid)
        drawn = near[-len(options.schedules) :] if options.schedules else near[:_DRAWN]
        name = stem if len(directions) == 1 else f"{stem}-{number}"
        title = options.guidance.name if len(directions) == 1 else f"direction {number}"
        figure = plots.omega_inspection(
            of_one,
            t=times[:-1],
            condition_names=names,
            schedules={each.name: each.omega for each in drawn},
            title=title,
        )
        picture = files.output(options.out / f"{name}.png")
        plots.save(figure, picture)
        said += [f"Direction {number}"] * (len(directions) > 1)
        said += [inspection.words(grid, near), f"picture: {picture}"]
    text = "\n\n".join(said)
    write_text(files.output(options.out / f"{stem}.txt"), f"{text}\n")
    return text


def _conditions(guidance: Guidance, file: Path | None) -> Condition:
    """The conditions of a file, or those that the guidance tells apart."""
    if file is None:
        known = inspection.known_conditions(guidance)
        if known is None:
            raise InspectError(
                "expected --conditions=FILE.npy, an array (n, size) of vectors or (n,) of labels: "
                "the guidance does not say which conditions there are"
            )
        return known
    with files.opened(file, "a NumPy file of conditions", max_bytes=_MAX_BYTES) as stream:
        try:
            array = np.load(stream, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise InspectError(f"{file}: expected an array, got {one_line(error)}") from None
    if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or not len(array):
        raise InspectError(f"{file}: expected an array (n,) or (n, size), got another")
    try:
        guidance.table([guidance.model.support.t_max, guidance.model.support.s_min], array)
    except (TypeError, ValueError) as error:
        raise InspectError(f"{file}: expected conditions of this guidance: {error}") from None
    return jnp.asarray(array)


def _names(options: argparse.Namespace, count: int) -> list[str]:
    """Names that were given, those that a run left beside the file, or numbers."""
    if options.names:
        if len(options.names) != count:
            raise InspectError(f"--names: expected {count} names, got {len(options.names)}")
        return options.names
    beside = options.guidance.with_suffix(".scales.json")
    try:
        found = list(json_file.read(beside, "scales of a run", max_bytes=_MAX_BYTES))
    except (OSError, ValueError, TypeError):
        found = []
    return found if len(found) == count else [str(place) for place in range(count)]


def _given(sources: Sequence[str], grid: Grid) -> list[inspection.Near]:
    """Schedules that were named, beside the guidance."""
    found = []
    for name, schedule in read(sources, num_strata=None, schedule=grid.schedule).items():
        omega = inspection.on_steps(schedule, grid.times)
        if omega is None:
            raise InspectError(f"--schedules: expected schedules of one direction, got {name}")
        found.append(inspection.measured(grid, name, omega))
    return found


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _steps(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"expected 1 to 10000 steps, got {number}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--guidance", type=local_path, required=True, metavar="FILE", help="that lgd.save wrote")
    add("--out", type=local_path, default=Path("."), metavar="FOLDER", help="of text and picture")
    add("--steps", type=_steps, default=0, help="equal steps, in place of its own")
    add("--names", type=_words, default=[], help="names of the conditions, by commas")
    add("--conditions", type=local_path, metavar="FILE.npy", help="conditions to look at")
    add(
        "--schedules",
        type=_words,
        default=[],
        help="schedules to draw, by commas: words such as constant:0.5 and JSON files, see "
        "lgd/exchange/schedules.py; by default those that come nearest",
    )
    return parser


if __name__ == "__main__":
    console.command(main)
