"""The look of figures: one style, one colour for each method and class, panels and keys.

Hand-made schedules are greys and blues with dashes, as their row of `guidance.FAMILIES` says,
learned ones saturated and solid. Colours can be told apart with protanopia and deuteranopia too.
"""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from lgd.guidance import FAMILIES, Family
from lgd.machinery import digests

WIDTH = 7.0  # inches; 1,400 pixels, so that text stays readable at a README's 850
DPI = 200

_SETTINGS = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8.5,
    "figure.dpi": DPI,
    "figure.labelsize": 8,
    "font.size": 8,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.title_fontsize": 7.5,
    "lines.linewidth": 1.2,
    "xtick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 7.5,
    "ytick.major.width": 0.6,
}
PANEL_ROOM = WIDTH - 0.9  # inches; the rest is for labels and keys
STYLE: Any = ["default", _SETTINGS]  # for style.context: whatever the caller's rcParams

_COLORS = {
    "unguided": "#8c8c8c",
    "learned:self_consistency": "#d55e00",
    "learned:l2": "#e69f00",
    "learned:conditional_marginal": "#ee1560",
    "learned:marginal": "#c2508b",
    "learned:guided_score_matching": "#5c4a14",
    "learned:trajectory": "#07925f",
    "learned:reward": "#6a22b5",
    "learned:network": "#d55e00",
    "learned:table": "#07925f",
}
_OTHER_LEARNED = ("#a3123f", "#8c4a1e", "#2f8f2f", "#b0369a")
_OTHER_HAND_MADE = ("#4f7285", "#3d3d5c", "#2a6f97", "#666666")
_CLASS_COLORS = (  # after Paul Tol's qualitative twelve, dark and light alternating
    *("#332288", "#88ccee", "#117733", "#ddaa33", "#cc6677", "#44aa99"),
    *("#882255", "#999933", "#6699cc", "#661100", "#aa4499", "#333333"),
)


def method_label(name: str) -> str:
    """Return the label of a method: "learned: self consistency" for learned:self_consistency."""
    return literal(name.replace("_", " ").replace(":", ": "))


def literal(name: str) -> str:
    """Return a name of any origin for a figure, where dollars would begin a formula."""
    return name.replace("$", r"\$")


def method_title(name: str, *, width: float) -> str:
    """Return the label of a method, wrapped to a panel of this width in inches."""
    return textwrap.fill(method_label(name), max(12, int(14 * width)))


def method_color(name: str) -> str:
    """Return the colour of a method in all figures; an unknown name has one by its checksum.

    Methods that differ in the weight of a reward, "...:reward(0.1)", share a colour.
    """
    name = name.partition(":reward(")[0]
    if name in FAMILIES:
        return FAMILIES[name].colour
    others = _OTHER_LEARNED if is_learned(name) else _OTHER_HAND_MADE
    return _COLORS.get(name, others[digests.crc(name.encode()) % len(others)])


def method_line(name: str, *, linewidth: float) -> dict[str, Any]:
    """Return label, colour, dashes and width of a method's line, as arguments of ``plot``."""
    style = "-" if is_learned(name) else (0, FAMILIES.get(name, Family).dashes)
    look = {"color": method_color(name), "linestyle": style, "linewidth": linewidth}
    return {"label": method_label(name), **look}


def method_marker(name: str) -> str:
    """Return the marker of a method: a circle if it is learned, else a square."""
    return "o" if is_learned(name) else "s"


def is_learned(name: str) -> bool:
    """Return whether a method is learned, by its name."""
    return name.startswith("learned:")


def class_colors(count: int) -> np.ndarray:
    """Return RGBA colours (count, 4), distinct for up to 12 classes and ordered shades above."""
    if count <= len(_CLASS_COLORS):
        return colors.to_rgba_array(_CLASS_COLORS[:count])
    return mpl.colormaps["viridis"](np.linspace(0.0, 0.92, count))


def class_key(figure: Figure, axes: Sequence[Axes], names: Sequence[str]) -> None:
    """Add a legend of the classes beside the panels, or a colour bar for more than 12."""
    palette = class_colors(len(names))
    if len(names) <= len(_CLASS_COLORS):
        dots = [
            Line2D([], [], color=color, marker="o", markersize=4, linestyle="", label=literal(name))
            for color, name in zip(palette, names, strict=True)
        ]
        figure.legend(handles=dots, loc="outside right center", handlelength=1.0, title="class")
    else:
        scale = ScalarMappable(colors.Normalize(0, len(names) - 1), colors.ListedColormap(palette))
        figure.colorbar(scale, ax=list(axes), label="class", pad=0.02, aspect=30)


def balanced(count: int, *, at_most: int) -> int:
    """Return the number of panels in a row that makes rows as equal as possible.

    Raises:
      ValueError: for a count below 1.
    """
    if count < 1:
        raise ValueError("expected at least one method, got none")
    return math.ceil(count / math.ceil(count / at_most))


def panels(
    methods: Collection[str],
    *,
    columns: int,
    size: tuple[float, float],
    share: bool,
    xlabel: str,
    ylabel: str,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a titled panel for every method, and its axes.

    Args:
      methods: names of the methods.
      columns: panels in a row.
      size: width and height of a panel in inches, approximately.
      share: whether panels share their axes.
      xlabel: label of the lowest panels.
      ylabel: label of the leftmost panels.
    """
    rows = math.ceil(len(methods) / columns)
    figsize = (size[0] * columns + 0.9, size[1] * rows + 0.5)
    figure = Figure(figsize=figsize, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).ravel()
    axes = [ax for ax, _ in zip(grid, methods, strict=False)]
    for ax in grid[len(methods) :]:
        ax.remove()
    for i, (ax, name) in enumerate(zip(axes, methods, strict=True)):
        ax.set_title(method_title(name, width=size[0]), color=method_color(name))
        if i % columns == 0:
            ax.set_ylabel(ylabel)
        if i + columns >= len(methods):
            ax.set_xlabel(xlabel)
            ax.tick_params(labelbottom=True)  # the panel below may have been removed
    return figure, axes


def settled(figure: Figure) -> Figure:
    """Return the figure with a fixed layout, which later draws under other settings keep."""
    figure.align_ylabels()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def checked(value: ArrayLike, what: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return values as float64.

    Raises:
      ValueError: naming ``what``, for another shape, where None is any size above 0, or for values
        that are not finite.
    """
    array = np.asarray(value, np.float64)
    if array.ndim != len(shape) or any(
        got != want if want is not None else got == 0
        for got, want in zip(array.shape, shape, strict=True)
    ):
        raise ValueError(f"expected {what} of shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"expected finite {what}, got {array[~np.isfinite(array)][0]}")
    return array


def padded(values: np.ndarray) -> tuple[float, float]:
    """Return limits of an axis that covers these values, with a margin of 4%."""
    low, top = float(np.min(values)), float(np.max(values))
    spare = 0.04 * (top - low) or 0.04 * abs(top) or 1.0
    return low - spare, top + spare


def two_standard_errors(result: Mapping[str, Any]) -> float:
    """Return 2 std / sqrt(number of values) of a result; 0 for a single value."""
    count = len(result["values"])
    return 2.0 * result["std"] / math.sqrt(count) if count > 1 else 0.0
