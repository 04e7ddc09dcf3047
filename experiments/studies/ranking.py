"""A ranking of schedules by held-out loss: its rows, its table and its figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.publish.markdown import number, text
from lgd import plots
from lgd.gram import Scores

TWO_SIDED_95 = 1.96  # standard errors of an interval
_INTERVAL = "{interval[0]:%s} to {interval[1]:%s}"
COLUMNS = [
    text("name", "schedule"),
    number("loss", "loss", "{mean:.6g}"),
    number("loss", "95% interval", _INTERVAL % (".5g", ".5g")),
    number("difference", "difference", "{mean:+.5g}") | {"best": "decisive"},
    number("difference", "95% interval", _INTERVAL % ("+.5g", "+.5g")),
]


def rank(scores: Scores, baseline: str) -> list[dict[str, Any]]:
    """Return losses and paired differences to the baseline, with 95% intervals; best first."""
    rows = []
    for name in scores.names:
        loss = _interval(scores.mean(name), scores.standard_error(name))
        gap = _interval(*scores.difference(name, baseline))
        low, high = gap["interval"]
        rows.append(
            {"name": name, "loss": loss, "difference": gap, "decisive": low > 0.0 or high < 0.0}
        )
    return sorted(rows, key=lambda row: row["loss"]["mean"])


def _interval(mean: float, error: float) -> dict[str, Any]:
    half = TWO_SIDED_95 * error
    return {"mean": mean, "interval": [mean - half, mean + half]}


def half_width(measured: Mapping[str, Any]) -> float:
    """Return half of the interval around a mean."""
    return float(measured["interval"][1] - measured["mean"])


def details(scores: Scores, baseline: str, names: Sequence[str]) -> dict[str, Any]:
    """Return where the differences of some schedules come from: bins of (s, t), and classes."""
    maps = {name: scores.difference_map(name, baseline) for name in names}
    values: dict[str, Any] = {
        "maps": {name: [_listed(part) for part in each] for name, each in maps.items()}
    }
    if names and scores.labels is not None:
        each = [scores.difference_by_class(name, baseline) for name in names]
        values["classes"] = {
            "names": [str(label) for label in each[0].labels],
            "means": [one.means.tolist() for one in each],
            "half_widths": [(TWO_SIDED_95 * one.standard_errors).tolist() for one in each],
        }
    return values


def _listed(values: np.ndarray) -> Any:
    """Nested lists, None for NaN."""
    if values.ndim > 1:
        return [_listed(row) for row in values]
    return [None if np.isnan(value) else float(value) for value in values]


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw all differences, and some schedules over times and classes."""
    rows, baseline = results["rows"], results["baseline"]
    label = f"loss less that of {baseline}"
    pictures = {
        "differences": plots.ranked_differences(
            [row["name"] for row in rows],
            [row["difference"]["mean"] for row in rows],
            [half_width(row["difference"]) for row in rows],
            baseline=baseline,
            xlabel="held-out loss, difference to the baseline with its 95% interval",
        )
    }
    maps = {
        name: (np.asarray(values, float), np.asarray(s_edges), np.asarray(t_edges))
        for name, (values, s_edges, t_edges) in results["maps"].items()
    }
    if maps:
        pictures["maps"] = plots.difference_maps(dict(maps), label=f"{label}, by bin")
    if "classes" in results:
        classes = results["classes"]
        pictures["classes"] = plots.class_differences(
            list(maps),
            np.asarray(classes["means"]),
            np.asarray(classes["half_widths"]),
            class_names=classes["names"],
            label=label,
        )
    return pictures
