"""How a run is expected to end, and what is wrong where it ended otherwise."""

from pathlib import Path

from experiments.faults.bench import Bench, Ended

REFUSED = 2  # a mistake in what was given, or a folder that cannot be used
CANNOT_GO_ON = 3  # numbers that are not finite, or too little memory or disk
STOPPED = 75  # by a signal, with everything saved


def wrong_end(ended: Ended, code: int, *parts: str) -> str:
    """Nothing where a run ended with this code and these words, and no traceback."""
    missing = [part for part in parts if part not in ended.out]
    if missing or ended.code != code or "Traceback" in ended.out:
        return f"expected exit {code} and {list(parts)}, got {ended.code}:\n{ended.out}"
    return ""


def not_resumed(bench: Bench, workdir: Path, stage: str) -> str:
    """Nothing where the same command once more ends as if nothing had happened."""
    again = bench.launch(workdir, [stage])
    return wrong_end(again, 0) or bench.difference(workdir, stage)
