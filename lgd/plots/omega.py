"""Learned guidance weights omega over logsnr."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import patheffects, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from lgd.plots.theme import (
    PANEL_ROOM,
    STYLE,
    balanced,
    checked,
    class_colors,
    class_key,
    method_color,
    method_line,
    padded,
    panels,
    settled,
)

MOST_CURVES = 40  # of more classes, a band shows where most lie


@style.context(STYLE)
def omega_curves(
    learned: Mapping[str, ArrayLike],
    hand_made: Mapping[str, ArrayLike],
    *,
    logsnr: ArrayLike,
    class_names: Sequence[str],
) -> Figure:
    """Return a panel for every learned method, with omega over logsnr(t).

    Classes are thin lines, or of more than `MOST_CURVES` two bands with 50% and 90% of them; their
    mean is thick, and hand-made schedules are dashed in every panel. omega = 0 is no guidance. Low
    logsnr, on the left, is noise.

    Args:
      learned: omega (num_classes, k) by name of the method.
      hand_made: omega (k,) by name of the schedule.
      logsnr: logsnr (k,) at the times of omega.
      class_names: names of the classes.

    Raises:
      ValueError: for arrays of other shapes or values that are not finite.
    """
    x = checked(logsnr, "logsnr", (None,))
    shape = (len(class_names), len(x))
    per_class = [checked(omega, f"omega of {name}", shape) for name, omega in learned.items()]
    curves = {name: checked(y, f"omega of {name}", x.shape) for name, y in hand_made.items()}
    columns = balanced(len(learned), at_most=3)
    size = (PANEL_ROOM / columns, 2.3)
    figure, axes = panels(
        learned,
        columns=columns,
        size=size,
        share=True,
        xlabel="",
        ylabel=r"guidance weight $\omega$",
    )
    is_band = len(class_names) > MOST_CURVES
    dashed: list[Line2D] = []
    for ax, name, omega in zip(axes, learned, per_class, strict=True):
        (_draw_band if is_band else _draw_classes)(ax, x, omega, method_color(name))
        (mean,) = ax.plot(x, omega.mean(axis=0), color=method_color(name), linewidth=2.4)
        mean.set_path_effects([patheffects.withStroke(linewidth=3.8, foreground="white")])
        dashed = [
            ax.plot(x, y, **method_line(other, linewidth=1.3))[0] for other, y in curves.items()
        ]
    drawn = [_quantiles(omega, 0.9) for omega in per_class] if is_band else per_class
    everything = np.concatenate([np.ravel(y) for y in (*drawn, *curves.values())])
    axes[0].set_xlim(x.min(), x.max())
    axes[0].set_ylim(*padded(np.append(everything, 0.0)))
    figure.supxlabel(
        r"$\mathrm{logsnr}(t) = 2\,\log(\alpha_t / \sigma_t)$, nats   (noise $\rightarrow$ data)"
    )
    thick = Line2D([], [], color="#999999", linewidth=2.4, label="mean over classes")
    handles = [thick, *(_band_key(len(class_names)) if is_band else ()), *dashed]
    figure.legend(handles=handles, loc="outside upper center", ncols=5)
    if not is_band:
        class_key(figure, axes, class_names)
    return settled(figure)


def _draw_classes(ax: Axes, x: np.ndarray, omega: np.ndarray, color: str) -> None:
    """A line for every class, in its own colour."""
    del color
    for y, each in zip(omega, class_colors(len(omega)), strict=True):
        ax.plot(x, y, color=each, linewidth=0.9 if len(omega) <= 12 else 0.5, alpha=0.75)


_SHARES = {0.9: 0.18, 0.5: 0.32}  # opacity of the band that holds so many of the classes


def _draw_band(ax: Axes, x: np.ndarray, omega: np.ndarray, color: str) -> None:
    """Where most classes lie."""
    for share, alpha in _SHARES.items():
        ax.fill_between(x, *_quantiles(omega, share), color=color, alpha=alpha, linewidth=0)


def _quantiles(omega: np.ndarray, share: float) -> np.ndarray:
    """The ends, by column, of the middle share of the rows, (2, k)."""
    return np.quantile(omega, (0.5 - 0.5 * share, 0.5 + 0.5 * share), axis=0)


def _band_key(count: int) -> list[Patch]:
    alphas = dict(zip(_SHARES, (0.18, 0.45), strict=True))  # the narrow band lies on the wide one
    return [
        Patch(color="#666666", alpha=alpha, linewidth=0, label=f"{share:.0%} of {count:,} classes")
        for share, alpha in alphas.items()
    ]
