r"""Rank guidance schedules by their held-out consistency loss, without a denoiser call.

    python -m experiments.studies rank_schedules --stats=stats/digits --schedules=default
    python -m experiments.studies rank_schedules --stats=stats/digits --workdir=runs/digits \
        --schedules=constant:0.5,limited_interval:2.4:0:0.15,clamp_linear:1.5,mine.json

The statistics are a folder that lgd.gram.collect filled, of data that no schedule was fitted
to. JSON files of schedules are described in lgd/exchange/schedules.py; what a run learned lies in
its folder guidance/, for entries of the kind "guidance". All schedules are scored on the same
examples, times and noise, so that differences to the baseline are far more certain than the losses.

A low loss is not yet good samples. Measured by experiments.benchmarks gram_rank, the order is right
among constants, and far too strong schedules come last; among schedules that help, it misleads. See
docs/statistics.md, and let samples decide.
"""

import dataclasses
import itertools
from argparse import Namespace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import config as configs
from experiments import finished
from experiments.console import local_path
from experiments.publish.study import Add, Study
from experiments.studies import ranking
from experiments.workdir import WorkdirError
from lgd import conditions, gram, guidance, schedules
from lgd.exchange.schedules import ScheduleError, read
from lgd.gram import Layout, Statistics, StatisticsError
from lgd.objectives import (
    ConditionalMarginalConsistency,
    GridLaw,
    MarginalConsistency,
    OneStep,
    SelfConsistency,
    StepLaw,
    TimeLaw,
)
from lgd.types import OmegaFn, Schedule

UNGUIDED = "unguided"
_DRAWN = 6  # schedules in maps and class figures, unless some are named


def objective_for(layout: Layout, *, beta: float, lam: float, churn: float) -> OneStep:
    """Return the consistency loss that statistics of these members allow."""
    energy: dict[str, Any] = {"beta": beta, "lam": lam, "churn": churn}
    m = layout.num_particles
    if layout.members == "condition":
        return ConditionalMarginalConsistency(group_size=m, **energy)
    of_members = SelfConsistency if layout.members == "copies" else MarginalConsistency
    return of_members(num_particles=m, **energy)


def read_statistics(path: Path) -> Statistics:
    """Return statistics for schedules of (s, t, c). Raises StatisticsError."""
    statistics = gram.read(path)
    if len(statistics.layout.directions) > 1:
        raise StatisticsError(
            f"{path}: directions: expected one ('uncond'), got {statistics.layout.directions}"
        )
    return statistics._replace(
        layout=dataclasses.replace(statistics.layout, has_features=False),
        features=statistics.features[:, :, :0],
    )


def num_classes(statistics: Statistics) -> int | None:
    """Return the number above all labels; None where conditions are no labels."""
    c = statistics.c
    if statistics.layout.members == "mixed":  # each particle has its own
        c = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), c)
    labels = conditions.labels_of(c)
    return None if labels is None else int(labels.max()) + 1


def rows_of_run(workdir: str | Path) -> tuple[dict[str, OmegaFn], int]:
    """Return the schedule of every row of a finished run, as selected, and its number of classes.

    Raises ScheduleError.
    """
    try:
        with finished.opened(Path(workdir)) as run:
            return run.guidance(), run.dataset.num_classes
    except (
        WorkdirError,
        configs.ConfigError,
        OSError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        got = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"--workdir: {workdir}: expected the folder of a finished run, got {got}"
        raise ScheduleError([message]) from None


def _all_schedules(
    options: Namespace, classes: int | None, process: Schedule
) -> dict[str, OmegaFn]:
    """Unguided, the rows of a run, and what --schedules names."""
    every: dict[str, OmegaFn] = {UNGUIDED: guidance.constant(0.0)}
    errors: list[str] = []
    try:
        rows, known = rows_of_run(options.workdir) if options.workdir else ({}, classes)
        every |= {**rows, **every}
        if options.workdir and (classes is None or known is None or known < classes):
            errors.append(f"--workdir: expected the classes of the data, got {known}")
    except ScheduleError as error:
        errors += error.errors
    sources = options.schedules or ([] if options.workdir else ["default"])
    try:
        named = read(sources, num_strata=classes, schedule=process)
        errors += [
            f"{name}: expected a name that no row of --workdir has, got {name!r}"
            for name in named
            if name in every
        ]
        every |= named
    except ScheduleError as error:
        errors += error.errors
    for flag, names in {"--baseline": [options.baseline], "--draw": options.draw}.items():
        errors += [
            f"{flag}: expected one of the schedules, got {name!r}"
            for name in names
            if not errors and name not in every
        ]
    if errors:
        raise ScheduleError(errors)
    return every


def _law(options: Namespace) -> StepLaw:
    if options.law == "paper":
        return TimeLaw()
    return GridLaw(times=tuple(np.asarray(schedules.uniform_times(options.steps)).tolist()))


def _note(options: Namespace, statistics: Statistics, objective: OneStep) -> str:
    law = "the paper's law of times" if options.law == "paper" else f"the {options.steps} steps"
    return (
        f"{type(objective).__name__}, beta {options.beta:g}, lambda {options.lam:g}, churn "
        f"{options.churn:g}, {law}; {statistics.size:,} examples, {options.num_draws} draws each. "
        f"Intervals are of 95%, each schedule by itself; the difference is to {options.baseline}, "
        "on the same draws. Bold where its interval leaves out 0. A low loss is not yet good "
        "samples: trust the order of constants, let samples decide the rest. Pictures: differences "
        "(grey: the interval holds 0), what each bin of (s, t) adds to them (blue is better), and "
        "the same by class (a dot: the interval holds 0)."
    )


def measure(options: Namespace) -> dict[str, Any]:
    """Return the ranking. Raises StatisticsError, ScheduleError, ValueError or OSError."""
    if options.num_draws < 1:
        raise StatisticsError(f"num_draws: expected >= 1, got {options.num_draws}")
    statistics = read_statistics(options.stats)
    objective = objective_for(
        statistics.layout, beta=options.beta, lam=options.lam, churn=options.churn
    )
    process = gram.schedule_behind(statistics)
    scores = gram.score(
        statistics,
        _all_schedules(options, num_classes(statistics), process),
        objective=objective,
        schedule=process,
        law=_law(options),
        num_draws=options.num_draws,
        seed=options.seed,
        progress=True,
    )
    rows = ranking.rank(scores, options.baseline)
    best = [row["name"] for row in rows if row["name"] != options.baseline][:_DRAWN]
    return {
        "fingerprint": statistics.fingerprint,
        "baseline": options.baseline,
        "columns": ranking.COLUMNS,
        "rows": rows,
        "note": _note(options, statistics, objective),
        **ranking.details(scores, options.baseline, options.draw or best),
    }


def arguments(add: Add) -> None:
    """Add the arguments of this study."""
    words: dict[str, Any] = {"type": _words, "default": [], "metavar": "A,B,..."}
    add("--stats", type=local_path, required=True, metavar="FOLDER", help="statistics, held out")
    kinds = "constant:0.5, limited_interval:W:LO:HI, clamp_linear:SCALE"
    add(
        "--schedules",
        action="extend",
        help=f"JSON files; kind:numbers, such as {kinds}; default: a standard set of 40",
        **words,
    )
    add("--workdir", type=local_path, metavar="RUN", help="also every row of a finished run")
    add("--baseline", default=UNGUIDED, metavar="NAME", help="(default: unguided, always there)")
    add("--beta", type=float, default=1.75, help="power of the distance, in (0, 2]")
    add("--lam", type=float, default=1.0, help="weight of the within-set term, in [0, 1]")
    add("--churn", type=float, default=1.0, help="of the step: 1 ancestral, 0 deterministic")
    laws = "the paper's, or the steps of a uniform sampling grid"
    add("--law", choices=("paper", "grid"), default="paper", help=f"of (s, t): {laws}")
    add("--steps", type=int, default=25, help="of that grid")
    add("--num_draws", type=int, default=4, help="of s and of noise for every example")
    add("--seed", type=int, default=0, help="of these draws")
    add(
        "--draw",
        help=f"schedules drawn over times and classes (default: the best {_DRAWN})",
        **words,
    )
    add("--out", type=local_path, default=Path("ranking"), metavar="FOLDER", help="of the results")


def _words(text: str) -> list[str]:
    """Split at commas outside of brackets, which names such as constant(0.5) may hold."""
    depths = itertools.accumulate((c == "(") - (c == ")") for c in text)
    marked = "".join(
        "\0" if c == "," and depth == 0 else c for c, depth in zip(text, depths, strict=True)
    )
    return [word.strip() for word in marked.split("\0") if word.strip()]


STUDY = Study(
    measure=measure,
    arguments=arguments,
    figures=ranking.figures,
    refused=(StatisticsError, ScheduleError, ValueError, OSError),
)
