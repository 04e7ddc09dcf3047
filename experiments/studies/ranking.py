"""A ranking of schedules by held-out loss: rows, table, Markdown and figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from experiments.workdir import write_json, write_text
from lgd import plots
from lgd.gram import Scores

TWO_SIDED_95 = 1.96  # standard errors of an interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """Scores, and every schedule in the order of its loss."""

    scores: Scores
    baseline: str
    rows: list[dict[str, Any]]

    @property
    def names(self) -> list[str]:
        """Best first."""
        return [row["name"] for row in self.rows]


def rank(scores: Scores, baseline: str) -> Ranking:
    """Losses and paired differences to the baseline, with 95% intervals."""
    rows = []
    for name in scores.names:
        loss, error = scores.mean(name), scores.standard_error(name)
        gap, gap_error = scores.difference(name, baseline)
        rows.append(
            {
                "name": name,
                "loss": {"mean": loss, "interval": _interval(loss, error)},
                "difference": {"mean": gap, "interval": _interval(gap, gap_error)},
                "decisive": abs(gap) > TWO_SIDED_95 * gap_error,
            }
        )
    rows.sort(key=lambda row: row["loss"]["mean"])  # type: ignore[index]
    return Ranking(scores=scores, baseline=baseline, rows=rows)


def write(
    ranking: Ranking, out: Path, setting: str, drawn: Sequence[str], values: Mapping[str, Any]
) -> None:
    """Leave ranking.json, with further values, ranking.md and the figures in a folder."""
    pictures = figures(ranking, drawn)
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures.items():
        plots.save(figure, out / f"{name}.png")
    write_text(out / "ranking.md", markdown(ranking, setting, list(pictures)))
    found = {"setting": setting, "baseline": ranking.baseline, "rows": ranking.rows}
    write_json(out / "ranking.json", {**values, **found})


def figures(ranking: Ranking, drawn: Sequence[str]) -> dict[str, Figure]:
    """Of all differences, and of some schedules over times and classes."""
    rows, scores, baseline = ranking.rows, ranking.scores, ranking.baseline
    label = f"loss less that of {baseline}"
    means = [row["difference"]["mean"] for row in rows]
    halves = [half_width(row["difference"]) for row in rows]
    found = {
        "differences": plots.ranked_differences(
            ranking.names, means, halves, baseline=baseline,
            xlabel="held-out loss, difference to the baseline with its 95% interval",
        )
    }  # fmt: skip
    if not drawn:
        return found
    maps = {name: scores.difference_map(name, baseline) for name in drawn}
    found["maps"] = plots.difference_maps(dict(maps), label=f"{label}, by bin")
    if scores.labels is not None:
        each = [scores.difference_by_class(name, baseline) for name in drawn]
        found["classes"] = plots.class_differences(
            list(drawn),
            np.stack([one.means for one in each]),
            TWO_SIDED_95 * np.stack([one.standard_errors for one in each]),
            class_names=[str(label) for label in each[0].labels],
            label=label,
        )
    return found


_CAPTIONS = {
    "differences": "Paired differences of held-out loss. Grey: the interval holds 0.",
    "maps": "Where the differences come from: what each bin of (s, t) adds. Blue is better.",
    "classes": "The same by class. A dot: the interval holds 0.",
}


def markdown(ranking: Ranking, setting: str, pictures: Sequence[str]) -> str:
    """ranking.md."""
    lines = [
        "# Schedules by held-out loss\n",
        f"{setting} Intervals are of 95%, each schedule by itself; the difference is to "
        f"{ranking.baseline}, on the same draws. Bold where its interval leaves out 0. A low loss "
        "is not yet good samples: trust the order of constants, let samples decide the rest.\n",
        "| schedule | loss | 95% interval | difference | 95% interval |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in ranking.rows:
        loss, gap = row["loss"], row["difference"]
        shown = f"**{gap['mean']:+.5g}**" if row["decisive"] else f"{gap['mean']:+.5g}"
        lines.append(
            f"| {row['name']} | {loss['mean']:.6g} | {_shown(loss['interval'])} | {shown} | "
            f"{_shown(gap['interval'], sign='+')} |"
        )
    lines += [f"\n![{_CAPTIONS[name]}]({name}.png)\n\n{_CAPTIONS[name]}" for name in pictures]
    return "\n".join(lines) + "\n"


def table(ranking: Ranking) -> Table:
    """For the screen."""
    found = Table(title="schedules by held-out loss, intervals of 95%")
    found.add_column("schedule", overflow="fold")
    for column in ("loss", "±", f"less {ranking.baseline}", "±"):
        found.add_column(Text(column), justify="right", no_wrap=True)
    found.add_column("", no_wrap=True)
    for row in ranking.rows:
        loss, gap = row["loss"], row["difference"]
        mark = ("better" if gap["mean"] < 0.0 else "worse") if row["decisive"] else ""
        found.add_row(
            Text(row["name"]),
            f"{loss['mean']:.5g}",
            f"{half_width(loss):.2g}",
            f"{gap['mean']:+.3g}",
            f"{half_width(gap):.2g}",
            Text(mark, style="green" if mark == "better" else "red"),
        )
    return found


def half_width(measured: Mapping[str, Any]) -> float:
    """Of the interval around a mean."""
    return float(measured["interval"][1] - measured["mean"])


def _interval(mean: float, error: float) -> list[float]:
    return [mean - TWO_SIDED_95 * error, mean + TWO_SIDED_95 * error]


def _shown(interval: Sequence[float], sign: str = "") -> str:
    return f"{interval[0]:{sign}.5g} to {interval[1]:{sign}.5g}"
