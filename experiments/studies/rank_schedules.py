r"""Rank guidance schedules by their held-out consistency loss, without a denoiser call.

    python -m experiments.studies.rank_schedules --stats=stats/digits --schedules=default
    python -m experiments.studies.rank_schedules --stats=stats/digits --workdir=runs/digits \
        --schedules=constant:0.5,limited_interval:2.4:0:0.15,clamp_linear:1.5,mine.json

The statistics are a folder that lgd.gram.collect filled, of data that no schedule was fitted
to. JSON files of schedules are described in experiments/schedule_files.py. All schedules are
scored on the same examples, times and noise, so that differences to the baseline are far more
certain than the losses. Writes ranking.json, ranking.md and figures into --out.

A low loss is not yet good samples. Measured by experiments.benchmarks.gram.rank, the order is right
among constants, and far too strong schedules come last; among schedules that help, it misleads. See
docs/statistics.md, and let samples decide.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.console import Console

from experiments import schedule_files
from experiments.studies import learned_schedules, ranking
from experiments.workdir.provenance import provenance
from lgd import gram, guidance, schedules
from lgd.gram import Layout, Statistics, StatisticsError
from lgd.objectives import (
    ConditionalMarginalConsistency,
    GridLaw,
    MarginalConsistency,
    SelfConsistency,
    StepLaw,
    TimeLaw,
)
from lgd.types import OmegaFn

BAD_INPUT = 2  # exit code
UNGUIDED = "unguided"
_DRAWN = 6  # schedules in maps and class figures, unless some are chosen

OneStep = SelfConsistency | ConditionalMarginalConsistency | MarginalConsistency


def objective_for(layout: Layout, *, beta: float, lam: float, churn: float) -> OneStep:
    """The consistency loss that statistics of these members allow."""
    m = layout.num_particles
    energy: dict[str, Any] = {"beta": beta, "lam": lam, "churn": churn}
    try:
        if layout.members == "copies":
            return SelfConsistency(num_particles=m, **energy)
        if layout.members == "condition":
            return ConditionalMarginalConsistency(group_size=m, **energy)
        return MarginalConsistency(num_particles=m, **energy)
    except ValueError as error:  # too few particles for lam
        raise StatisticsError(f"num_particles: {error}") from None


def read_statistics(path: Path) -> Statistics:
    """Statistics for schedules that are functions of (s, t, c). Raises StatisticsError."""
    found = gram.read(path)
    if len(found.layout.directions) > 1:
        raise StatisticsError(
            f"{path}: directions: expected one ('uncond'), got {found.layout.directions}"
        )
    return found._replace(
        layout=dataclasses.replace(found.layout, has_features=False),
        features=found.features[:, :, :0],
    )


def num_classes(found: Statistics) -> int | None:
    """Labels run from 0 to below this; None where conditions are no labels."""
    c = found.c
    if not isinstance(c, np.ndarray) or not np.issubdtype(c.dtype, np.integer):
        return None
    is_labels = c.ndim == (2 if found.layout.members == "mixed" else 1)
    return int(c.max()) + 1 if is_labels else None


def _all_schedules(chosen: argparse.Namespace, classes: int | None) -> dict[str, OmegaFn]:
    """Unguided, the rows of a run, and what --schedules names."""
    found = {UNGUIDED: guidance.constant(0.0)}
    errors: list[str] = []
    if chosen.workdir:
        try:
            found |= learned_schedules.rows(chosen.workdir) | found
            known = learned_schedules.num_classes(chosen.workdir)
            if classes is None or known < classes:
                errors.append(f"--workdir: expected the classes of the data, got {known}")
        except learned_schedules.LearnedError as error:
            errors.append(f"--workdir: {error}")
    try:
        named = schedule_files.read(chosen.schedules, num_classes=classes)
        errors += [
            f"{name}: expected a name that no row of --workdir has, got {name!r}"
            for name in named
            if name in found
        ]
        found |= named
    except schedule_files.ScheduleError as error:
        errors += error.errors
    for flag, names in {"--baseline": [chosen.baseline], "--draw": chosen.draw}.items():
        errors += [
            f"{flag}: expected one of the schedules, got {name!r}"
            for name in names
            if not errors and name not in found
        ]
    if errors:
        raise schedule_files.ScheduleError(errors)
    return found


def _law(chosen: argparse.Namespace) -> StepLaw:
    if chosen.law == "paper":
        return TimeLaw()
    return GridLaw(times=tuple(np.asarray(schedules.uniform_times(chosen.steps)).tolist()))


def _setting(chosen: argparse.Namespace, found: Statistics, objective: OneStep) -> str:
    law = "the paper's law of times" if chosen.law == "paper" else f"the {chosen.steps} steps"
    return (
        f"{type(objective).__name__}, beta {chosen.beta:g}, lambda {chosen.lam:g}, churn "
        f"{chosen.churn:g}, {law}; {found.size:,} examples, {chosen.num_draws} draws each."
    )


def run(chosen: argparse.Namespace, command: str) -> None:
    """Rank, print and write. Raises StatisticsError, ScheduleError, OSError."""
    found = read_statistics(chosen.stats)
    process = gram.schedule_behind(found)
    objective = objective_for(found.layout, beta=chosen.beta, lam=chosen.lam, churn=chosen.churn)
    named = _all_schedules(chosen, num_classes(found))
    scores = gram.score(
        found,
        named,
        objective=objective,
        schedule=process,
        law=_law(chosen),
        num_draws=chosen.num_draws,
        seed=chosen.seed,
        progress=True,
    )
    found_ranking = ranking.rank(scores, chosen.baseline)
    best = [name for name in found_ranking.names if name != chosen.baseline][:_DRAWN]
    Console().print(ranking.table(found_ranking))
    values = provenance(command) | {"fingerprint": found.fingerprint}
    setting = _setting(chosen, found, objective)
    ranking.write(found_ranking, chosen.out, setting, chosen.draw or best, values)
    print(f"ranking: {chosen.out / 'ranking.md'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.rank_schedules",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--stats", type=Path, required=True, metavar="FOLDER", help="statistics, held out")
    add(
        "--schedules",
        type=_words,
        action="extend",
        default=[],
        metavar="A,B,...",
        help="JSON files; kind:numbers, such as constant:0.5, limited_interval:W:LO:HI, "
        "clamp_linear:SCALE; default: a standard set of 40 (default: default)",
    )
    add("--workdir", default="", metavar="RUN", help="also every row of a finished run")
    add("--baseline", default=UNGUIDED, metavar="NAME", help="(default: unguided, always there)")
    add(
        "--beta",
        type=_within(0.0, 2.0, open_low=True),
        default=1.75,
        help="power of the distance, in (0, 2] (default: 1.75)",
    )
    add(
        "--lam",
        type=_within(0.0, 1.0),
        default=1.0,
        help="weight of the within-set term, in [0, 1] (default: 1)",
    )
    add(
        "--churn",
        type=_within(0.0, 1.0),
        default=1.0,
        help="of the step: 1 ancestral, 0 deterministic (default: 1)",
    )
    add(
        "--law",
        choices=("paper", "grid"),
        default="paper",
        help="of (s, t): the paper's, or the steps of a uniform sampling grid (default: paper)",
    )
    add("--steps", type=_whole(2), default=25, help="of that grid (default: 25)")
    add(
        "--num_draws",
        type=_whole(1),
        default=4,
        help="of s and of noise for every example (default: 4)",
    )
    add("--seed", type=_whole(0), default=0, help="of these draws (default: 0)")
    add(
        "--draw",
        type=_words,
        default=[],
        metavar="A,B,...",
        help=f"schedules drawn over times and classes (default: the best {_DRAWN})",
    )
    add("--out", type=Path, default=Path("ranking"), metavar="FOLDER", help="(default: ranking)")
    return parser  # fmt: skip


def _words(text: str) -> list[str]:
    """Split at commas outside of brackets, which names such as constant(0.5) may hold."""
    depths = itertools.accumulate((c == "(") - (c == ")") for c in text)
    marked = "".join(
        "\0" if c == "," and depth == 0 else c for c, depth in zip(text, depths, strict=True)
    )
    return [word.strip() for word in marked.split("\0") if word.strip()]


def _within(low: float, high: float, *, open_low: bool = False):  # type: ignore[no-untyped-def]
    def number(text: str) -> float:
        value = float(text)
        if not (low <= value <= high) or (open_low and value == low):
            raise argparse.ArgumentTypeError(
                f"expected a number in {'(' if open_low else '['}{low:g}, {high:g}], got {text}"
            )
        return value

    return number


def _whole(low: int):  # type: ignore[no-untyped-def]
    def number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {low}, got {text}")
        return value

    return number


def _refuse(errors: Sequence[str]) -> NoReturn:
    for error in errors:
        print(error, file=sys.stderr)
    sys.exit(BAD_INPUT)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    words = sys.argv[1:] if argv is None else list(argv)
    chosen = _parser().parse_args(words)
    if not chosen.schedules and not chosen.workdir:
        chosen.schedules = ["default"]
    try:
        run(chosen, " ".join(["python -m experiments.studies.rank_schedules", *words]))
    except schedule_files.ScheduleError as error:
        _refuse(error.errors)
    except (StatisticsError, OSError) as error:
        _refuse([str(error)])


if __name__ == "__main__":
    main()
