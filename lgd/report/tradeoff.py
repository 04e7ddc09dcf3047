"""One metric against another, by choice, for all rows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lgd.report import definitions, table
from lgd.report.conclusion import standard_error
from lgd.report.content import Page
from lgd.report.markup import Html, element, joined

_ACROSS = ("reward", "recall", "precision", "accuracy")  # the first that rows have


def quantities(page: Page) -> list[dict[str, Any]]:
    """What can be an axis: every metric, network calls, mean omega and the time of training.

    Each has ``values`` by row, ``{"mean", "error"}`` with two standard errors, or None.
    """
    found: list[dict[str, Any]] = []
    for name in table.metrics_of(page):
        lower = definitions.is_lower_better(name, page.primary_metric, page.lower_is_better)
        values = [_value(row["metrics"].get(name)) for row in page.rows]
        title = definitions.metric(name).title
        found.append({"key": name, "title": title, "lower": lower, "values": values})
    further = {
        "nfe": ("network calls", [row.get("nfe") for row in page.rows]),
        "omega": ("mean ω", [(row.get("omega") or {}).get("mean") for row in page.rows]),
        "seconds": ("training, seconds", [page.seconds.get(r["method"]) for r in page.rows]),
    }
    for key, (title, numbers) in further.items():
        values = [None if n is None else {"mean": float(n), "error": 0.0} for n in numbers]
        found.append({"key": key, "title": title, "lower": None, "values": values})
    return [each for each in found if any(value is not None for value in each["values"])]


def _value(summary: Mapping[str, Any] | None) -> dict[str, float] | None:
    if summary is None or summary["mean"] is None or not math.isfinite(summary["mean"]):
        return None
    error = standard_error(summary)
    return {"mean": summary["mean"], "error": 2.0 * error if math.isfinite(error) else 0.0}


def section(page: Page) -> Html:
    """The chart with the choice of its axes; nothing where there is too little to draw."""
    found = quantities(page)
    keys = [each["key"] for each in found]
    if len(found) < 2 or len(page.rows) < 2:
        return joined()
    across = next((name for name in _ACROSS if name in keys[1:]), keys[1])
    title = {each["key"]: each["title"] for each in found}
    axes = f"{title[keys[0]]} against {title[across]}"
    svg = element(
        "svg", class_="plot", role="img",
        aria_label=f"Chart of {axes}, a point for every row; the numbers are in the table above.",
    )  # fmt: skip
    caption = (
        "Every row on test data, two metrics at a time; bars are two standard errors over test "
        "seeds. Circles were learned or given, squares are hand-made."
    )
    controls = element(
        "div",
        element("label", "Up ", _select("y", found, keys[0])),
        element("label", "Across ", _select("x", found, across)),
        class_="controls",
    )
    chart = element("figure", controls, svg, element("figcaption", caption))
    return element(
        "section",
        element("h2", "Trade-offs"),
        element("div", chart, class_="chart"),
        id="tradeoff",
        class_="scripted",
    )


def _select(name: str, found: Sequence[Mapping[str, Any]], chosen: str) -> Html:
    options = [
        element("option", each["title"], value=each["key"], selected=each["key"] == chosen)
        for each in found
    ]
    return element("select", *options, name=name)
