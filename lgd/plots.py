"""Every figure of a report, from arrays and plain dicts.

The functions build `matplotlib.figure.Figure` objects and touch neither pyplot nor the caller's
settings, so they run without a display. In a notebook, ``%matplotlib inline`` shows them. A method
has one colour in all figures: hand-made schedules are greys and blues, learned ones saturated.
"""

import math
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import colors, patheffects, style, ticker
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

WIDTH = 7.0  # inches; 1,400 pixels, so that text stays readable at a README's 850
DPI = 200

_STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8.5,
    "figure.dpi": DPI,
    "font.size": 8,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.2,
    "xtick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 7.5,
    "ytick.major.width": 0.6,
}
_RC: Any = ["default", _STYLE]  # for style.context: independent of the caller's rcParams

_DASHES = {
    "constant": (0, (5, 1.5)),
    "limited_interval": (0, (1, 1)),
    "clamp_linear": (0, (6, 1.5, 1, 1.5)),
    "limited_interval_per_class": (0, (3, 1, 1, 1, 1, 1)),
}
_COLORS = {
    "unguided": "#8c8c8c",
    "constant": "#4a5a70",
    "limited_interval": "#1b4f9c",
    "limited_interval_per_class": "#6a9bd1",
    "clamp_linear": "#1a1a1a",
    "learned:self_consistency": "#d55e00",
    "learned:l2": "#e69f00",
    "learned:conditional_marginal": "#cc5fa0",
    "learned:guided_score_matching": "#8a7a00",
    "learned:trajectory": "#009e73",
    "learned:reward": "#7b2d8e",
}
_OTHER_LEARNED = ("#a3123f", "#8c4a1e", "#2f8f2f", "#d6336c")
_OTHER_HAND_MADE = ("#5f7f8f", "#3d3d5c", "#8fa3b8", "#707070")
_CLASSES = (  # Tol's twelve, dark and light alternating
    "#332288", "#88ccee", "#117733", "#ddaa33", "#cc6677", "#44aa99",
    "#882255", "#999933", "#6699cc", "#661100", "#aa4499", "#777777",
)  # fmt: skip


def method_label(name: str) -> str:
    """``learned:self_consistency`` as "learned: self consistency"."""
    return name.replace("_", " ").replace(":", ": ")


def method_color(name: str) -> str:
    """The colour of a method in every figure; an unknown name gets one by its checksum."""
    others = _OTHER_LEARNED if _is_learned(name) else _OTHER_HAND_MADE
    return _COLORS.get(name, others[zlib.crc32(name.encode()) % len(others)])


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG at `DPI`, cropped to its content: same figure, same bytes."""
    with style.context(_RC):
        figure.savefig(
            path, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.04,
            metadata={"Software": None},
        )  # fmt: skip


@style.context(_RC)
def omega_curves(
    learned: Mapping[str, ArrayLike],
    hand_made: Mapping[str, ArrayLike],
    *,
    logsnr: ArrayLike,
    class_names: Sequence[str],
) -> Figure:
    """Learned omega (num_classes, k) over logsnr(t) (k,), one panel a method, one line a class.

    The mean over classes is thick; ``hand_made`` schedules (k,) are dashed in every panel.
    omega = 0 is no guidance. Low logsnr, on the left, is noise.
    """
    x = _checked(logsnr, "logsnr", (None,))
    if not np.isfinite(x).all():
        raise ValueError(f"expected finite logsnr, got {x}")
    class_colors = _class_colors(len(class_names))
    figure, axes = _panels(learned, per_row=3, height=2.3, sharex=True, sharey=True)
    thin = 0.9 if len(class_names) <= len(_CLASSES) else 0.5
    for ax, (name, omega) in zip(axes, learned.items(), strict=True):
        omega = _checked(omega, f"omega of {name}", (len(class_names), len(x)))
        for curve, color in zip(omega, class_colors, strict=True):
            ax.plot(x, curve, color=color, linewidth=thin, alpha=0.75)
        (mean,) = ax.plot(x, omega.mean(axis=0), color=method_color(name), linewidth=2.4)
        mean.set_path_effects([patheffects.withStroke(linewidth=3.8, foreground="white")])
        for other, curve in hand_made.items():
            curve = _checked(curve, f"omega of {other}", (len(x),))
            ax.plot(x, curve, label=method_label(other), **_line(other, linewidth=1.3))
        ax.set_xlim(x.min(), x.max())
        ax.set_ylim(bottom=min(0.0, ax.dataLim.y0))
    _label_outer(axes, x="", y=r"guidance weight $\omega$")
    figure.supxlabel(
        r"$\mathrm{logsnr}(t) = 2\,\log(\alpha_t / \sigma_t)$, nats   (noise $\rightarrow$ data)",
        fontsize=8,
    )
    thick = Line2D([], [], color="#d55e00", linewidth=2.4, label="mean over classes")
    if len(learned) == 1:
        thick.set_color(method_color(next(iter(learned))))
    lines = [line for line in axes[0].lines if not line.get_label().startswith("_")]
    figure.legend(handles=[thick, *lines], loc="outside upper center", ncols=5)
    _class_key(figure, axes, class_names)
    return _settled(figure)


@style.context(_RC)
def sample_grid(samples: Mapping[str, ArrayLike], row_names: Sequence[str]) -> Figure:
    """One block of images (rows, cols, h, w, channels) in [-1, 1] a method; 1 or 3 channels.

    Draw every method from the same noise: then an image compares with the one at its place in
    another block. Values outside [-1, 1] are clipped.
    """
    _check_not_empty(samples)
    shape = (len(row_names), *np.shape(next(iter(samples.values())))[1:])
    tiles = {
        name: _tile(_checked(images, f"samples of {name}", shape))
        for name, images in samples.items()
    }
    tile_h, tile_w = next(iter(tiles.values())).shape[:2]
    per_row = _balanced(len(tiles), at_most=4)
    num_rows = math.ceil(len(tiles) / per_row)
    gap, title = round(0.12 * DPI), round(0.26 * DPI)
    room = min(round(WIDTH * DPI) // per_row - gap, 3 * DPI)
    w = room // tile_w * tile_w or room  # whole pixels a pixel, where there is room
    h = round(w * tile_h / tile_w)
    width, height = per_row * (w + gap) - gap, num_rows * (h + title)
    figure = Figure(figsize=(width / DPI, height / DPI))
    for i, (name, tile) in enumerate(tiles.items()):
        row, col = divmod(i, per_row)
        bottom = (num_rows - 1 - row) * (h + title)
        ax = figure.add_axes((col * (w + gap) / width, bottom / height, w / width, h / height))
        ax.imshow(tile, aspect="auto")
        ax.set_title(method_label(name), color=method_color(name), pad=3)
        ax.set_xticks([])
        cell = tile_h / len(row_names)
        ax.set_yticks((np.arange(len(row_names)) + 0.5) * cell - 0.5, row_names)
        ax.tick_params(length=0, labelleft=col == 0)
        ax.spines[:].set_visible(False)
        ax.grid(False)
    return _settled(figure)


@style.context(_RC)
def metric_against_weight(
    weights: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    others: Mapping[str, tuple[float, float]],
    *,
    metric_name: str,
) -> Figure:
    """Metric of constant guidance over its weight, all (k,); other methods as (mean, std) lines.

    Bands are +-1 standard deviation over seeds.
    """
    weights = _checked(weights, "weights", (None,))
    mean, std = _checked(mean, "mean", weights.shape), _checked(std, "std", weights.shape)
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    ax = figure.subplots()
    order = np.argsort(weights)
    x, y, spread = weights[order], mean[order], std[order]
    color = method_color("constant")
    ax.fill_between(x, y - spread, y + spread, color=color, alpha=0.2, linewidth=0)
    ax.plot(x, y, color=color, marker="o", markersize=3.2, label=r"constant, over $\omega$")
    for name, (value, error) in sorted(others.items(), key=lambda item: -item[1][0]):
        ax.axhspan(value - error, value + error, color=method_color(name), alpha=0.15, linewidth=0)
        ax.axhline(value, label=method_label(name), **_line(name, linewidth=1.4))
    ax.set_xlim(x[0], x[-1])
    ax.set_xlabel(r"guidance weight $\omega$   ($\omega = 0$: no guidance)")
    ax.set_ylabel(metric_name)
    figure.legend(loc="outside right center", title="mean $\\pm$ 1 std", title_fontsize=7.5)
    return _settled(figure)


@style.context(_RC)
def training_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, ylabel: str) -> Figure:
    """(steps (n,), values (n,)) of every run in its own panel: raw, and a moving average over it.

    The average spans 1/25 of the run. The y axis holds all of it and the central 98% of the raw
    values.
    """
    figure, axes = _panels(curves, per_row=3, height=1.9, sharex=False, sharey=False)
    for ax, (name, (steps, values)) in zip(axes, curves.items(), strict=True):
        x = _checked(steps, f"steps of {name}", (None,))
        y = _checked(values, f"values of {name}", x.shape)
        window = np.ones(len(y) // 25 // 2 * 2 + 1)
        smooth = np.convolve(y, window, "same") / np.convolve(np.ones_like(y), window, "same")
        ax.plot(x, y, color=method_color(name), alpha=0.3, linewidth=0.7)
        ax.plot(x, smooth, color=method_color(name), linewidth=1.5)
        seen = np.append(np.nanpercentile(y, [1, 99]), smooth)
        margin = 0.05 * float(np.nanmax(seen) - np.nanmin(seen))
        if margin > 0:
            ax.set_ylim(np.nanmin(seen) - margin, np.nanmax(seen) + margin)
        ax.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
    _label_outer(axes, x="training step", y=ylabel)
    return _settled(figure)


@style.context(_RC)
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
    y upwards. Greys: the smallest regions that hold 99, 90 and 50% of its mass. Samples outside
    the extent are not seen.
    """
    log_density = _checked(log_density, "log_density", (None, None))
    if set(labels) != set(samples):
        raise ValueError(f"expected labels of {sorted(samples)}, got {sorted(labels)}")
    points = {name: _checked(x, f"samples of {name}", (None, 2)) for name, x in samples.items()}
    classes = {
        name: _checked(labels[name], f"labels of {name}", (len(x),)).astype(int)
        for name, x in points.items()
    }
    if class_names is None:
        num_classes = 1 + max((int(c.max()) for c in classes.values() if c.size), default=0)
        class_names = [f"class {i}" for i in range(num_classes)]
    class_colors = np.array(_class_colors(len(class_names)))
    ratio = (extent[3] - extent[2]) / (extent[1] - extent[0])
    figure, axes = _panels(samples, per_row=3, height=0.25 + 2.0 * ratio, sharex=True, sharey=True)
    grid_y, grid_x = (
        np.linspace(lo, hi, size)
        for (lo, hi), size in zip((extent[2:], extent[:2]), log_density.shape, strict=True)
    )
    levels = _mass_levels(log_density, (0.99, 0.9, 0.5))
    for ax, (name, x) in zip(axes, points.items(), strict=True):
        ax.contourf(grid_x, grid_y, np.maximum(log_density, log_density.max() - 60.0), levels,
                    colors=["#ececec", "#d9d9d9", "#bdbdbd"][: len(levels) - 1])  # fmt: skip
        size = float(np.clip(4000 / max(len(x), 1), 1.0, 8.0))
        ax.scatter(*x.T, s=size, c=class_colors[classes[name]], alpha=0.8, linewidths=0)
        ax.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
        ax.grid(False)
    _label_outer(axes, x="$x_1$", y="$x_2$")
    _class_key(figure, axes, class_names)
    return _settled(figure)


@style.context(_RC)
def method_bars(rows: Sequence[Mapping[str, Any]], metric: str, lower_is_better: bool) -> Figure:
    """Metric of every row of results.json, in their order: mean +-2 standard errors, and each seed.

    The standard error is std / sqrt(number of values). The vertical line is the best mean of the
    methods that are not learned.
    """
    if not rows or any(metric not in row["metrics"] for row in rows):
        raise ValueError(f"expected rows that all have {metric!r}, got {len(rows)} rows")
    results = [(row["method"], row["metrics"][metric]) for row in rows]
    figure = Figure(figsize=(WIDTH, 0.75 + 0.24 * len(rows)), layout="constrained")
    ax = figure.subplots()
    for i, (name, result) in enumerate(results):
        count, color = len(result["values"]), method_color(name)
        error = 2.0 * result["std"] / math.sqrt(count) if count > 1 else math.nan
        ax.scatter(result["values"], [i] * count, s=7, color=color, alpha=0.35, linewidths=0)
        ax.errorbar(result["mean"], i, xerr=error if count > 1 else None, color=color,
                    marker="o" if _is_learned(name) else "s", markersize=4.5, capsize=2.5)  # fmt: skip
        ax.text(1.02, i, _with_error(result["mean"], error), va="center", fontsize=7.5,
                transform=ax.get_yaxis_transform())  # fmt: skip
    best = [result["mean"] for name, result in results if not _is_learned(name)]
    if best:
        value = min(best) if lower_is_better else max(best)
        ax.axvline(value, color="#1a1a1a", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0.9)
        ax.annotate("best hand-made", (value, 1.0), xycoords=("data", "axes fraction"),
                    xytext=(0, 3), textcoords="offset points", ha="center", fontsize=7.5)  # fmt: skip
    ax.set_yticks(range(len(rows)), [method_label(name) for name, _ in results])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", visible=False)
    direction = "lower" if lower_is_better else "higher"
    ax.set_xlabel(
        f"{metric.replace('_', ' ')}, mean $\\pm$ 2 standard errors ({direction} is better)"
    )
    return _settled(figure)


def _is_learned(name: str) -> bool:
    return name.startswith("learned:")


def _line(name: str, *, linewidth: float) -> dict[str, Any]:
    """Hand-made schedules are told apart by their dashes too."""
    dashes = "-" if _is_learned(name) else _DASHES.get(name, (0, (2, 2)))
    return {"color": method_color(name), "linestyle": dashes, "linewidth": linewidth}


def _check_not_empty(methods: Mapping[str, Any]) -> None:
    if not methods:
        raise ValueError("expected at least one method, got none")


def _checked(value: ArrayLike, what: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """As float64, of this shape, where None is any size above 0."""
    array = np.asarray(value, np.float64)
    if array.ndim != len(shape) or any(
        got != want if want is not None else got == 0
        for got, want in zip(array.shape, shape, strict=True)
    ):
        raise ValueError(f"expected {what} of shape {shape}, got {array.shape}")
    return array


def _balanced(count: int, *, at_most: int) -> int:
    """Panels a row, such that rows are as equally long as they can be."""
    return math.ceil(count / math.ceil(count / at_most))


def _panels(
    methods: Mapping[str, Any], *, per_row: int, height: float, sharex: bool, sharey: bool
) -> tuple[Figure, list[Axes]]:
    """A titled panel for every method."""
    _check_not_empty(methods)
    cols = _balanced(len(methods), at_most=per_row)
    num_rows = math.ceil(len(methods) / cols)
    figure = Figure(figsize=(WIDTH, 0.5 + num_rows * height), layout="constrained")
    grid = figure.subplots(num_rows, cols, sharex=sharex, sharey=sharey, squeeze=False)
    axes = list(grid.flat)
    for ax in axes[len(methods) :]:
        ax.remove()
    axes = axes[: len(methods)]
    for ax, name in zip(axes, methods, strict=True):
        ax.set_title(method_label(name), color=method_color(name))
    return figure, axes


def _label_outer(axes: Sequence[Axes], *, x: str, y: str) -> None:
    """Label the lowest panel of every column and the first of every row."""
    cols = axes[0].get_gridspec().ncols
    for i, ax in enumerate(axes):
        if i + cols >= len(axes):
            ax.set_xlabel(x)
            ax.tick_params(labelbottom=True)
        if i % cols == 0:
            ax.set_ylabel(y)


def _class_colors(count: int) -> list[Any]:
    if count <= len(_CLASSES):
        return list(_CLASSES[:count])
    return [*mpl.colormaps["viridis"](np.linspace(0.0, 0.92, count))]


def _class_key(figure: Figure, axes: Sequence[Axes], names: Sequence[str]) -> None:
    """A legend of the classes beside the panels; a colour bar where they are too many."""
    palette = _class_colors(len(names))
    if len(names) <= len(_CLASSES):
        dots = [
            Line2D([], [], color=color, marker="o", markersize=4, linestyle="", label=name)
            for color, name in zip(palette, names, strict=True)
        ]
        figure.legend(handles=dots, loc="outside right center", handlelength=1.0)
    else:
        scale = ScalarMappable(colors.Normalize(0, len(names) - 1), colors.ListedColormap(palette))
        figure.colorbar(scale, ax=list(axes), label="class", pad=0.02, aspect=30)


def _settled(figure: Figure) -> Figure:
    """Lay out once, so that later draws, under whatever settings, change nothing."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


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


def _with_error(mean: float, error: float) -> str:
    """Mean and error with two digits of the error."""
    if not error > 0.0:
        return f"{mean:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:.{digits}f} $\\pm$ {error:.{digits}f}"
