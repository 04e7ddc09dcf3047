"""The chart of omega: what a browser draws, and the choices beside it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lgd.report import colours, table
from lgd.report.content import AXES, Page, Weights
from lgd.report.definitions import kind_of
from lgd.report.markup import Html, element, joined

SHOWN = 40  # conditions that have curves of their own; all count in means and bands
_WORDS = {"t": "t", "sigma": "sigma", "step": "step", "logsnr": "logsnr"}
_APART = 12  # of more conditions the mean is shown at first
_BAND = (0.05, 0.95)  # quantiles over conditions


def shown_conditions(weights: Weights | None) -> list[str]:
    """Names of the conditions that have curves."""
    return [] if weights is None else list(weights.conditions)[:SHOWN]


def names(page: Page) -> dict[str, str]:
    """The CSS variable of the colour of every curve; curves of rows share those of the rows."""
    rows = {row["method"]: f"--method-{place}" for place, row in enumerate(page.rows)}
    curves = [] if page.weights is None else list(page.weights.omega)
    return {name: rows.get(name, f"--curve-{place}") for place, name in enumerate(curves)}


def methods(page: Page, variables: Mapping[str, str]) -> list[dict[str, Any]]:
    """What a browser knows of every row, beside its numbers."""
    return [
        {
            "name": row["method"],
            "family": row.get("family", row["method"]) if "gamma" in row.get("params", {})
            else row["method"],
            "colour": variables[row["method"]],
            "learned": _is_ours(row),
        }
        for row in page.rows
    ]  # fmt: skip


def data(page: Page) -> dict[str, Any] | None:
    """The curves as JSON; None without any."""
    weights = page.weights
    if weights is None or not weights.omega:
        return None
    others = {name for name in weights.omega if not _is_named_ours(page, name)}
    variables = names(page)
    return {
        "axes": {name: _rounded(weights.axes[name]) for name in AXES if name in weights.axes},
        "conditions": shown_conditions(weights),
        "methods": [
            {
                "name": name,
                "colour": variables[name],
                "dashes": list(colours.dashes(name)) if name in others else [],
                "learned": name not in others,
                **_curves(weights.of_seeds(name)),
            }
            for name in weights.omega
        ],
    }


def _curves(omega: np.ndarray) -> dict[str, Any]:
    """Means over conditions by seed (r, k), their band (k,), and each condition by seed."""
    low, high = np.quantile(omega.mean(axis=0), _BAND, axis=0)
    alike = np.ptp(omega, axis=1).max() == 0.0  # then one curve says all
    each = omega[:, : 1 if alike else SHOWN].transpose(1, 0, 2)
    parts = {"mean": omega.mean(axis=1), "low": low, "high": high, "each": each}
    return {name: _rounded(values) for name, values in parts.items()}


def _rounded(values: Any) -> Any:
    """Numbers of five digits, None where they are not finite, in lists."""
    array = np.asarray(values, np.float64)
    if array.ndim:
        return [_rounded(each) for each in array]
    return float(f"{array:.5g}") if np.isfinite(array) else None


def section(page: Page) -> Html:
    """The chart with its choices, and the mean weights as numbers."""
    weights = page.weights
    if weights is None or not weights.omega:
        return joined()
    axes = [name for name in AXES if name in weights.axes]
    caption = element("figcaption", _caption(page, weights))
    svg = element("svg", class_="plot", role="img", aria_label=_alt(weights))
    legend = element("ul", class_="legend", aria_label="Key of the curves")
    chart = element("figure", _controls(page, weights, axes), svg, legend, caption)
    first = "t" if "t" in axes else axes[0]
    means = {name: weights.of_seeds(name).mean(axis=(0, 1)).tolist() for name in weights.omega}
    steps = np.asarray(weights.axes[first], np.float64).tolist()
    return element(
        "section",
        element("h2", "Guidance weights"),
        element("div", chart, id="weights", class_="chart scripted"),
        table.weights_table(steps, means, f"{_WORDS[first]} of the step's start"),
    )


def _controls(page: Page, weights: Weights, axes: Sequence[str]) -> Html:
    """Which methods, which conditions, and over what."""
    chosen = "logsnr" if "logsnr" in axes else axes[0]
    radios = [
        element(
            "label",
            element("input", type="radio", name="axis", value=name, checked=name == chosen),
            f" {_WORDS[name]}",
        )
        for name in axes
    ]
    ours = [i for i, name in enumerate(weights.omega) if _is_named_ours(page, name)]
    start = ours[-1] if ours else "all"
    methods = [("all", "all methods"), *((i, name) for i, name in enumerate(weights.omega))]
    count = len(weights.conditions)
    conditions: list[tuple[Any, str]] = [("mean", "mean of all")]
    if count > 1:
        conditions.insert(0, ("each", "each condition"))
        conditions += enumerate(shown_conditions(weights))
    first = "each" if 1 < count <= _APART else "mean"
    return element(
        "div",
        element("fieldset", element("legend", "Over"), *radios),
        element("label", "Method ", _select("method", methods, start)),
        element("label", "Condition ", _select("condition", conditions, first)),
        class_="controls",
    )


def _select(name: str, options: Sequence[tuple[Any, str]], chosen: Any) -> Html:
    items = [
        element("option", text, value=value, selected=value == chosen) for value, text in options
    ]
    return element("select", *items, name=name)


def _caption(page: Page, weights: Weights) -> str:
    seeds = max(len(weights.of_seeds(name)) for name in weights.omega)
    said = ["ω of every step; ω = 0 is no guidance. Hand-made schedules are dashed."]
    count = len(weights.conditions)
    if count > 1:
        said.append(
            "Around the mean of a learned row a band holds 90% of the conditions."
            if seeds == 1
            else ""
        )
    if seeds > 1:
        said.append(f"Bands are ± one standard deviation over {seeds} training seeds.")
    if count > SHOWN:
        said.append(f"Of {count:,} conditions the first {SHOWN} have curves of their own.")
    return " ".join(filter(None, said))


def _alt(weights: Weights) -> str:
    means = {n: float(weights.of_seeds(n).mean()) for n in weights.omega}
    shown = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
    return f"Guidance weights over the steps of sampling. Means over all steps: {shown}."


def _is_ours(row: Mapping[str, Any]) -> bool:
    """Whether a row was learned or given."""
    return kind_of(row) in ("learned", "given")


def _is_named_ours(page: Page, name: str) -> bool:
    """Whether a curve is of a row that was learned or given, or of one of its directions."""
    of = [row for row in page.rows if re.match(re.escape(row["method"]) + r"(, | \(|$)", name)]
    return not of or _is_ours(max(of, key=lambda row: len(row["method"])))
