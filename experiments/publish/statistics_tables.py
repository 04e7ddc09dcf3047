"""Markdown tables of the benchmarks of Gram statistics."""

from collections.abc import Mapping

import numpy as np

_WAYS = {"online": "asked at every step", "gram": "asked once"}


def cost(results: Mapping) -> str:
    """Every budget of both ways, and the paper's."""
    lines = [
        "| denoiser | denoiser calls | seconds | learning rate | gap |",
        "|---|---:|---:|---:|---:|",
    ]
    for way, label in _WAYS.items():
        for row in results[way]:
            lines.append(
                f"| {label} | {row['calls']:,} | {row['seconds']:.1f} | {row['rate']:g} "
                f"| {100.0 * row['gap']:.2f}% ± {100.0 * row['gap_error']:.2f}% |"
            )
    lines.append(f"| the paper's recipe | {results['paper_calls']:,} | | | |")
    return "\n".join(lines) + "\n"


def reached(results: Mapping) -> str:
    """What it took to come within a share of the gap."""
    lines = [
        "| within | asked at every step | asked once | fewer calls | less time |",
        "|---:|---:|---:|---:|---:|",
    ]
    for within, ways in results["reached"].items():
        cells = [_spent(ways[way]) for way in _WAYS]
        online, gram = ways["online"], ways["gram"]
        ratios = ["", ""]
        if online and gram:
            ratios = [f"{online[key] / gram[key]:.1f}x" for key in ("calls", "seconds")]
        lines.append(f"| {100.0 * float(within):g}% | {' | '.join([*cells, *ratios])} |")
    return "\n".join(lines) + "\n"


def _spent(budget: Mapping | None) -> str:
    if budget is None:
        return "not reached"
    return f"{budget['calls']:,} calls, {budget['seconds']:.1f} s"


def sweep(results: Mapping) -> str:
    """One fit, 64 fits, and 64 runs that ask at every step."""
    lines = ["| | seconds | against one |", "|---|---:|---:|"]
    for kind in ("network", "table"):
        one, many = results["fits"][kind], results["fits"][f"64 {kind}s"]
        lines.append(f"| one fit of a {kind} | {one['seconds']:.1f} | 1 |")
        ratio = results["ratios"][kind]
        lines.append(f"| 64 fits of {kind}s, one program | {many['seconds']:.1f} | {ratio:.1f} |")
    lines.append(f"| collection, once | {results['collection_seconds']:.1f} | |")
    lines.append(f"| one run asking at every step | {results['online_seconds']:.1f} | |")
    lines.append(f"| 64 such runs | {64.0 * results['online_seconds']:.0f} | |")
    return "\n".join(lines) + "\n"


def examples(results: Mapping) -> str:
    """Held-out gain over no guidance by number of examples."""
    lines = ["| examples | network, 3 seeds | table, solved |", "|---:|---:|---:|"]
    for row in results["rows"]:
        values = np.asarray(row["network"])
        lines.append(
            f"| {row['examples']:,} | {values.mean():.5f} ± {values.std(ddof=1):.5f} "
            f"| {row['table']:.5f} |"
        )
    return "\n".join(lines) + "\n"


def quality(results: Mapping) -> str:
    """Energy distances of both ways, paired over seeds."""
    gap = results["difference"]
    rows = {
        "unguided": f"{results['unguided']:.4f}",
        **{label: f"{np.mean(results[way]):.4f}" for way, label in _WAYS.items()},
        "asked once less asked at every step": (
            f"{gap['mean']:+.5f} ± {gap['standard_error']:.5f}"
        ),
    }
    lines = ["| denoiser | energy distance |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {cell} |" for name, cell in rows.items())]) + "\n"


def warm(results: Mapping) -> str:
    """Where each start of the trajectory objective leads, and how soon."""
    lines = [
        "| start | loss at the start | at the end | within 2% at step |",
        "|---|---:|---:|---:|",
    ]
    for name, curve in results["curves"].items():
        first, last = curve["losses"][0], curve["losses"][-1]
        step = "not reached" if curve["reached"] is None else curve["reached"]
        lines.append(f"| {_start(name, curve)} | {first:.4f} | {last:.4f} | {step} |")
    return "\n".join(lines) + "\n"


def _start(name: str, curve: Mapping) -> str:
    return f"{name}, {curve['start']}" if name.startswith("best") else name.removeprefix("learned:")
