"""The table of all rows, which a browser can sort, and what its words mean."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lgd.machinery.words import one_line
from lgd.report import definitions
from lgd.report.conclusion import standard_error
from lgd.report.content import Page
from lgd.report.markup import Html, element, joined

Row = Mapping[str, Any]
Cell = tuple[float | None, str, str]  # a number, it in words, its error in words


class _Column(NamedTuple):
    """A column of numbers: its key, title, meaning, whether less is better, its cells."""

    key: str
    title: str
    meaning: str
    lower_is_better: bool | None
    cells: Sequence[Cell]


def table(page: Page, names: Mapping[str, str]) -> Html:
    """The rows in their order, means and standard errors over test seeds, the best in bold.

    names: by method, the name of its swatch's colour.
    """
    columns = _columns(page)
    head = [_head("method", "method, and what was selected", None)]
    head += [_head(each.key, each.title, each.lower_is_better) for each in columns]
    best = [_best(column) for column in columns]
    body = []
    for place, row in enumerate(page.rows):
        cells = [
            _cell(*column.cells[place], is_best=place == of)
            for column, of in zip(columns, best, strict=True)
        ]
        body.append(element("tr", _row_head(place, row, names[row["method"]]), *cells))
    caption = (
        "All rows on test data: mean ± standard error over test seeds; the best mean of a column "
        "is bold. A heading sorts by its column."
    )
    parts = element("thead", element("tr", *head)), element("tbody", *body)
    whole = element("table", element("caption", caption), *parts, id="rows")
    return _wide(whole, "Table of all rows")


def _cell(value: float | None, mean: str, error: str, *, is_best: bool) -> Html:
    shown = element("strong", mean) if is_best else mean
    small = [element("span", error, class_="error")] if error else []
    return element("td", shown, *small, class_="number", data_value=value)


def _wide(content: Html, said: str) -> Html:
    """A table in a box that scrolls by itself, by keyboard too."""
    return element("div", content, class_="wide", tabindex=0, role="region", aria_label=said)


def glossary(page: Page) -> Html:
    """What methods and metrics are; the table shows each on hover."""
    terms: list[Html] = []
    for place, row in enumerate(page.rows):
        terms += _term(f"method-{place}", row["method"], definitions.method(row))
    for column in _columns(page):
        terms += _term(f"metric-{column.key}", column.title, column.meaning)
    return element(
        "details",
        element("summary", "What methods and metrics are"),
        element("dl", *terms),
        class_="printed",
    )


def params(values: Mapping[str, Any]) -> str:
    """What was selected, in few words."""
    if any(isinstance(value, list | tuple) for value in values.values()):
        return "one for each class"
    shown = (
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {one_line(value)}"
        for name, value in values.items()
    )
    return ", ".join(shown) or "none"


def metrics_of(page: Page) -> list[str]:
    """Names of all metrics, the primary one first."""
    names = dict.fromkeys(name for row in page.rows for name in row["metrics"])
    return sorted(names, key=lambda name: name != page.primary_metric)


def _columns(page: Page) -> list[_Column]:
    columns = []
    for name in metrics_of(page):
        known = definitions.metric(name)
        lower = definitions.is_lower_better(name, page.primary_metric, page.lower_is_better)
        cells = _metric_cells([row["metrics"].get(name) for row in page.rows])
        columns.append(_Column(name, known.title, known.meaning, lower, cells))
    calls = "Evaluations of the network for a sample; a guided step costs two."
    nfe = [row.get("nfe") for row in page.rows]
    columns.append(_Column("nfe", "network calls", calls, None, _plain(nfe, "{:g}".format)))
    mean = "Mean ω over steps and conditions; 0 is no guidance."
    omega = [(row.get("omega") or {}).get("mean") for row in page.rows]
    columns.append(_Column("omega", "mean ω", mean, None, _plain(omega, "{:.3f}".format)))
    took = "Time that learning the guidance took; hand-made rows are tuned together."
    times = [page.seconds.get(row["method"]) for row in page.rows]
    columns.append(_Column("seconds", "training time", took, None, _plain(times, _seconds)))
    return [each for each in columns if any(value is not None for value, *_ in each.cells)]


def _metric_cells(summaries: Sequence[Mapping[str, Any] | None]) -> list[Cell]:
    """Means and errors of a column, with as many digits as its median error allows."""
    known = [summary for summary in summaries if summary is not None]
    errors = [e for e in map(standard_error, known) if math.isfinite(e) and e > 0.0]
    digits = min(max(1 - math.floor(math.log10(np.median(errors))), 0), 6) if errors else 4
    cells: list[Cell] = []
    for summary in summaries:
        if summary is None:
            cells.append((None, "", ""))
        elif summary["mean"] is None or not math.isfinite(summary["mean"]):
            cells.append((None, "not finite", ""))
        else:
            error = standard_error(summary)
            shown = f"± {error:.{digits}f}" if math.isfinite(error) else ""
            cells.append((summary["mean"], f"{summary['mean']:.{digits}f}", shown))
    return cells


def _plain(values: Sequence[float | int | None], form: Callable[[float], str]) -> list[Cell]:
    """Numbers without an error."""
    return [(None, "", "") if x is None else (float(x), form(float(x)), "") for x in values]


def _best(column: _Column) -> int | None:
    """The place of the best cell, where one side is better and there are others."""
    finite = [i for i, (value, *_) in enumerate(column.cells) if value is not None]
    if column.lower_is_better is None or len(finite) < 2:
        return None
    sign = 1.0 if column.lower_is_better else -1.0
    return min(finite, key=lambda i: sign * float(column.cells[i][0] or 0.0))


def _head(key: str, title: str, lower: bool | None) -> Html:
    arrow = "" if lower is None else (" ↓" if lower else " ↑")
    said = "" if lower is None else (", lower is better" if lower else ", higher is better")
    button = element(
        "button",
        title + arrow,
        type="button",
        class_="sort",
        aria_label=f"{title}{said}",
        aria_describedby=None if key == "method" else f"metric-{key}",
    )
    return element("th", button, scope="col", aria_sort="none", class_=key != "method" and "number")


def _row_head(place: int, row: Row, colour: str) -> Html:
    swatch = element("span", "", class_="swatch", style=f"background:var({colour})")
    described = f"method-{place}"
    name = element(
        "span", _breakable(row["method"]), class_="term", tabindex=0, aria_describedby=described
    )
    chosen = element("span", params(row.get("params", {})), class_="params")
    return element("th", swatch, name, chosen, scope="row", data_value=place)


def _breakable(name: str) -> Html:
    """A name that may be broken after its marks."""
    return Html(re.sub("([_:])(?=.)", r"\1<wbr>", joined(name)))


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value < 100.0 else f"{value / 60.0:.1f} min"


def _term(name: str, title: str, meaning: str) -> tuple[Html, Html]:
    return element("dt", title), element("dd", meaning, id=name)


def weights_table(steps: Sequence[float], means: Mapping[str, Sequence[float]], axis: str) -> Html:
    """The mean weight of every method at every step, for who cannot see the curves."""
    head = [element("th", axis, scope="col")]
    head += [element("th", name, scope="col", class_="number") for name in means]
    rows = [
        element(
            "tr",
            element("th", f"{step:.4g}", scope="row"),
            *(element("td", f"{each[i]:.4f}", class_="number") for each in means.values()),
        )
        for i, step in enumerate(steps)
    ]
    return element(
        "details",
        element("summary", "The mean weights as numbers"),
        _wide(
            element("table", element("thead", element("tr", *head)), element("tbody", *rows)),
            "Mean weights of every step",
        ),
    )


def config_table(config: Mapping[str, Any]) -> Html:
    """Every field of the config with its value."""
    rows = [
        element("tr", element("th", name, scope="row"), element("td", element("code", value)))
        for name, value in fields(config)
    ]
    head = element("tr", element("th", "field", scope="col"), element("th", "value", scope="col"))
    body = element("table", element("thead", head), element("tbody", *rows))
    summary = element("summary", f"The config, {len(rows)} fields")
    return element("details", summary, _wide(body, "The config"))


def fields(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Fields of nested settings by their path, with their values in words."""
    found = []
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            found += fields(value, f"{path}.")
        else:
            shown = value if isinstance(value, str) else repr(value)
            found.append((path, one_line(shown, 400) if shown else "''"))
    return found


def listed(items: Sequence[str]) -> Html:
    """Sentences as a list."""
    return element("ul", *(element("li", each) for each in items)) if items else joined()
