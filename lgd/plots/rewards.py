"""Gains in reward, and their costs in other metrics."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lgd.plots.theme import (
    STYLE,
    WIDTH,
    balanced,
    checked,
    is_learned,
    literal,
    method_color,
    method_label,
    method_line,
    method_marker,
    padded,
    settled,
    two_standard_errors,
)


@style.context(STYLE)
def metric_against_metric(
    families: Mapping[str, Sequence[Mapping[str, Any]]],
    metrics: tuple[str, str],
    *,
    xlabel: str,
    ylabel: str,
    references: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    level: tuple[str, float] | None = None,
) -> Figure:
    """Return rows of results.json as points of two metrics, with a line through each family.

    Bars are +-2 standard errors. Learned points show their ``params.gamma`` above 0 if there is
    room. The axes cover learned rows and families of one row; other families may be cut off.

    Args:
      families: rows by name of the method.
      metrics: names of the metrics on the x and y axes.
      xlabel: label of the x axis.
      ylabel: label of the y axis.
      references: plain curves (x (n,), y (n,)) by name.
      level: name and y of a thin horizontal line.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    ax = figure.subplots()
    held = [_points(rows, metrics) for name, rows in families.items()
            if is_learned(name) or len(rows) == 1]  # fmt: skip
    x, y = np.concatenate(held, axis=1)
    ax.set_xlim(*padded(x))
    ax.set_ylim(*padded(y if level is None else np.append(y, level[1])))
    for name, (x, y) in (references or {}).items():
        curve: dict[str, Any] = {"color": "#9a9a9a", "linewidth": 2.6, "alpha": 0.6, "zorder": 1.2}
        ax.plot(checked(x, f"x of {name}", (None,)), y, label=name, **curve)
    labels: list[np.ndarray] = []
    for name, rows in families.items():
        x, y = _points(rows, metrics)
        errors = [[two_standard_errors(row["metrics"][m]) for row in rows] for m in metrics]
        size, order = (4.0, 2.0) if len(rows) > 1 else (6.0, 3.0)
        look: dict[str, Any] = {"marker": method_marker(name), "markersize": size}
        look |= {"elinewidth": 0.8} | method_line(name, linewidth=1.3)
        ax.errorbar(x, y, yerr=errors[1], xerr=errors[0], zorder=order, **look)
        if is_learned(name):
            _name_weights(ax, rows, np.transpose([x, y]), labels)
    if level is not None:
        ax.axhline(level[1], color="#1a1a1a", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0.9)
        ax.text(0.01, level[1], level[0], transform=ax.get_yaxis_transform(), va="bottom")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    figure.legend(loc="outside right center")
    return settled(figure)


def _name_weights(
    ax: Axes, rows: Sequence[Mapping[str, Any]], points: np.ndarray, labels: list[np.ndarray]
) -> None:
    """Write ``params.gamma`` above 0 below points (rows, 2), unless a label is within 5%.

    ``labels`` are the places of all labels, to which new ones are added.
    """
    for row, point in zip(rows, points, strict=True):
        place = ax.transAxes.inverted().transform(ax.transData.transform(point))
        gamma = row["params"]["gamma"]
        if gamma == 0.0 or any(np.max(np.abs(place - other)) < 0.05 for other in labels):
            continue
        labels.append(place)
        color = method_color(row["method"])
        look: dict[str, Any] = {"textcoords": "offset points", "fontsize": 6.5, "color": color}
        ax.annotate(f"{gamma:g}", point, xytext=(4, -9), **look)


@style.context(STYLE)
def metrics_against_reward_weight(
    families: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Mapping[str, str]
) -> Figure:
    """Return a panel for every metric with its values over the weight gamma of a reward.

    Lines are families of rows of results.json, bars +-2 standard errors. Weights are equally
    spaced on the axis, whatever their values.

    Args:
      families: rows with ``params.gamma``, by name of the method.
      metrics: label of the panel by name of the metric.
    """
    columns = balanced(len(metrics), at_most=2)
    rows_of_panels = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.75 * rows_of_panels), layout="constrained")
    grid = figure.subplots(rows_of_panels, columns, sharex=True, squeeze=False).ravel()
    gammas = sorted({row["params"]["gamma"] for rows in families.values() for row in rows})
    for ax, (metric, label) in zip(grid, metrics.items(), strict=False):
        for name, rows in families.items():
            x = [gammas.index(row["params"]["gamma"]) for row in rows]
            y = [row["metrics"][metric]["mean"] for row in rows]
            errors = [two_standard_errors(row["metrics"][metric]) for row in rows]
            look = method_line(name, linewidth=1.3)
            ax.errorbar(x, y, yerr=errors, marker=method_marker(name), markersize=3.6, **look)
        ax.set_ylabel(label)
        ax.set_xticks(range(len(gammas)), [f"{gamma:g}" for gamma in gammas])
    for ax in grid[len(metrics) :]:
        ax.remove()
    figure.supxlabel(r"weight of the reward $\gamma_R$")
    lines, labels = grid[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=3)
    return settled(figure)


@style.context(STYLE)
def reward_ranges(
    ranges: Mapping[str, tuple[ArrayLike, ArrayLike]],
    unguided: ArrayLike,
    real: ArrayLike,
    *,
    class_names: Sequence[str],
    helped: Sequence[bool],
    xlabel: str,
) -> Figure:
    """Return the range of mean rewards that every family of schedules reaches, by class.

    Args:
      ranges: least and largest mean reward of every class, each (g,), by name of the family.
      unguided: mean reward without guidance (g,).
      real: mean reward of real data (g,).
      class_names: names of g classes.
      helped: whether guidance can raise the reward of a class; if not, its name is grey, with a
        remark.
      xlabel: label of the axis.

    Raises:
      ValueError: for arrays of other shapes or values that are not finite.
    """
    shape = (len(class_names),)
    base = checked(unguided, "unguided", shape)
    height = 0.6 + (0.12 + 0.08 * len(ranges)) * len(class_names)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    ax = figure.subplots()
    places = np.arange(len(class_names), dtype=np.float64)
    offsets = np.linspace(-0.3, 0.3, len(ranges)) if len(ranges) > 1 else np.zeros(1)
    for offset, (name, (least, most)) in zip(offsets, ranges.items(), strict=True):
        low, high = (checked(v, f"range of {name}", shape) for v in (least, most))
        label, color = method_label(name), method_color(name)
        ax.hlines(places + offset, low, high, color=color, linewidth=2.6, label=label)
    ax.vlines(base, places - 0.42, places + 0.42, color="#1a1a1a", linewidth=1.2, label="unguided")
    look: dict[str, Any] = {"color": "white", "edgecolors": "#1a1a1a", "linewidths": 0.8, "s": 16}
    ax.scatter(
        checked(real, "real", shape), places, marker="D", label="real data", zorder=3, **look
    )
    ax.set_yticks(places, list(map(literal, class_names)))
    ax.set_ylim(len(class_names) - 0.4, -0.6)
    for text, place, ok in zip(ax.get_yticklabels(), places.tolist(), helped, strict=True):
        if not ok:
            text.set_color("#8c8c8c")
            remark = ax.text(
                1.01, place, r"$\omega$ cannot help", transform=ax.get_yaxis_transform()
            )
            remark.set(color="#8c8c8c", va="center", fontsize=7.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(xlabel)
    figure.legend(loc="outside upper center", ncols=3)
    return settled(figure)


def _points(rows: Sequence[Mapping[str, Any]], metrics: tuple[str, str]) -> np.ndarray:
    """Return the means of two metrics, (2, rows)."""
    return np.array([[row["metrics"][name]["mean"] for row in rows] for name in metrics], float)
