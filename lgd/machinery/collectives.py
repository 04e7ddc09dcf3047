"""What the devices of a compiled program send each other, read from its text."""

import math
import re
from collections.abc import Mapping, Sequence

_COMPUTATION = re.compile(r"^(ENTRY )?%(\S+) \(.*\{$")
_COLLECTIVE = re.compile(
    r"= (.*?) (?:all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(r"(pred|[a-z]+(\d+))\[([\d,]*)\]")
_WHILE = re.compile(r" while\(.*?body=%([^\s,]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:calls|to_apply|(?:true|false)_computation)=%([^\s,]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


def collective_bytes(text: str) -> int:
    """Return the bytes of all collectives that one device runs, a loop's as often as it turns.

    Of the branches of a conditional the one that sends most. Raises ValueError for a loop with
    collectives whose number of turns the compiler does not know.
    """
    computations, entry = _computations(text)
    return _bytes(entry, computations)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines of every computation, and which is the program's."""
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    entry = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            lines = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        else:
            lines.append(line)
    return computations, entry


def _bytes(name: str, computations: Mapping[str, Sequence[str]]) -> int:
    return sum(_of_line(line, computations) for line in computations[name])


def _of_line(line: str, computations: Mapping[str, Sequence[str]]) -> int:
    if loop := _WHILE.search(line):
        each, trips = _bytes(loop[1], computations), _TRIPS.search(line)
        if each and trips is None:
            raise ValueError(f"expected a loop whose turns are known, got {line.strip()[:80]}")
        return each * int(trips[1]) if each and trips else 0
    if branches := _BRANCHES.search(line):
        return max(_bytes(name.strip(" %"), computations) for name in branches[1].split(","))
    called = sum(_bytes(name, computations) for name in _CALLED.findall(line))
    return called + sum(map(_result_bytes, _COLLECTIVE.findall(line)))


def _result_bytes(result: str) -> int:
    return sum(
        int(bits or 8) // 8 * math.prod(int(n) for n in sizes.split(",") if n)
        for _, bits, sizes in _SHAPE.findall(result)
    )
