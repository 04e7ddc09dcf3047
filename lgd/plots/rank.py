"""Held-out losses of schedules, as differences to a baseline: overall, by class and by time."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lgd.plots.theme import (
    PANEL_ROOM,
    STYLE,
    WIDTH,
    balanced,
    checked,
    literal,
    method_color,
    method_label,
    method_marker,
    settled,
)

_DIVERGING = "RdBu_r"  # blue: below the baseline, which is better
_NO_DATA = "#e6e6e6"
_UNCERTAIN = "#b0b0b0"


@style.context(STYLE)
def ranked_differences(
    names: Sequence[str],
    differences: ArrayLike,
    half_widths: ArrayLike,
    *,
    baseline: str,
    xlabel: str,
) -> Figure:
    """Return the difference to a baseline of every schedule, in their order, with its interval.

    Schedules whose interval contains 0 are grey. The axis is linear around 0, up to the power of
    ten next to the first quartile of the differences' sizes, and logarithmic beyond.

    Args:
      names: names of k schedules.
      differences: their loss minus that of the baseline (k,).
      half_widths: half widths of the intervals (k,).
      baseline: name of the baseline.
      xlabel: label of the axis.

    Raises:
      ValueError: for arrays of other shapes or values that are not finite.
    """
    mean = checked(differences, "differences", (len(names),))
    half = checked(half_widths, "half_widths", mean.shape)
    figure = Figure(figsize=(WIDTH, 0.8 + 0.155 * len(names)), layout="constrained")
    ax = figure.subplots()
    for place, (name, value, error) in enumerate(zip(names, mean, half, strict=True)):
        color = method_color(_family(name)) if abs(value) > error else _UNCERTAIN
        look: dict[str, Any] = {"color": color, "fmt": method_marker(name), "markersize": 3.6}
        ax.errorbar(value, place, xerr=error or None, elinewidth=1.1, **look)
    ax.axvline(0.0, color="#1a1a1a", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0.9)
    above = ax.get_xaxis_transform()
    ax.text(0.0, 1.0, method_label(baseline), ha="center", va="bottom", transform=above)
    ax.set_xscale("symlog", linthresh=_linear_up_to(mean), linscale=0.5)
    ax.set_ylim(len(names) - 0.4, -0.6)
    _name_places(ax, names)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", visible=False)
    ax.set_xlabel(xlabel)
    return settled(figure)


@style.context(STYLE)
def difference_maps(
    maps: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]], *, label: str
) -> Figure:
    """Return a panel for every schedule with values over times t (from) and s (to).

    Panels share a colour scale that is centred on 0 and ends at the 98th percentile.

    Args:
      maps: (values (m, n), edges of s (m + 1,), edges of t (n + 1,)) by name of the schedule;
        values are nan where there are none.
      label: label of the colour scale.
    """
    columns = balanced(len(maps), at_most=3)
    rows = math.ceil(len(maps) / columns)
    size = PANEL_ROOM / columns
    figure = Figure(figsize=(WIDTH, 0.5 + min(size, 2.6) * 0.95 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    norm = _centred(np.concatenate([np.ravel(values) for values, _, _ in maps.values()]))
    for ax, (name, (values, s_edges, t_edges)) in zip(grid, maps.items(), strict=False):
        mesh = ax.pcolormesh(
            np.asarray(t_edges), np.asarray(s_edges), np.ma.masked_invalid(values),
            cmap=_DIVERGING, norm=norm, rasterized=True,
        )  # fmt: skip
        ax.set_title(method_label(name))
        ax.set_facecolor(_NO_DATA)
        ax.grid(visible=False)
    for ax in grid[len(maps) :]:
        ax.remove()
    figure.supxlabel("t, from   (data $\\rightarrow$ noise)")
    figure.supylabel("s, to")
    shown = list(grid[: len(maps)])
    _color_key(figure, mesh, shown, label)
    return settled(figure)


@style.context(STYLE)
def class_differences(
    names: Sequence[str],
    differences: ArrayLike,
    half_widths: ArrayLike,
    *,
    class_names: Sequence[str],
    label: str,
) -> Figure:
    """Return differences to a baseline by schedule and class, as colours.

    The colour scale is centred on 0 and ends at the 98th percentile. Dots mark differences whose
    interval contains 0.

    Args:
      names: names of k schedules.
      differences: their losses minus those of the baseline (k, classes).
      half_widths: half widths of the intervals (k, classes).
      class_names: names of the classes.
      label: label of the colour scale.

    Raises:
      ValueError: for arrays of other shapes or values that are not finite.
    """
    shape = (len(names), len(class_names))
    mean, half = checked(differences, "differences", shape), checked(half_widths, "widths", shape)
    figure = Figure(figsize=(WIDTH, 0.9 + 0.22 * len(names)), layout="constrained")
    ax = figure.subplots()
    mesh = ax.pcolormesh(mean, cmap=_DIVERGING, norm=_centred(mean), rasterized=True)
    rows, columns = np.nonzero(np.abs(mean) <= half)
    ax.scatter(columns + 0.5, rows + 0.5, s=3, color="#4d4d4d", linewidths=0)
    ax.invert_yaxis()
    _name_places(ax, names, offset=0.5)
    if len(class_names) <= 24:
        turn = 45 if max(map(len, class_names)) > 4 else 0
        labels = list(map(literal, class_names))
        ax.set_xticks(np.arange(len(class_names)) + 0.5, labels, rotation=turn)
    ax.set_xlabel("class")
    ax.grid(visible=False)
    _color_key(figure, mesh, [ax], label)
    return settled(figure)


@style.context(STYLE)
def rank_scatter(
    panels: Mapping[str, tuple[ArrayLike, ArrayLike]],
    names: Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Return panels with a point (x, y) for every schedule, coloured by family.

    x is linear around 0 and logarithmic beyond, as in `ranked_differences`; y is logarithmic.

    Args:
      panels: (x (k,), y (k,)) by title.
      names: names of k schedules.
      xlabel: label of the x axis.
      ylabel: label of the y axis.
    """
    columns = balanced(len(panels), at_most=3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(WIDTH, 0.7 + 2.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    families = [_family(name) for name in names]
    for ax, (title, (x, y)) in zip(grid, panels.items(), strict=False):
        x, y = (checked(values, "values", (len(names),)) for values in (x, y))
        ax.set_xscale("symlog", linthresh=_linear_up_to(x), linscale=0.5)
        ax.set_yscale("log")
        for family in dict.fromkeys(families):
            members = np.asarray([other == family for other in families])
            look = {"color": method_color(family), "marker": method_marker(family)}
            look["label"] = method_label(family)
            ax.scatter(x[members], y[members], s=13, linewidths=0, **look)
        ax.set_title(title, fontsize=7.5)
        _thin_ticks(ax)
    for ax in grid[len(panels) :]:
        ax.remove()
    figure.supxlabel(xlabel)
    figure.supylabel(ylabel)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return settled(figure)


def _family(name: str) -> str:
    """Return the family of a schedule: "constant" for ``constant(0.5)``."""
    return name.partition("(")[0]


def _name_places(ax: Axes, names: Sequence[str], *, offset: float = 0.0) -> None:
    """Write names along the y axis, without interpreting them as mathematics."""
    ax.set_yticks(np.arange(len(names)) + offset, [method_label(name) for name in names])
    for text in ax.get_yticklabels():
        text.set_parse_math(False)
    ax.tick_params(axis="y", length=0, labelsize=7)


def _linear_up_to(differences: np.ndarray) -> float:
    sizes = np.abs(differences[differences != 0.0])
    return float(10.0 ** np.round(np.log10(np.percentile(sizes, 25)))) if len(sizes) else 1.0


def _thin_ticks(ax: Axes) -> None:
    """Keep ticks of a symmetric logarithmic x axis that do not overlap, from 0 outwards."""
    low, high = ax.get_xlim()
    ticks = sorted((x for x in ax.get_xticks() if low <= x <= high), key=abs)
    kept: list[float] = []
    places: list[float] = []
    for tick in ticks:
        place = ax.transAxes.inverted().transform(ax.transData.transform((tick, 1.0)))[0]
        if all(abs(place - other) > 0.17 for other in places):
            kept.append(tick)
            places.append(place)
    ax.set_xticks(kept)
    ax.tick_params(axis="x", labelsize=6.5)


def _color_key(figure: Figure, mesh: ScalarMappable, axes: list[Axes], label: str) -> None:
    bar = figure.colorbar(mesh, ax=axes, label=label, extend="both", pad=0.02, aspect=24)
    bar.formatter.set_powerlimits((-2, 3))  # type: ignore[attr-defined]
    bar.update_ticks()


def _centred(values: np.ndarray) -> Normalize:
    size = float(np.nanpercentile(np.abs(values), 98)) if np.isfinite(values).any() else 0.0
    return Normalize(-(size or 1.0), size or 1.0)
