"""The table of all faults, which are functions of a bench that yield "" or a loss."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

from experiments.faults import (
    checkpoints,
    data_files,
    disk,
    numbers,
    outside,
    peers,
    refusals,
    signals,
)
from experiments.faults.bench import STAGES, Bench
from experiments.faults.damage import link_to_itself
from lgd.machinery.checkpoint import LEDGER_FILE, QUARANTINE

RANDOM_KILLS = 3  # of each stage


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault and its name.

    ``inject`` yields a text for every injection, empty if nothing was lost. Quick faults run with
    every run of the tests.
    """

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
    for signal in ("TERM", "INT"):
        inject = functools.partial(signals.at_the_end, signal=signal)
        yield Fault("signal", f"SIG{signal} when all is done", inject, signal == "TERM")
    yield Fault("signal", "two signals", signals.twice)
    yield Fault("signal", "a signal in a step that does not end", signals.no_answer)
    for stage in STAGES:
        for seed in range(RANDOM_KILLS):
            inject = functools.partial(signals.random_kill, stage=stage, seed=seed)
            yield Fault("signal", f"SIGKILL at random time {seed + 1} of {stage}", inject)


def _checkpoints() -> Iterator[Fault]:
    yield Fault("checkpoint", "the newest one, under a run", checkpoints.under_a_run, quick=True)
    inject = functools.partial(checkpoints.under_a_run, damage=link_to_itself)
    yield Fault("checkpoint", "a file that links to itself, under a run", inject)
    for name in (QUARANTINE, LEDGER_FILE):
        inject = functools.partial(checkpoints.in_a_place, name=name)
        yield Fault("checkpoint", f"something else as {name}, under a run", inject)
    yield Fault("checkpoint", "all of them, under a run", checkpoints.under_a_run_all_of_them)


def _disk() -> Iterator[Fault]:
    for moment in disk.FULL:
        inject = functools.partial(disk.full, moment=moment)
        yield Fault("disk", f"full at {moment}", inject, moment == "a save")
    yield Fault("disk", "no large files", disk.limited)
    yield Fault("disk", "read-only", disk.read_only)
    yield Fault("disk", "a live run in the workdir, then a dead one", disk.locked)
    for damage in disk.WEIGHTS:
        inject = functools.partial(disk.weights, damage=damage)
        yield Fault("weights", damage, inject)
    for damage in ("deleted", "truncated", "flipped"):
        inject = functools.partial(disk.shards, damage=damage)
        yield Fault("statistics", f"each file {damage}", inject)
    yield Fault("statistics", "two shards swapped", disk.swapped_shards)
    yield Fault("data", "of another version", disk.other_data)


def _peers() -> Iterator[Fault]:
    for name, index in (("TERM", 0), ("TERM", 1), ("INT", 0), ("INT", 1)):
        inject = functools.partial(peers.signal, name=name, index=index)
        yield Fault("two processes", f"SIG{name} to process {index}", inject)
    for index in (0, 1):
        for what in (peers.death, peers.exception, peers.missing):
            inject = functools.partial(what, index=index)
            yield Fault("two processes", f"{what.__name__} of process {index}", inject)
    yield Fault("two processes", "settings that differ", peers.other_config, quick=True)
    for counts in ((2, 3), (3, 2)):
        inject = functools.partial(peers.other_count, counts=counts)
        name = f"told that they are {counts[0]} and {counts[1]}"
        yield Fault("two processes", name, inject, counts == (2, 3))


def _numbers() -> Iterator[Fault]:
    yield Fault("numbers", "one step of NaN", numbers.one_step)
    yield Fault("numbers", "many steps of NaN", numbers.many_steps, quick=True)
    for stage in ("collect", "guidance", "evaluate"):
        inject = functools.partial(numbers.denoiser, stage=stage)
        yield Fault("numbers", f"a denoiser that returns NaN in {stage}", inject)
    for stage, place in (
        ("denoiser", "lgd.machinery.parallel:place_batch"),
        ("collect", "lgd.machinery.parallel:place_batch"),
        ("guidance", "lgd.machinery.parallel:place_batch"),
        ("evaluate", "lgd.sampling:sample"),
    ):
        inject = functools.partial(numbers.memory, stage=stage, place=place)
        yield Fault("numbers", f"a full device in {stage}", inject)
    yield Fault("loop", "a loader that blocks", numbers.blocked_loader)
    yield Fault("loop", "TensorBoard raises", numbers.logger)
    yield Fault("loop", "no TensorBoard", numbers.no_logger)
    yield Fault("loop", "nothing at all", numbers.nothing)


def _refusals() -> Iterator[Fault]:
    yield Fault("config", "mistakes", refusals.mistakes, quick=True)
    yield Fault("config", "changed between runs", refusals.changes)


def _outside() -> Iterator[Fault]:
    yield Fault("outside", "a terminal with few characters", outside.terminal, quick=True)
    yield Fault("outside", "packages of the names of ours", outside.packages)
    yield Fault("outside", "a flag that does not exist", outside.flag)
    yield Fault("outside", "a workdir elsewhere", outside.url)
    yield Fault("outside", "devices that are not there", outside.platform)
    for name in outside.PLACES:
        inject = functools.partial(outside.in_a_place, name=name)
        yield Fault("place", name, inject, name == "a link as lock")
    yield Fault("place", "an empty results.json", outside.results_of_nothing)


def _data_files() -> Iterator[Fault]:
    for kind in data_files.FILES:
        for damage in data_files.BEFORE:
            if (kind, damage) != ("IDX", "flipped"):  # which only a second run can tell
                inject = functools.partial(data_files.damaged, kind=kind, damage=damage)
                quick = (kind, damage) == ("npz", "flipped")
                yield Fault("data", f"{kind} {damage}", inject, quick)
        for what in data_files.EXCHANGES:
            inject = functools.partial(data_files.exchanged, kind=kind, what=what)
            yield Fault("data", f"{kind} with {what}", inject)
    for kind in ("npz", "IDX"):
        inject = functools.partial(data_files.between_runs, kind=kind)
        yield Fault("data", f"{kind} changed between runs", inject)
    yield Fault("data", "images changed between runs", data_files.known_images)


FAULTS = (
    *_signals(),
    *_checkpoints(),
    *_disk(),
    *_peers(),
    *_numbers(),
    *_refusals(),
    *_outside(),
    *_data_files(),
)
