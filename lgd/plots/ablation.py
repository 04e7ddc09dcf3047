"""A metric for several values of one setting."""

from collections.abc import Collection, Mapping
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from lgd.plots.theme import STYLE, settled, two_standard_errors

_IN_USE, _OTHER = "#d55e00", "#1b4f9c"


@style.context(STYLE)
def ablation(
    results: Mapping[str, Mapping[str, Any]],
    *,
    own: Collection[str],
    unguided: Mapping[str, Any],
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Return mean +-2 standard errors and single seeds of a metric for every value of a setting.

    Args:
      results: ``{"mean", "std", "values"}`` of the metric by value, in the order of the x axis.
      own: the values in use, which have a colour of their own.
      unguided: the same for no guidance, a horizontal line; only "mean" is read.
      xlabel: name of the setting.
      ylabel: name of the metric.

    Raises:
      ValueError: without any value.
    """
    if not results:
        raise ValueError("expected at least one value, got none")
    figure = Figure(figsize=(3.6, 2.4), layout="constrained")
    ax = figure.subplots()
    for i, (label, result) in enumerate(results.items()):
        color = _IN_USE if label in own else _OTHER
        seeds = result["values"]
        ax.scatter([i + 0.18] * len(seeds), seeds, s=6, color=color, alpha=0.5, linewidths=0)
        error = two_standard_errors(result)
        ax.errorbar(i, result["mean"], yerr=error or None, color=color, fmt="o", markersize=4.5)
    ax.axhline(unguided["mean"], color="#8c8c8c", linewidth=0.9, linestyle=(0, (4, 2)), zorder=0.9)
    at = (0.99, unguided["mean"])
    beside = ax.get_yaxis_transform()
    ax.text(*at, "no guidance", ha="right", va="bottom", fontsize=7, color="#666666",
            transform=beside)  # fmt: skip
    names = [label.replace(", ", "\n").replace("_", "\n") for label in results]
    ax.set_xticks(range(len(results)), names)
    ax.set(xlim=(-0.5, len(results) - 0.5), xlabel=xlabel, ylabel=ylabel)
    ax.grid(axis="x", visible=False)
    ax.margins(y=0.12)
    return settled(figure)
