"""Inject every fault, one after another, and count what was lost.

    python -m experiments.faults [--quick] [--only=TEXT] [--list]

Exit code 0 only if nothing was lost.
"""

import argparse
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path

from experiments.faults.bench import Bench
from experiments.faults.catalogue import FAULTS, Fault


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one fault of each kind")
    parser.add_argument("--only", default="", help="faults whose kind or name has this text")
    parser.add_argument("--list", action="store_true", help="names, and nothing else")
    chosen = parser.parse_args()
    faults = [
        fault
        for fault in FAULTS
        if (fault.quick or not chosen.quick) and chosen.only in f"{fault.kind}: {fault.name}"
    ]
    if chosen.list:
        print("\n".join(f"{fault.kind}: {fault.name}" for fault in faults))
        return
    logging.getLogger("lgd").propagate = False  # damage is expected here
    with tempfile.TemporaryDirectory() as folder:
        injected, lost = inject_all(faults, Bench(Path(folder)))
    print(f"injected: {injected}, lost: {lost}")
    sys.exit(1 if lost or not injected else 0)


def inject_all(faults: list[Fault], bench: Bench) -> tuple[int, int]:
    """The number of injected faults, and the number of runs that they broke."""
    injected = lost = 0
    for fault in faults:
        start = time.monotonic()
        found = list(_problems(fault, bench))
        injected += len(found)
        lost += sum(map(bool, found))
        state = "LOST" if any(found) else "ok"
        count = f" ({len(found)})" if len(found) != 1 else ""
        print(
            f"{state:4} {fault.kind}: {fault.name}{count}, {time.monotonic() - start:.0f} s",
            flush=True,
        )
        for problem in filter(None, found):
            print(f"     {problem}", flush=True)
    return injected, lost


def _problems(fault: Fault, bench: Bench) -> list[str]:
    found: list[str] = []
    try:
        found.extend(fault.inject(bench))
    except Exception:
        found.append(traceback.format_exc())
    return found or ["nothing was injected"]


if __name__ == "__main__":
    main()
