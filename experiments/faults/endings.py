"""Expected ends of a run, and descriptions of unexpected ones."""

from pathlib import Path

from experiments.faults.bench import Bench, Ended

REFUSED = 2  # a mistake in the arguments, or a folder that cannot be used
CANNOT_GO_ON = 3  # numbers that are not finite, or too little memory or disk
STOPPED = 75  # by a signal, with everything saved


def wrong_end(ended: Ended, code: int, *parts: str) -> str:
    """Return "" if a run ended with a code and these words, without a traceback."""
    missing = [part for part in parts if part not in ended.out]
    if missing or ended.code != code or "Traceback" in ended.out:
        return f"expected exit {code} and {list(parts)}, got {ended.code}:\n{ended.out}"
    return ""


def not_resumed(bench: Bench, workdir: Path, stage: str) -> str:
    """Return "" if the same command, run again, ends as if there had been no fault."""
    again = bench.launch(workdir, [stage])
    return wrong_end(again, 0) or bench.difference(workdir, stage)
