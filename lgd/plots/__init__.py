"""Figures of reports, from arrays and plain dicts.

The functions return `matplotlib.figure.Figure` objects and use neither pyplot nor the caller's
settings, so they run without a display. In a notebook, ``%matplotlib inline`` shows them.
"""

import io
import os
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lgd.machinery import storage
from lgd.machinery.paths import local
from lgd.plots.ablation import ablation
from lgd.plots.inspection import omega_inspection
from lgd.plots.metrics import (
    budget_curves,
    method_bars,
    method_curves,
    metric_against_weight,
    training_curves,
)
from lgd.plots.omega import omega_curves
from lgd.plots.rank import class_differences, difference_maps, rank_scatter, ranked_differences
from lgd.plots.rewards import metric_against_metric, metrics_against_reward_weight, reward_ranges
from lgd.plots.samples import density_samples, sample_grid, tile
from lgd.plots.theme import DPI, STYLE, method_label

__all__ = [
    "ablation",
    "budget_curves",
    "class_differences",
    "density_samples",
    "difference_maps",
    "method_bars",
    "method_curves",
    "method_label",
    "metric_against_metric",
    "metric_against_weight",
    "metrics_against_reward_weight",
    "omega_curves",
    "omega_inspection",
    "pixels",
    "rank_scatter",
    "ranked_differences",
    "reward_ranges",
    "sample_grid",
    "save",
    "tile",
    "training_curves",
]


def pixels(figure: Figure, *, dpi: float) -> np.ndarray:
    """Return a figure as an RGB image (h, w, 3) in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    with style.context(STYLE):
        figure.set_dpi(dpi)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba(), np.float64)[..., :3] / 255.0


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG, cropped to its content; the bytes depend on the figure alone.

    The file is written as a whole or not at all, and never through a link.
    """
    content = io.BytesIO()
    with style.context(STYLE):
        crop: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.04}
        figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None}, **crop)
    storage.write(local(path), content.getvalue())
