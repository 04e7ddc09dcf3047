"""Every fault, by name. A fault is a function of a bench that yields "" or what was lost."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

from experiments.faults import signals
from experiments.faults.bench import STAGES, Bench

RANDOM_KILLS = 3  # of each stage


@dataclasses.dataclass(frozen=True)
class Fault:
    """inject: yields one entry for each injection. quick: one of its kind, for every test run."""

    kind: str
    name: str
    inject: Callable[[Bench], Iterator[str]]
    quick: bool = False


QUICK_MOMENTS = {("step", "TERM"), ("before the first commit", "KILL")}


def _signals() -> Iterator[Fault]:
    for moment in signals.MOMENTS:
        for signal in ("TERM", "INT", "KILL"):
            inject = functools.partial(signals.interrupt, moment=moment, signal=signal)
            quick = (moment, signal) in QUICK_MOMENTS
            yield Fault("signal", f"SIG{signal} during {moment}", inject, quick)
    yield Fault("signal", "two signals", signals.twice, quick=True)
    yield Fault("signal", "a signal in a step that does not end", signals.no_answer)
    for stage in STAGES:
        for seed in range(RANDOM_KILLS):
            inject = functools.partial(signals.random_kill, stage=stage, seed=seed)
            yield Fault("signal", f"SIGKILL at random time {seed + 1} of {stage}", inject)


FAULTS = tuple(_signals())
