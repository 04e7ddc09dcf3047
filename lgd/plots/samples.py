"""Figures of samples: images in a grid, points over a density."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lgd.data.ranges import checked_examples
from lgd.plots.theme import (
    DPI,
    PANEL_ROOM,
    STYLE,
    WIDTH,
    balanced,
    checked,
    class_colors,
    class_key,
    literal,
    method_color,
    method_title,
    panels,
    settled,
)


@style.context(STYLE)
def sample_grid(samples: Mapping[str, ArrayLike], row_names: Sequence[str]) -> Figure:
    """Return a block of images for every method.

    Draw all methods from the same noise: then images at the same place of two blocks can be
    compared. Values outside [-1, 1] are clipped.

    Args:
      samples: images (rows, cols, h, w, channels) in [-1, 1], 1 or 3 channels, by name.
      row_names: names of the rows.

    Raises:
      ValueError: for arrays of different shapes, other channels, values that are not finite, and
        pixels of 0 to 255, see `data.ranges.checked_examples`.
    """
    columns = balanced(len(samples), at_most=4)
    shape = (len(row_names), *np.shape(next(iter(samples.values())))[1:])
    tiles = [tile(_images(x, f"samples of {name}", shape)) for name, x in samples.items()]
    tile_h, tile_w = tiles[0].shape[:2]
    num_rows = math.ceil(len(tiles) / columns)
    gap = round(0.12 * DPI)
    room = min(round(WIDTH * DPI) // columns - gap, 3 * DPI)
    titles = [method_title(name, width=room / DPI) for name in samples]
    title_h = round((0.12 + 0.14 * max(len(title.splitlines()) for title in titles)) * DPI)
    w = room // tile_w * tile_w if room >= 3 * tile_w else room  # small images: whole multiples
    h = round(w * tile_h / tile_w)
    width, height = columns * (w + gap) - gap, num_rows * (h + title_h)
    figure = Figure(figsize=(width / DPI, height / DPI))
    middles = (np.arange(len(row_names)) + 0.5) * tile_h / len(row_names) - 0.5
    for i, (name, image) in enumerate(zip(samples, tiles, strict=True)):
        row, column = divmod(i, columns)
        x, y = column * (w + gap), (num_rows - 1 - row) * (h + title_h)
        ax = figure.add_axes((x / width, y / height, w / width, h / height))
        ax.imshow(image, aspect="auto")
        ax.set_title(titles[i], color=method_color(name), pad=3)
        ax.set_xticks([])
        ax.set_yticks(middles, list(map(literal, row_names)))
        ax.tick_params(length=0, labelleft=column == 0)
        ax.spines[:].set_visible(False)
        ax.grid(False)
    return settled(figure)


@style.context(STYLE)
def density_samples(
    samples: Mapping[str, ArrayLike],
    labels: Mapping[str, ArrayLike],
    log_density: ArrayLike,
    *,
    extent: tuple[float, float, float, float],
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Return a panel for every method with 2-D samples over the true density.

    Samples are coloured by label. Greys are the smallest regions that hold 99, 90 and 50% of the
    mass in the extent.

    Args:
      samples: samples (n, 2) by name; those outside the extent are not shown.
      labels: labels (n,) by name, of the same names.
      log_density: log of the density (ny, nx) on a regular grid over the extent, y upwards.
      extent: (x_min, x_max, y_min, y_max).
      class_names: names of the labels; None: numbers.

    Raises:
      ValueError: for other names, shapes or labels, or values that are not finite.
    """
    if set(labels) != set(samples):
        raise ValueError(f"expected labels of {sorted(samples)}, got {sorted(labels)}")
    points = {name: checked(x, f"samples of {name}", (None, 2)) for name, x in samples.items()}
    classes = {
        name: checked(labels[name], f"labels of {name}", (len(x),)).astype(int)
        for name, x in points.items()
    }
    columns = balanced(len(samples), at_most=4)
    count = 1 + max(int(c.max()) for c in classes.values())
    names = [str(i) for i in range(count)] if class_names is None else class_names
    if count > len(names):
        raise ValueError(f"expected labels below {len(names)}, got {count - 1}")
    density = checked(np.maximum(log_density, -1e30), "log_density", (None, None))
    density = np.maximum(density, density.max() - 60.0)  # contours of -inf would vanish
    levels = _mass_levels(density, (0.99, 0.9, 0.5))
    x_axis = np.linspace(extent[0], extent[1], density.shape[1])
    y_axis = np.linspace(extent[2], extent[3], density.shape[0])
    side = min(3.0, PANEL_ROOM / columns)
    size = (side, 0.2 + side * (extent[3] - extent[2]) / (extent[1] - extent[0]))
    figure, axes = panels(
        samples, columns=columns, size=size, share=True, xlabel="$x_1$", ylabel="$x_2$"
    )
    for ax, (name, x) in zip(axes, points.items(), strict=True):
        greys = ["#ececec", "#d9d9d9", "#bdbdbd"][: len(levels) - 1]
        ax.contourf(x_axis, y_axis, density, levels, colors=greys)
        color, area = class_colors(len(names))[classes[name]], np.clip(4000 / len(x), 1.0, 8.0)
        ax.scatter(x[:, 0], x[:, 1], s=float(area), c=color, alpha=0.8, linewidths=0)
        ax.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
        ax.grid(False)
    class_key(figure, axes, names)
    return settled(figure)


def _images(x: ArrayLike, what: str, shape: tuple[int, ...]) -> np.ndarray:
    images = checked(x, what, shape)
    checked_examples(what, np.asarray(x).reshape(-1, *shape[2:]))
    return images


def tile(images: np.ndarray) -> np.ndarray:
    """Return images (rows, cols, h, w, 1 or 3) in [-1, 1] as one RGB image in [0, 1].

    White seams lie between them. Raises ValueError for other channels.
    """
    rows, cols, h, w, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"expected 1 or 3 channels, got {channels}")
    seam = max(1, h // 16)
    cells = np.ones((rows, cols, h + seam, w + seam, 3))
    cells[:, :, :h, :w] = np.clip(0.5 * (images + 1.0), 0.0, 1.0)
    tiled = cells.transpose(0, 2, 1, 3, 4).reshape(rows * (h + seam), cols * (w + seam), 3)
    return tiled[:-seam, :-seam]


def _mass_levels(log_density: np.ndarray, masses: Sequence[float]) -> np.ndarray:
    """Return increasing levels of log density above which the given shares of the mass lie."""
    descending = np.sort(log_density, axis=None)[::-1]
    held = np.cumsum(np.exp(descending - descending[0]))
    levels = np.unique(descending[np.searchsorted(held, np.multiply(masses, held[-1]))])
    return np.append(levels, descending[0] + 1.0)
