"""Inject every fault, one after another, and count the runs that it breaks.

    python -m experiments.faults [--quick] [--only=TEXT] [--list]

The exit code is 0 only if no run is lost.
"""

import argparse
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path

from experiments import console
from experiments.faults.bench import Bench
from experiments.faults.catalogue import FAULTS, Fault
from lgd.machinery import progress


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one fault of each kind")
    parser.add_argument("--only", default="", help="faults whose kind or name has this text")
    parser.add_argument("--list", action="store_true", help="names, and nothing else")
    args = parser.parse_args()
    faults = [
        fault
        for fault in FAULTS
        if (fault.quick or not args.quick) and args.only in f"{fault.kind}: {fault.name}"
    ]
    if args.list:
        console.say("\n".join(f"{fault.kind}: {fault.name}" for fault in faults))
        return
    logging.getLogger("lgd").propagate = False  # damage is expected here
    with tempfile.TemporaryDirectory() as folder:
        injected, lost = inject_all(faults, Bench(Path(folder)))
    console.say(f"injected: {injected}, lost: {lost}")
    sys.exit(1 if lost or not injected else 0)


def inject_all(faults: list[Fault], bench: Bench) -> tuple[int, int]:
    """Inject faults, and return the number of injections and of runs that they broke."""
    injected = lost = 0
    for fault in faults:
        start = time.monotonic()
        with progress.phase(f"{fault.kind}: {fault.name}"):
            problems = _problems(fault, bench)
        injected += len(problems)
        lost += sum(map(bool, problems))
        state = "LOST" if any(problems) else "ok"
        count = f" ({len(problems)})" if len(problems) != 1 else ""
        seconds = time.monotonic() - start
        console.say(f"{state:4} {fault.kind}: {fault.name}{count}, {seconds:.0f} s")
        for problem in filter(None, problems):
            console.say(f"     {problem}")
    return injected, lost


def _problems(fault: Fault, bench: Bench) -> list[str]:
    """Return a text for every injection of a fault, empty if nothing was lost."""
    problems: list[str] = []
    try:
        problems.extend(fault.inject(bench))
    except Exception:
        problems.append(traceback.format_exc())
    return problems or ["nothing was injected"]


if __name__ == "__main__":
    console.command(main)
