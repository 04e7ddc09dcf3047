"""Throughput of the stages of a run on generated data; other runs report none."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from ml_collections import ConfigDict

from experiments import build, console
from experiments.workdir import Workdir
from lgd import guidance
from lgd.evaluation import Generator
from lgd.machinery.processes import by_main


@contextmanager
def measured(
    config: ConfigDict, workdir: Workdir, name: str, amount: int, unit: str
) -> Iterator[Callable[[], None]]:
    """Yield a function to call after every step; then report units a second, ``amount`` a step.

    The first two steps are left out: the first one compiles, and a training step may be announced
    while it is still computed.

    Args:
      config: settings of the run; only one with fake_data is measured.
      workdir: folder of the run.
      name: of what is measured.
      amount: units of one step.
      unit: what is counted.
    """
    ends: list[float] = []
    yield lambda: ends.append(time.perf_counter())
    if config.fake_data and len(ends) > 2:
        rate = amount * (len(ends) - 2) / (ends[-1] - ends[1])
        _say(config, workdir, name, rate, unit)


def of_samples(config: ConfigDict, workdir: Workdir, generator: Generator, per_class: int) -> None:
    """Draw samples twice and report the throughput of the second draw, which is compiled."""
    if not config.fake_data:
        return
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(generator(guidance.constant(1.0), per_class, seed=0))
        seconds = time.perf_counter() - start
    rate = generator.num_conditions * per_class / seconds
    _say(config, workdir, "evaluate", rate, "samples")


@by_main
def _say(config: ConfigDict, workdir: Workdir, name: str, rate: float, unit: str) -> None:
    count = build.mesh(config).size
    console.say(f"throughput: {name}: {rate:,.6g} {unit}/s, {count} devices")
    line = {"stage": name, "unit": unit, "per_second": rate}
    workdir.lines.append(workdir.path / "throughput.jsonl", line)
