"""The tables of runs: which columns their results carry, and what stands below a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.methods import is_learned
from experiments.publish.markdown import everything, number, table, text
from lgd.machinery.words import code

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"

_METRICS = {
    "energy_distance": "energy distance ↓",
    "frechet_distance": "Fréchet distance ↓",
    "class_frechet_distance": "Fréchet distance by class ↓",
    "kid": "KID ↓",
    "precision": "precision ↑",
    "recall": "recall ↑",
    "inception_score": "Inception score ↑",
    "accuracy": "accuracy ↑",
}
_FEW = ("frechet_distance", "energy_distance", "precision", "recall", "accuracy")
_REWARD_METRICS = {
    "reward": "reward ↑",
    "training_reward": "reward in training ↑",
    "energy_distance": "energy distance ↓",
    "loss": "loss ↓",
    "tilt": "nearest tilt",
    "tilt_distance": "distance to it ↓",
}
_COMPARISONS = [
    text("method", "learned"),
    text("against", "against"),
    text("metric", "metric"),
    number("mean", "difference", "+.5f") | {"best": "decisive"},
    number("standard_error", "standard error", ".5f"),
    number("real_error", "real examples", ".5f"),
]
_CLASSES = [
    text("class", "class"),
    text("helped", "can be helped"),
    number("true", "true law", ".3f"),
    *(number(key, key, ".3f") for key in ("unguided", "least", "most")),
    text("most_by", "by"),
    number("slope", "slope", "+.3f"),
    number("slope_up", "rising steps", "+.3f"),
    number("one_step_slope", "one step", "+.3f"),
]


def title(metric: str) -> str:
    """Return a metric's name for the axis of a figure."""
    return _METRICS[metric].rstrip(" ↓↑")


def of_run(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the results of a run carry for its tables: ``columns``, ``tables``, ``only``.

    The table of a run is that of its rows; further ones are "summary", of few metrics, first of
    them the one that selected, and "comparisons"; of a run with a reward also "classes". Such a run
    shows the unguided row, and for every weight of the reward the best hand-made and all learned
    ones.
    """
    tables = {"comparisons": {"rows": "comparisons", "columns": _COMPARISONS}}
    if "reward_metric" in results:
        tables["classes"] = {"rows": "classes", "columns": _CLASSES}
        columns = reward_columns(results["rows"])
        return {"columns": columns, "only": _reward_rows(results), "tables": tables}
    rows, primary = results["rows"], results["primary_metric"]
    few = columns_of_run(rows, (primary, *(name for name in _FEW if name != primary)))
    tables = {"summary": {"rows": "rows", "columns": few}} | tables
    return {"columns": columns_of_run(rows), "tables": tables}


def columns_of_run(
    rows: Sequence[Mapping[str, Any]], metrics: Sequence[str] = tuple(_METRICS)
) -> list[dict[str, Any]]:
    """Return columns of the method, of what was selected, and of those metrics that rows have."""
    return [
        text("method", "method"),
        text("params", "selected on validation data"),
        *(
            number(f"metrics.{name}", title, ".4f")
            | {"best": "most" if title.endswith("↑") else "least"}
            for name in metrics
            for title in [_METRICS[name]]
            if name in rows[0]["metrics"]
        ),
    ]


def reward_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return columns of a run with a reward; the least loss of each weight is bold."""
    return [
        number("params.gamma", "reward weight", "g"),
        text("family", "method"),
        *(
            number(f"metrics.{name}", title, ".4f")
            | ({"best": "least", "within": "params.gamma"} if name == "loss" else {})
            for name, title in _REWARD_METRICS.items()
            if name in rows[-1]["metrics"]
        ),
    ]


def _reward_rows(results: Mapping[str, Any]) -> list[str]:
    """Methods shown: of hand-made ones that of the least loss on validation data."""
    rows = results["rows"]
    shown = [rows[0]["method"]]
    for gamma in results["config"]["reward"]["weights"]:
        tuned = [row for row in rows if row["params"].get("gamma") == gamma]
        learned = [row for row in tuned if is_learned(row["family"])]
        best = min((row for row in tuned if row not in learned), key=lambda row: row["validation"])
        shown += [row["method"] for row in (best, *learned)]
    return shown


def of_levels(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the table of several runs: the primary metric of every method, a column for each."""
    metric = each[0]["primary_metric"]
    places = [str(place) for place in range(len(each))]
    rows = [{"method": row["method"]} for row in each[0]["rows"]]
    for place, results in zip(places, each, strict=True):
        metrics = {row["method"]: row["metrics"][metric] for row in results["rows"]}
        for row in rows:
            row[place] = metrics[row["method"]]
    titles = [f"{level} ({steps:,} steps)" for level, steps in map(training, each)]
    columns = [
        number(place, title, ".4f") | {"best": "least"}
        for place, title in zip(places, titles, strict=True)
    ]
    return {"rows": rows, "columns": [text("method", "method"), *columns]}


def training(results: Mapping[str, Any]) -> tuple[str, int]:
    """Return the level of a run's denoiser and its number of training steps."""
    settings = results["config"]["denoiser"]
    return settings["level"], settings["num_steps"][settings["level"]]


def provenance(results: Mapping[str, Any]) -> str:
    """Return command, hardware, time and commit behind a table."""
    took = ""
    if "seconds" in results:
        took = f": {sum(results['seconds'].values()) / 60.0:.1f} minutes in all"
    if results.get("given_networks"):
        took += f", without training {len(results['given_networks'])} networks of another run"
    return (
        f"\n{code(results['command'])} on {results['device']}{took}; "
        f"commit {results['commit'][:12]}.\n"
    )


def markdown(results: Mapping[str, Any], name: str = "") -> str:
    """Return the table of a run, or a further one by name, whether or not results carry columns."""
    return table(results if "columns" in results else {**results, **of_run(results)}, name)


def of_kind(kind: str, each: Sequence[Mapping[str, Any]]) -> str:
    """Return a table in a document, of published results.

    kind: "table" for what results show first, "levels" for several runs side by side, or the name
    of a further table.
    """
    if kind == "levels":
        return table(of_levels(each))
    (results,) = each
    if kind == "table" and "columns" not in results:
        return everything(results) + provenance(results)
    shown = table(results, "" if kind == "table" else kind)
    return shown + (provenance(results) if kind in ("table", "summary") else "")
