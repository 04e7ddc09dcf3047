"""Every figure of a report, from arrays and plain dicts.

The functions build `matplotlib.figure.Figure` objects and touch neither pyplot nor the caller's
settings, so they run without a display. In a notebook, ``%matplotlib inline`` shows them.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects, style, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from lgd.plot_style import (
    DPI,
    STYLE,
    WIDTH,
    balanced,
    class_colors,
    class_key,
    is_learned,
    method_color,
    method_label,
    method_line,
    method_marker,
    method_title,
    panels,
    settled,
)

_PANEL_ROOM = WIDTH - 0.9  # inches; the rest is for labels and keys


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG, cropped to its content: same figure, same bytes."""
    with style.context(STYLE):
        crop: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.04}
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None}, **crop)


@style.context(STYLE)
def omega_curves(
    learned: Mapping[str, ArrayLike],
    hand_made: Mapping[str, ArrayLike],
    *,
    logsnr: ArrayLike,
    class_names: Sequence[str],
) -> Figure:
    """Omega (num_classes, k) over logsnr(t) (k,), one panel a method, one thin line a class.

    The mean over classes is thick; ``hand_made`` schedules (k,) are dashed in every panel.
    omega = 0 is no guidance. Low logsnr, on the left, is noise.
    """
    x = _checked(logsnr, "logsnr", (None,))
    shape = (len(class_names), len(x))
    per_class = [_checked(omega, f"omega of {name}", shape) for name, omega in learned.items()]
    curves = {name: _checked(y, f"omega of {name}", x.shape) for name, y in hand_made.items()}
    columns = balanced(len(learned), at_most=3)
    size = (_PANEL_ROOM / columns, 2.3)
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
    axes[0].set_ylim(*_padded(np.append(everything, 0.0)))
    figure.supxlabel(
        r"$\mathrm{logsnr}(t) = 2\,\log(\alpha_t / \sigma_t)$, nats   (noise $\rightarrow$ data)"
    )
    thick = Line2D([], [], color="#999999", linewidth=2.4, label="mean over classes")
    dashed = axes[0].lines[len(class_names) + 1 :]
    figure.legend(handles=[thick, *dashed], loc="outside upper center", ncols=5)
    class_key(figure, axes, class_names)
    return settled(figure)


@style.context(STYLE)
def sample_grid(samples: Mapping[str, ArrayLike], row_names: Sequence[str]) -> Figure:
    """One block of images (rows, cols, h, w, channels) in [-1, 1] a method; 1 or 3 channels.

    Draw every method from the same noise: then an image compares with the one at its place in
    another block. Values outside [-1, 1] are clipped.
    """
    columns = balanced(len(samples), at_most=4)
    shape = (len(row_names), *np.shape(next(iter(samples.values())))[1:])
    tiles = [_tile(_checked(x, f"samples of {name}", shape)) for name, x in samples.items()]
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
    for i, (name, tile) in enumerate(zip(samples, tiles, strict=True)):
        row, column = divmod(i, columns)
        left, bottom = column * (w + gap), (num_rows - 1 - row) * (h + title_h)
        ax = figure.add_axes((left / width, bottom / height, w / width, h / height))
        ax.imshow(tile, aspect="auto")
        ax.set_title(titles[i], color=method_color(name), pad=3)
        ax.set_xticks([])
        ax.set_yticks(middles, row_names)
        ax.tick_params(length=0, labelleft=column == 0)
        ax.spines[:].set_visible(False)
        ax.grid(False)
    return settled(figure)


@style.context(STYLE)
def metric_against_weight(
    weights: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    others: Mapping[str, tuple[float, float]],
    *,
    metric_name: str,
) -> Figure:
    """Metric of constant guidance over its weight, all (k,); other methods as (mean, std) lines.

    Bands are +-1 standard deviation. With others, the y axis holds them and the half of the
    weights that is nearest to them; bad weights leave it.
    """
    x = _checked(weights, "weights", (None,))
    order = np.argsort(x)
    y, spread = _checked(mean, "mean", x.shape)[order], _checked(std, "std", x.shape)[order]
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
        seen = [values - errors, values + errors, y[near] - spread[near], y[near] + spread[near]]
        ax.set_ylim(*_padded(np.concatenate(seen)))
    ax.set_xlabel(r"guidance weight $\omega$   ($\omega = 0$: no guidance)")
    ax.set_ylabel(metric_name)
    title = "mean $\\pm$ 1 std" if np.any(spread > 0) or np.any(errors > 0) else None
    figure.legend(loc="outside right center", title=title)
    return settled(figure)


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
    """Rows of results.json as points, one metric over another, a line through each family.

    Bars are +-2 standard errors; numbers at learned points are their ``params.gamma``
    above 0, where they fit.
    ``references`` are plain curves (x, y), ``level`` is a name and a y that a thin line marks. The
    axes hold every learned row and every family of one row; of the others, what lies beside those.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    ax = figure.subplots()
    held = [_points(rows, metrics) for name, rows in families.items()
            if is_learned(name) or len(rows) == 1]  # fmt: skip
    x, y = np.concatenate(held, axis=1)
    ax.set_xlim(*_padded(x))
    ax.set_ylim(*_padded(y if level is None else np.append(y, level[1])))
    for name, (x, y) in (references or {}).items():
        curve: dict[str, Any] = {"color": "#9a9a9a", "linewidth": 2.6, "alpha": 0.6, "zorder": 1.2}
        ax.plot(_checked(x, f"x of {name}", (None,)), y, label=name, **curve)
    taken: list[np.ndarray] = []
    for name, rows in families.items():
        x, y = _points(rows, metrics)
        errors = [[_two_standard_errors(row["metrics"][m]) for row in rows] for m in metrics]
        size, order = (4.0, 2.0) if len(rows) > 1 else (6.0, 3.0)
        look: dict[str, Any] = {"marker": method_marker(name), "markersize": size}
        look |= {"elinewidth": 0.8} | method_line(name, linewidth=1.3)
        ax.errorbar(x, y, yerr=errors[1], xerr=errors[0], zorder=order, **look)
        if is_learned(name):
            _name_weights(ax, rows, np.transpose([x, y]), taken)
    if level is not None:
        ax.axhline(level[1], color="#1a1a1a", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0.9)
        ax.text(0.01, level[1], level[0], transform=ax.get_yaxis_transform(), va="bottom")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    figure.legend(loc="outside right center")
    return settled(figure)


def _name_weights(
    ax: Axes, rows: Sequence[Mapping[str, Any]], points: np.ndarray, taken: list[np.ndarray]
) -> None:
    """``params.gamma`` above 0 below the points (rows, 2), where no place within 5% is taken."""
    for row, point in zip(rows, points, strict=True):
        place = ax.transAxes.inverted().transform(ax.transData.transform(point))
        gamma = row["params"]["gamma"]
        if gamma == 0.0 or any(np.max(np.abs(place - other)) < 0.05 for other in taken):
            continue
        taken.append(place)
        color = method_color(row["method"])
        look: dict[str, Any] = {"textcoords": "offset points", "fontsize": 6.5, "color": color}
        ax.annotate(f"{gamma:g}", point, xytext=(4, -9), **look)


@style.context(STYLE)
def metrics_against_reward_weight(
    families: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Mapping[str, str]
) -> Figure:
    """Metrics of rows of results.json over ``params.gamma``: a panel each, a line a family.

    ``metrics`` maps names to the panels' labels; bars are +-2 standard errors. The weights are
    equally spaced, whatever their values, which stand below.
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
            errors = [_two_standard_errors(row["metrics"][metric]) for row in rows]
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
    """Least and most mean reward (g,) that every family reaches, by class.

    Also the unguided one and that of real data. Classes that are not helped have their names in
    grey, with a remark.
    """
    shape = (len(class_names),)
    base = _checked(unguided, "unguided", shape)
    height = 0.6 + (0.12 + 0.08 * len(ranges)) * len(class_names)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    ax = figure.subplots()
    places = np.arange(len(class_names), dtype=np.float64)
    offsets = np.linspace(-0.3, 0.3, len(ranges)) if len(ranges) > 1 else np.zeros(1)
    for offset, (name, (least, most)) in zip(offsets, ranges.items(), strict=True):
        low, high = (_checked(v, f"range of {name}", shape) for v in (least, most))
        label, color = method_label(name), method_color(name)
        ax.hlines(places + offset, low, high, color=color, linewidth=2.6, label=label)
    ax.vlines(base, places - 0.42, places + 0.42, color="#1a1a1a", linewidth=1.2, label="unguided")
    look: dict[str, Any] = {"color": "white", "edgecolors": "#1a1a1a", "linewidths": 0.8, "s": 16}
    ax.scatter(
        _checked(real, "real", shape), places, marker="D", label="real data", zorder=3, **look
    )
    ax.set_yticks(places, class_names)
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


@style.context(STYLE)
def training_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, ylabel: str) -> Figure:
    """(steps (n,), values (n,)) of every run in its own panel: raw, and a moving average over it.

    The average spans 1/25 of the run. The y axis holds all of it and the central 98% of the raw
    values.
    """
    columns = balanced(len(curves), at_most=3)
    size = (_PANEL_ROOM / columns, 1.9)
    figure, axes = panels(
        curves, columns=columns, size=size, share=False, xlabel="training step", ylabel=ylabel
    )
    for ax, (name, (steps, values)) in zip(axes, curves.items(), strict=True):
        x = _checked(steps, f"steps of {name}", (None,))
        y = _checked(values, f"values of {name}", x.shape)
        window = np.ones(len(y) // 50 * 2 + 1)
        smooth = np.convolve(y, window, "same") / np.convolve(np.ones_like(y), window, "same")
        ax.plot(x, y, color=method_color(name), alpha=0.3, linewidth=0.7)
        ax.plot(x, smooth, color=method_color(name), linewidth=1.5)
        ax.set_ylim(*_padded(np.append(np.percentile(y, [1, 99]), smooth)))
        ax.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
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
    """2-D samples (n, 2), coloured by label (n,), over the true density; one panel a method.

    ``log_density`` (ny, nx) lies on a regular grid over extent = (x_min, x_max, y_min, y_max),
    y upwards. Greys: the smallest regions that hold 99, 90 and 50% of the mass in the extent.
    Samples outside it are not seen.
    """
    if set(labels) != set(samples):
        raise ValueError(f"expected labels of {sorted(samples)}, got {sorted(labels)}")
    points = {name: _checked(x, f"samples of {name}", (None, 2)) for name, x in samples.items()}
    classes = {
        name: _checked(labels[name], f"labels of {name}", (len(x),)).astype(int)
        for name, x in points.items()
    }
    columns = balanced(len(samples), at_most=4)
    count = 1 + max(int(c.max()) for c in classes.values())
    names = [str(i) for i in range(count)] if class_names is None else class_names
    if count > len(names):
        raise ValueError(f"expected labels below {len(names)}, got {count - 1}")
    density = _checked(np.maximum(log_density, -1e30), "log_density", (None, None))
    density = np.maximum(density, density.max() - 60.0)  # contours of -inf would vanish
    levels = _mass_levels(density, (0.99, 0.9, 0.5))
    x_axis = np.linspace(extent[0], extent[1], density.shape[1])
    y_axis = np.linspace(extent[2], extent[3], density.shape[0])
    side = min(3.0, _PANEL_ROOM / columns)
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


@style.context(STYLE)
def method_bars(rows: Sequence[Mapping[str, Any]], metric: str, lower_is_better: bool) -> Figure:
    """Metric of every row of results.json, in their order: mean +-2 standard errors, and each seed.

    The standard error is std / sqrt(number of values). The vertical line is the best mean of the
    methods that are not learned.
    """
    if not rows or any(metric not in row["metrics"] for row in rows):
        raise ValueError(f"expected rows that all have {metric!r}, got {len(rows)} rows")
    names = [row["method"] for row in rows]
    results = [row["metrics"][metric] for row in rows]
    errors = [_two_standard_errors(result) for result in results]
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
    """One panel a key, in it one line a method: mean +- error over x, ticks at the values of x.

    ``log`` names the axes that are logarithmic: "", "x", "y" or "xy". Panels share their axes, and
    an empty title leaves its panel without one. ``ylim`` may cut a curve that leaves the others.
    """
    columns = balanced(len(curves), at_most=3)
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(WIDTH, 0.7 + 2.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for ax, (title, methods) in zip(grid, curves.items(), strict=False):
        for name, curve in methods.items():
            x = _checked(curve[0], f"x of {name}", (None,))
            mean, error = (_checked(y, f"curve of {name}", x.shape) for y in curve[1:])
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


def _set_scales(ax: Axes, log: str) -> None:
    """Logarithmic axes with plain numbers at the x drawn."""
    ticks = sorted({float(x) for line in ax.lines for x in np.atleast_1d(line.get_xdata())})
    if "x" in log:
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        ax.xaxis.set_minor_locator(ticker.NullLocator())
    if "y" in log:
        ax.set_yscale("log")


def _checked(value: ArrayLike, what: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """As finite float64, of this shape, where None is any size above 0."""
    array = np.asarray(value, np.float64)
    if array.ndim != len(shape) or any(
        got != want if want is not None else got == 0
        for got, want in zip(array.shape, shape, strict=True)
    ):
        raise ValueError(f"expected {what} of shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"expected finite {what}, got {array[~np.isfinite(array)][0]}")
    return array


def _points(rows: Sequence[Mapping[str, Any]], metrics: tuple[str, str]) -> np.ndarray:
    """Means of two metrics, (2, rows)."""
    return np.array([[row["metrics"][name]["mean"] for row in rows] for name in metrics], float)


def _padded(values: np.ndarray) -> tuple[float, float]:
    """Limits of an axis that holds these values, with 4% to spare."""
    low, top = float(np.min(values)), float(np.max(values))
    spare = 0.04 * (top - low) or 0.04 * abs(top) or 1.0
    return low - spare, top + spare


def _tile(images: np.ndarray) -> np.ndarray:
    """(rows, cols, h, w, 1 or 3) in [-1, 1] as one RGB image in [0, 1], with white seams."""
    rows, cols, h, w, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"expected 1 or 3 channels, got {channels}")
    seam = max(1, h // 16)
    cells = np.ones((rows, cols, h + seam, w + seam, 3))
    cells[:, :, :h, :w] = np.clip(0.5 * (images + 1.0), 0.0, 1.0)
    tiled = cells.transpose(0, 2, 1, 3, 4).reshape(rows * (h + seam), cols * (w + seam), 3)
    return tiled[:-seam, :-seam]


def _mass_levels(log_density: np.ndarray, masses: Sequence[float]) -> np.ndarray:
    """Rising levels of log density; above the i-th lies the fraction masses[i] of the mass."""
    descending = np.sort(log_density, axis=None)[::-1]
    held = np.cumsum(np.exp(descending - descending[0]))
    levels = np.unique(descending[np.searchsorted(held, np.multiply(masses, held[-1]))])
    return np.append(levels, descending[0] + 1.0)


def _two_standard_errors(result: Mapping[str, Any]) -> float:
    """0 where there is but one value."""
    count = len(result["values"])
    return 2.0 * result["std"] / math.sqrt(count) if count > 1 else 0.0


def _digits(errors: Sequence[float]) -> int:
    """Decimals that show two digits of the median error; 4 where no error is above 0."""
    positive = [error for error in errors if error > 0.0]
    return max(0, 1 - math.floor(math.log10(np.median(positive)))) if positive else 4
