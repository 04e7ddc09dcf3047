"""A picture of weights by condition and time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike

from lgd.plots.theme import (
    STYLE,
    WIDTH,
    checked,
    class_colors,
    literal,
    method_line,
    padded,
    settled,
)

_NAMED = 40  # conditions whose names fit beside the map
_COLOUR = "#07925f"  # of what was learned


@style.context(STYLE)
def omega_inspection(
    omega: ArrayLike,
    *,
    t: ArrayLike,
    condition_names: Sequence[str],
    schedules: Mapping[str, ArrayLike],
    title: str,
) -> Figure:
    """Return a map of omega over steps and conditions, and its curves beside other schedules.

    Both run from noise, on the left, to data. omega = 0 is no guidance. Curves are thin for single
    conditions and thick for their mean, schedules are dashed.

    Args:
      omega: weights (g, k).
      t: time at the start of every step, (k,), decreasing.
      condition_names: names of the g conditions.
      schedules: omega (k,) of other schedules by name.
      title: what was learned.

    Raises:
      ValueError: for arrays of other shapes or values that are not finite.
    """
    times = checked(t, "t", (None,))
    weights = checked(omega, "omega", (len(condition_names), len(times)))
    others = {name: checked(y, f"omega of {name}", times.shape) for name, y in schedules.items()}
    count = len(weights)
    height = 3.4 + (0.0 if count == 1 else min(0.6 + 0.15 * count, 4.0))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(literal(title), fontsize=9)
    if count == 1:
        curves = figure.subplots()
    else:
        ratios = [height - 3.3, 2.6]
        upper, curves = figure.subplots(2, 1, height_ratios=ratios)
        cells = _map(upper, weights, times, condition_names)
        place: dict[str, Any] = {"pad": 0.015, "aspect": 14, "anchor": (0.0, 1.0), "shrink": 0.45}
        figure.colorbar(cells, ax=[upper, curves], label=r"$\omega$", **place)
    _curves(curves, weights, times, others)
    figure.legend(loc="outside lower center", ncols=2)
    return settled(figure)


def _map(ax: Axes, weights: np.ndarray, times: np.ndarray, names: Sequence[str]) -> AxesImage:
    """Steps along, conditions down; colours are symmetric where weights of both signs are."""
    low, high = float(weights.min()), float(weights.max())
    reach = max(abs(low), abs(high)) or 1.0
    cells = ax.imshow(
        weights,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r" if low < 0.0 else "viridis",
        vmin=-reach if low < 0.0 else 0.0,
        vmax=reach,
    )
    if len(names) <= _NAMED:
        ax.set_yticks(range(len(names)), [literal(name) for name in names])
        for label, colour in zip(ax.get_yticklabels(), class_colors(len(names)), strict=True):
            label.set_color(colour)  # that of its curve
    else:
        ax.set_ylabel(f"{len(names):,} conditions")
    places = np.unique(np.linspace(0, len(times) - 1, min(9, len(times))).round().astype(int))
    ax.set_xticks(places, [f"{times[place]:.2g}" for place in places])
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(r"time $t$ of the step's start   (noise $\rightarrow$ data)")
    return cells


def _curves(
    ax: Axes, weights: np.ndarray, times: np.ndarray, others: Mapping[str, np.ndarray]
) -> None:
    if 1 < len(weights) <= _NAMED:
        for y, colour in zip(weights, class_colors(len(weights)), strict=True):
            ax.plot(times, y, color=colour, linewidth=0.7, alpha=0.7)
    elif len(weights) > _NAMED:
        band = np.quantile(weights, (0.05, 0.95), axis=0)
        ax.fill_between(times, *band, color=_COLOUR, alpha=0.2, linewidth=0, label="90% of them")
    for name, y in others.items():
        look = method_line(name.partition("(")[0], linewidth=1.3)
        ax.plot(times, y, **look | {"label": literal(name)})
    label = "learned" if len(weights) == 1 else "learned, mean over conditions"
    marker = "o" if len(times) == 1 else None
    ax.plot(times, weights.mean(axis=0), color=_COLOUR, linewidth=2.4, label=label, marker=marker)
    drawn = weights if len(weights) <= _NAMED else np.quantile(weights, (0.05, 0.95), axis=0)
    ax.set_ylim(*padded(np.append(np.concatenate([drawn.ravel(), *others.values()]), 0.0)))
    if len(times) > 1:
        ax.set_xlim(times.max(), times.min())
    ax.set_xlabel(r"time $t$ of the step's start   (noise $\rightarrow$ data)")
    ax.set_ylabel(r"guidance weight $\omega$")
