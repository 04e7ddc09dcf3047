"""Metrics of methods: bars, and curves over guidance weights, settings and training steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lgd.plots.theme import (
    PANEL_ROOM,
    STYLE,
    WIDTH,
    balanced,
    checked,
    is_learned,
    method_color,
    method_label,
    method_line,
    method_marker,
    padded,
    panels,
    settled,
    two_standard_errors,
)


@style.context(STYLE)
def metric_against_weight(
    weights: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    others: Mapping[str, tuple[float, float]],
    *,
    metric_name: str,
) -> Figure:
    """Return a metric of constant guidance over its weight, with other methods as horizontal lines.

    Bands are +-1 standard deviation. With other methods, the y axis covers them and the half of the
    weights that is nearest to them; bad weights are cut off.

    Args:
      weights: guidance weights omega (k,); 0: no guidance.
      mean: metric at these weights (k,).
      std: standard deviation over seeds (k,).
      others: (mean, std) of other methods, by name.
      metric_name: label of the y axis.

    Raises:
      ValueError: for arrays of other shapes or values that are not finite.
    """
    x = checked(weights, "weights", (None,))
    order = np.argsort(x)
    y, spread = checked(mean, "mean", x.shape)[order], checked(std, "std", x.shape)[order]
    x, color = x[order], method_color("constant")
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    ax = figure.subplots()
    ax.fill_between(x, y - spread, y + spread, color=color, alpha=0.2, linewidth=0)
    ax.plot(x, y, color=color, marker="o", markersize=3.2, label=r"constant, over $\omega$")
    ax.margins(x=0.02)
    for name, (value, error) in sorted(others.items(), key=lambda item: -item[1][0]):
        ax.axhspan(value - error, value + error, color=method_color(name), alpha=0.15, linewidth=0)
        ax.axhline(value, **method_line(name, linewidth=1.4))
    values, errors = np.reshape([*others.values()], (-1, 2)).T
    if others:
        near = np.argsort(np.abs(y - np.median(values)))[: len(y) // 2 + 1]
        shown = [values - errors, values + errors, y[near] - spread[near], y[near] + spread[near]]
        ax.set_ylim(*padded(np.concatenate(shown)))
    ax.set_xlabel(r"guidance weight $\omega$   ($\omega = 0$: no guidance)")
    ax.set_ylabel(metric_name)
    title = "mean $\\pm$ 1 std" if np.any(spread > 0) or np.any(errors > 0) else None
    figure.legend(loc="outside right center", title=title)
    return settled(figure)


@style.context(STYLE)
def training_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, ylabel: str) -> Figure:
    """Return a panel for every run: raw values over training steps, and a moving average.

    A curve is (steps (n,), values (n,)). The average spans 1/25 of the run. The y axis covers the
    average and the central 98% of the raw values.
    """
    columns = balanced(len(curves), at_most=3)
    size = (PANEL_ROOM / columns, 1.9)
    figure, axes = panels(
        curves, columns=columns, size=size, share=False, xlabel="training step", ylabel=ylabel
    )
    for ax, (name, (steps, values)) in zip(axes, curves.items(), strict=True):
        x = checked(steps, f"steps of {name}", (None,))
        y = checked(values, f"values of {name}", x.shape)
        window = np.ones(len(y) // 50 * 2 + 1)
        smooth = np.convolve(y, window, "same") / np.convolve(np.ones_like(y), window, "same")
        ax.plot(x, y, color=method_color(name), alpha=0.3, linewidth=0.7)
        ax.plot(x, smooth, color=method_color(name), linewidth=1.5)
        ax.set_ylim(*padded(np.append(np.percentile(y, [1, 99]), smooth)))
        ax.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
    return settled(figure)


@style.context(STYLE)
def method_bars(rows: Sequence[Mapping[str, Any]], metric: str, lower_is_better: bool) -> Figure:
    """Return bars of a metric for rows of results.json, in their order.

    A bar is mean +-2 standard errors, ``std / sqrt(number of values)``; points are single seeds.
    The vertical line is the best mean of the methods that are not learned.

    Raises:
      ValueError: without rows, or for a row without the metric.
    """
    if not rows or any(metric not in row["metrics"] for row in rows):
        raise ValueError(f"expected rows that all have {metric!r}, got {len(rows)} rows")
    names = [row["method"] for row in rows]
    results = [row["metrics"][metric] for row in rows]
    errors = [two_standard_errors(result) for result in results]
    digits = _digits(errors)
    figure = Figure(figsize=(WIDTH, 0.75 + 0.24 * len(rows)), layout="constrained")
    ax = figure.subplots()
    for i, (name, result, error) in enumerate(zip(names, results, errors, strict=True)):
        color, marker = method_color(name), method_marker(name)
        seeds = result["values"]
        ax.scatter(seeds, np.full(len(seeds), i + 0.24), s=6, color=color, alpha=0.5, linewidths=0)
        ax.errorbar(result["mean"], i, xerr=error or None, color=color, fmt=marker, markersize=4.5)
        number = f"{result['mean']:.{digits}f}" + (f" $\\pm$ {error:.{digits}f}" if error else "")
        beside = ax.get_yaxis_transform()
        ax.text(1.02, i, number, fontsize=7.5, va="center_baseline", transform=beside)
    others = [
        result["mean"] for name, result in zip(names, results, strict=True) if not is_learned(name)
    ]
    if others:
        best = min(others) if lower_is_better else max(others)
        ax.axvline(best, color="#1a1a1a", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0.9)
        ax.text(best, -0.65, "best hand-made", ha="center", va="bottom", fontsize=7.5)
    ax.set_yticks(range(len(rows)), [method_label(name) for name in names])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", visible=False)
    direction = "lower" if lower_is_better else "higher"
    label = f"{metric.replace('_', ' ')}, mean $\\pm$ 2 standard errors ({direction} is better)"
    ax.set_xlabel(label)
    return settled(figure)


Curve = tuple[ArrayLike, ArrayLike, ArrayLike]  # x, mean, error; each (n,)


@style.context(STYLE)
def method_curves(
    curves: Mapping[str, Mapping[str, Curve]],
    *,
    xlabel: str,
    ylabel: str,
    log: str = "x",
    ylim: tuple[float, float] | None = None,
) -> Figure:
    """Return panels with a line for every method, mean +- error over x.

    Panels share their axes, whose ticks are at the values of x.

    Args:
      curves: (x, mean, error), each (n,), by title of the panel and name of the method; an empty
        title is not drawn.
      xlabel: label of the x axis.
      ylabel: label of the y axis.
      log: the logarithmic axes, "", "x", "y" or "xy".
      ylim: limits of the y axis, to cut off outlying curves; None: automatic.
    """
    columns = balanced(len(curves), at_most=3)
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(WIDTH, 0.7 + 2.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for ax, (title, methods) in zip(grid, curves.items(), strict=False):
        for name, curve in methods.items():
            x = checked(curve[0], f"x of {name}", (None,))
            mean, error = (checked(y, f"curve of {name}", x.shape) for y in curve[1:])
            look = method_line(name, linewidth=1.8 if is_learned(name) else 1.3)
            handles[name] = ax.errorbar(x, mean, yerr=error, **look, marker="o", markersize=3)
        _set_scales(ax, log)
        ax.set(title=title, ylim=ylim)
    for ax in grid[len(curves) :]:
        ax.remove()
    figure.supxlabel(xlabel)
    figure.supylabel(ylabel)
    figure.legend(handles=list(handles.values()), loc="outside upper center", ncols=4)
    return settled(figure)


@style.context(STYLE)
def budget_curves(
    panels_of: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],
    *,
    ylabel: str,
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """Return a panel for each kind of budget, with the value that every method reaches over it.

    Both axes are logarithmic. A point is one budget; lines are the least value up to a budget.

    Args:
      panels_of: (budget (n,), value (n,)) by label of the x axis and name of the method.
      ylabel: label of the y axis.
      marks: vertical lines in the first panel, by name.
    """
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    grid = figure.subplots(1, len(panels_of), sharey=True, squeeze=False)[0]
    handles: dict[str, Any] = {}
    for ax, (xlabel, methods) in zip(grid, panels_of.items(), strict=True):
        for name, (budget, value) in methods.items():
            x = checked(budget, f"budget of {name}", (None,))
            y = checked(value, f"value of {name}", x.shape)[np.argsort(x)]
            x = np.sort(x)
            look = method_line(name, linewidth=1.6)
            (handles[name],) = ax.plot(x, np.minimum.accumulate(y), **look)
            ax.plot(x, y, linestyle="", marker="o", markersize=3.2, color=look["color"])
        ax.set(xscale="log", yscale="log", xlabel=xlabel)
    for name, value in (marks or {}).items():
        grid[0].axvline(value, color="#999999", linewidth=0.9, linestyle=(0, (3, 2)))
        grid[0].annotate(
            name,
            (value, 0.97),
            xycoords=("data", "axes fraction"),
            rotation=90,
            ha="right",
            va="top",
            fontsize=7,
            color="#666666",
        )
    grid[0].set_ylabel(ylabel)
    figure.legend(handles=list(handles.values()), loc="outside upper center", ncols=4)
    return settled(figure)


def _set_scales(ax: Axes, log: str) -> None:
    """Make axes logarithmic, with plain numbers at the values of x."""
    ticks = sorted({float(x) for line in ax.lines for x in np.atleast_1d(line.get_xdata())})
    if "x" in log:
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{tick:,.12g}" for tick in ticks])
        ax.xaxis.set_minor_locator(ticker.NullLocator())
    if "y" in log:
        ax.set_yscale("log")


def _digits(errors: Sequence[float]) -> int:
    """Return the decimals that show two digits of the median error; 4 if no error is above 0."""
    positive = [error for error in errors if error > 0.0]
    return max(0, 1 - math.floor(math.log10(np.median(positive)))) if positive else 4
