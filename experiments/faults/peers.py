"""Faults of two processes with two devices each: signals, deaths, exceptions, other settings."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments.faults.bench import (
    INJECTED,
    TIMEOUT,
    Bench,
    Ended,
    Strike,
    newest_state,
    outcome,
    started,
)
from experiments.faults.endings import REFUSED, STOPPED

END_LIMIT = 30.0  # seconds in which both end after one of them failed
AT = 8  # of `STEPS` steps
MOMENT = Strike("lgd.machinery.parallel:place_batch", AT, "")


def run_two(
    bench: Bench,
    workdir: Path,
    *,
    strikes: Mapping[int, Strike] | None = None,
    flags: Mapping[int, Sequence[str]] | None = None,
    absent: Sequence[int] = (),
) -> list[Ended]:
    """Run two processes of the denoiser stage and return how they end.

    Args:
      bench: where runs take place.
      workdir: the folder of the run.
      strikes: the fault of a process, by its number.
      flags: further flags of a process, by its number.
      absent: numbers of processes that are not started.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = bench.environment | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    with contextlib.ExitStack() as stack:
        running = []
        for index in {0, 1} - set(absent):
            join = (f"--coordinator={address}", "--num_processes=2", f"--process_id={index}")
            more = (flags or {}).get(index, ())
            strike = (strikes or {}).get(index)
            argv = bench.argv(workdir, ["denoiser"], *join, *more, strike=strike)
            running.append(stack.enter_context(started(argv, env=environment)))
        return _ended(running)


def _ended(running: list) -> list[Ended]:
    """Return the ends of processes; seconds count from the fault in either of them."""
    start, ends = time.time(), [0.0] * len(running)
    while not all(ends) and time.time() < start + TIMEOUT:
        for i, (process, _) in enumerate(running):
            if not ends[i] and process.poll() is not None:
                ends[i] = time.time()
        time.sleep(0.05)
    texts = [output() for _, output in running]
    marks = [line for text in texts for line in text.splitlines() if line.startswith(INJECTED)]
    since = float(marks[0].removeprefix(INJECTED)) if marks else start
    return [
        Ended(process.poll() if end else -999, text, (end or time.time()) - since)
        for (process, _), end, text in zip(running, ends, texts, strict=True)
    ]


def signal(bench: Bench, name: str, index: int) -> Iterator[str]:
    """Send a signal to one process: both stop at the same step, are saved, and continue there."""
    strike = MOMENT._replace(action=f"{name}+sleep:3")  # JAX looks for it once a second
    with bench.copy("denoiser") as workdir:
        ended = run_two(bench, workdir, strikes={index: strike})
        step = newest_state(workdir / "checkpoints" / "denoiser").get("step", 0)
        if [end.code for end in ended] != [STOPPED, STOPPED] or step < AT:
            yield f"expected {STOPPED} twice and step {AT} or later saved, got {step}, {ended}"
        elif f"stopped after step {step} of" not in ended[0].out:
            yield f"expected step {step} to be named, got {ended[0].out}"
        else:
            yield _resumed(bench, workdir)


def death(bench: Bench, index: int) -> Iterator[str]:
    """Kill one process: the other ends too, and both continue from the last checkpoint."""
    with bench.copy("denoiser") as workdir:
        ended = run_two(bench, workdir, strikes={index: MOMENT._replace(action="KILL")})
        yield _both_end(ended, index, -9) or _resumed(bench, workdir)


def exception(bench: Bench, index: int) -> Iterator[str]:
    """Raise in one process: both end in bounded time, and its traceback is the last output."""
    with bench.copy("denoiser") as workdir:
        ended = run_two(bench, workdir, strikes={index: MOMENT._replace(action="raise")})
        last = ended[index].out.rstrip().rpartition("\n")[2]
        wrong = _both_end(ended, index, 1)
        if not wrong and last != "RuntimeError: injected":
            wrong = f"expected its traceback last, got {ended[index].out}"
        yield wrong or _resumed(bench, workdir)


def missing(bench: Bench, index: int) -> Iterator[str]:
    """Start only one of two processes: it ends with an error."""
    with bench.copy("denoiser") as workdir:
        flags = {1 - index: ["--start_seconds=5"]}
        (ended,) = run_two(bench, workdir, flags=flags, absent=[index])
        timely = ended.code not in (0, -999) and ended.seconds < END_LIMIT + 10
        yield "" if timely else f"expected an error within {END_LIMIT} s, got {ended}"


def other_config(bench: Bench) -> Iterator[str]:
    """Start processes with different settings: both refuse them at once and name the fields."""
    with bench.copy("denoiser") as workdir:
        flags = {1: ["--config.seed=7", "--config.denoiser.width=9"]}
        ended = run_two(bench, workdir, flags=flags)
        named = all(
            f"process 1: {line}" in ended[0].out
            for line in ("seed: 0 -> 7", "denoiser.width: 8 -> 9")
        )
        refused = [end.code for end in ended] == [2, 2] and not os.listdir(workdir)
        yield "" if named and refused else f"expected exit 2 and both fields, got {ended}"


def other_count(bench: Bench, counts: tuple[int, int]) -> Iterator[str]:
    """Start processes with different numbers of processes: both end in words, in bounded time."""
    with bench.copy("denoiser") as workdir:
        each = enumerate(counts)
        flags = {i: [f"--num_processes={count}", "--start_seconds=20"] for i, count in each}
        ended = run_two(bench, workdir, flags=flags)
        named = "got 2 in process 0, 3 in process 1" if counts == (2, 3) else "another number"
        said = any(named in end.out for end in ended)
        refused = [end.code for end in ended] == [REFUSED, REFUSED] and not os.listdir(workdir)
        words = said and not any("Traceback" in end.out for end in ended)
        yield "" if refused and words else f"expected exit 2 and {named!r}, got {ended}"


def _both_end(ended: list[Ended], index: int, code: int) -> str:
    failed, other = ended[index], ended[1 - index]
    slowest = max(end.seconds for end in ended)
    if failed.code != code or other.code in (0, -999) or slowest > END_LIMIT:
        return f"expected {code} and another error within {END_LIMIT} s, got {ended}"
    return ""


def _resumed(bench: Bench, workdir: Path) -> str:
    """Start both processes again, and return "" if they end like two without a fault."""
    whole = bench.folder / "two"
    for folder in (whole, workdir):
        if folder == whole and whole.exists():
            continue
        ended = run_two(bench, folder)
        if any(end.code for end in ended):
            return f"expected 0 twice, got {ended}"
    actual, expected = outcome(workdir), outcome(whole)
    differing = [name for name in expected if actual.get(name) != expected[name]]
    return f"{differing} differ" if differing else ""
