"""Learned guidance weights omega over logsnr."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import patheffects, style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
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


@style.context(STYLE)
def omega_curves(
    learned: Mapping[str, ArrayLike],
    hand_made: Mapping[str, ArrayLike],
    *,
    logsnr: ArrayLike,
    class_names: Sequence[str],
) -> Figure:
    """Return a panel for every learned method, with omega over logsnr(t).

    Classes are thin lines, their mean is thick, and hand-made schedules are dashed in every panel.
    omega = 0 is no guidance. Low logsnr, on the left, is noise.

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
    for ax, name, omega in zip(axes, learned, per_class, strict=True):
        for y, color in zip(omega, class_colors(len(class_names)), strict=True):
            ax.plot(x, y, color=color, linewidth=0.9 if len(omega) <= 12 else 0.5, alpha=0.75)
        (mean,) = ax.plot(x, omega.mean(axis=0), color=method_color(name), linewidth=2.4)
        mean.set_path_effects([patheffects.withStroke(linewidth=3.8, foreground="white")])
        for other, y in curves.items():
            ax.plot(x, y, **method_line(other, linewidth=1.3))
    everything = np.concatenate([np.ravel(y) for y in (*per_class, *curves.values())])
    axes[0].set_xlim(x.min(), x.max())
    axes[0].set_ylim(*padded(np.append(everything, 0.0)))
    figure.supxlabel(
        r"$\mathrm{logsnr}(t) = 2\,\log(\alpha_t / \sigma_t)$, nats   (noise $\rightarrow$ data)"
    )
    thick = Line2D([], [], color="#999999", linewidth=2.4, label="mean over classes")
    dashed = axes[0].lines[len(class_names) + 1 :]
    figure.legend(handles=[thick, *dashed], loc="outside upper center", ncols=5)
    class_key(figure, axes, class_names)
    return settled(figure)
