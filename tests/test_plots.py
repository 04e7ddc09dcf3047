import math
import subprocess
import sys

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lgd import guidance, plots
from lgd.plots import theme

METHODS = [
    *("unguided", "constant", "limited_interval", "limited_interval_per_class", "clamp_linear"),
    *("learned:self_consistency", "learned:l2", "learned:conditional_marginal"),
    *("learned:guided_score_matching", "learned:trajectory", "learned:reward"),
]
LOGSNR = np.linspace(-4.0, 6.0, 21)
CLASSES = ["zero", "one", "two"]
EXTENT = (-5.0, 5.0, -4.0, 4.0)


def bumps(height, num_classes=3):
    scale = height * np.arange(1, num_classes + 1)[:, None]
    return scale * np.exp(-0.5 * (LOGSNR - 1.0) ** 2)


def omega_figure(**changes):
    arguments = {
        "learned": {"learned:self_consistency": bumps(0.2), "learned:trajectory": bumps(0.5)},
        "hand_made": {"constant": np.full(21, 0.4), "limited_interval": (LOGSNR > 0) * 0.9},
        "logsnr": LOGSNR,
        "class_names": CLASSES,
    }
    return plots.omega_curves(**arguments | changes)


def images(channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-1.2, 1.2, (2, 3, 4, 5, channels))


def grid_figure(**changes):
    arguments = {
        "samples": {name: images(seed=i) for i, name in enumerate(METHODS[:5])},
        "row_names": ["cat", "dog"],
    }
    return plots.sample_grid(**arguments | changes)


def ranked_figure(**changes):
    arguments = {
        "names": ["constant(0.1)", "unguided", "$mine$", "limited_interval(1, 0.2, 0.8)"],
        "differences": [-0.02, 0.0, 0.004, 3.0],
        "half_widths": [0.01, 0.0, 0.005, 0.2],
        "baseline": "unguided",
        "xlabel": "difference",
    }
    return plots.ranked_differences(**arguments | changes)


def maps_figure(count=4, **changes):
    edges = np.linspace(0.0, 1.0, 6)
    values = np.where(np.tri(5).T > 0, np.arange(25.0).reshape(5, 5) - 9.0, np.nan)
    arguments = {"maps": {f"constant({i})": (values, edges, edges) for i in range(count)}}
    return plots.difference_maps(**arguments | {"label": "difference"} | changes)


def by_class_figure(**changes):
    arguments = {
        "names": ["constant(0.1)", "$mine$"],
        "differences": [[-1.0, 0.5, 2.0], [0.0, -0.1, 1.0]],
        "half_widths": np.full((2, 3), 0.6),
        "class_names": CLASSES,
        "label": "difference",
    }
    return plots.class_differences(**arguments | changes)


def weight_figure(**changes):
    weights = np.array([1.0, 0.0, 0.5, 8.0])
    arguments = {
        "weights": weights,
        "mean": 1.0 + (weights - 0.5) ** 2,
        "std": np.full(4, 0.05),
        "others": {"learned:trajectory": (0.8, 0.02), "limited_interval": (0.9, 0.03)},
        "metric_name": "energy distance",
    }
    return plots.metric_against_weight(**arguments | changes)


def training_figure(**changes):
    steps = np.arange(200)
    values = 1.0 + np.random.default_rng(0).normal(size=200)
    arguments = {
        "curves": {"denoiser": (steps * 10, np.full(200, 2.0)), "learned:l2": (steps, values)},
        "ylabel": "loss",
    }
    return plots.training_curves(**arguments | changes)


def gaussian_log_density():
    x, y = np.meshgrid(np.linspace(*EXTENT[:2], 161), np.linspace(*EXTENT[2:], 121))
    return -0.5 * (x**2 + y**2)


def density_figure(**changes):
    rng = np.random.default_rng(0)
    names = ("unguided", "learned:trajectory")
    arguments = {
        "samples": {name: rng.normal(size=(30, 2)) for name in names},
        "labels": {name: np.arange(30) % 3 for name in names},
        "log_density": gaussian_log_density(),
        "extent": EXTENT,
    }
    return plots.density_samples(**arguments | changes)


def row(method, values):
    std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    result = {"mean": float(np.mean(values)), "std": std, "values": values}
    return {"method": method, "metrics": {"energy_distance": result}}


def bars_figure(**changes):
    arguments = {
        "rows": [
            row("unguided", [1.5, 1.6, 1.7, 1.8]),
            row("constant", [1.4, 1.42, 1.44, 1.46]),
            row("learned:trajectory", [1.3]),
        ],
        "metric": "energy_distance",
        "lower_is_better": True,
    }
    return plots.method_bars(**arguments | changes)


def rewarded(family, gammas, offset=0.0):
    """Rows of a family whose distance is gamma^2 + offset, at reward gamma."""
    rows = []
    for gamma in gammas:
        values = {"distance": gamma**2 + offset, "reward": gamma}
        metrics = {
            name: {"mean": value, "std": 0.1, "values": [value - 0.1, value, value + 0.1]}
            for name, value in values.items()
        }
        rows.append({"method": f"{family}:reward({gamma:g})", "params": {"gamma": gamma},
                     "metrics": metrics})  # fmt: skip
    return rows


FAMILIES = {
    "unguided": rewarded("unguided", (0.0,)),
    "constant": rewarded("constant", (0.0, 1.0, 9.0), offset=0.5),
    "learned:trajectory": rewarded("learned:trajectory", (0.0, 0.5, 2.0)),
}


def trade_off_figure(**changes):
    arguments = {
        "families": FAMILIES,
        "metrics": ("distance", "reward"),
        "xlabel": "distance",
        "ylabel": "reward",
        "references": {"tilted": (np.linspace(0, 4, 9), np.linspace(0, 3, 9))},
        "level": ("real", 2.5),
    }
    return plots.metric_against_metric(**arguments | changes)


def reward_weight_figure(**changes):
    families = {name: rows for name, rows in FAMILIES.items() if len(rows) > 1}
    arguments = {"families": families, "metrics": {"reward": "R", "distance": "D"}}
    return plots.metrics_against_reward_weight(**arguments | changes)


def ranges_figure(**changes):
    arguments = {
        "ranges": {"constant": ([-1.0, 0.0, 0.1], [0.0, 0.5, 0.2]),
                   "learned:trajectory": ([-0.1, 0.0, 0.1], [0.1, 0.9, 0.1])},
        "unguided": [0.0, 0.0, 0.1],
        "real": [0.0, 0.3, 0.2],
        "class_names": CLASSES,
        "helped": [False, True, False],
        "xlabel": "reward",
    }  # fmt: skip
    return plots.reward_ranges(**arguments | changes)


FIGURES = [
    *(omega_figure, grid_figure, weight_figure, training_figure, density_figure, bars_figure),
    *(trade_off_figure, reward_weight_figure, ranges_figure),
]


def png(figure, path):
    plots.save(figure, path)
    return path.read_bytes()


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def titles(figure):
    return [ax.get_title().replace("\n", " ") for ax in figure.axes]


@pytest.mark.slow
@pytest.mark.parametrize("make", FIGURES)
def test_same_input_same_bytes(make, tmp_path):
    first = png(make(), tmp_path / "a.png")
    assert first.startswith(b"\x89PNG")
    assert b"tEXt" not in first
    assert b"tIME" not in first
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30}):
        assert png(make(), tmp_path / "b.png") == first


def test_saving_does_not_change_a_figure(tmp_path):
    figure = weight_figure()
    assert png(figure, tmp_path / "a.png") == png(figure, tmp_path / "b.png")


def test_pyplot_is_not_imported():
    code = "import sys, lgd.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_jax_arrays_draw_as_numpy_ones():
    omega = bumps(0.5).astype(np.float32)
    figure = omega_figure(learned={"learned:l2": jnp.asarray(omega)}, logsnr=jnp.asarray(LOGSNR))
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), omega[1])


def test_every_method_has_its_own_colour():
    assert len({theme.method_color(name) for name in METHODS}) == len(METHODS)


def test_unknown_methods_have_stable_colours():
    learned = theme.method_color("learned:something_new")
    assert learned == theme.method_color("learned:something_new")
    assert learned not in {theme.method_color(name) for name in METHODS}


@pytest.mark.parametrize("name", [*guidance.FAMILIES, "of a user"])
def test_schedules_made_by_hand_are_dashed_greys_and_blues(name):
    look = theme.method_line(name, linewidth=1.0)
    red, green, blue, _ = to_rgba(look["color"])
    assert blue >= max(red, green)
    assert Line2D([], [], **look).is_dashed()


def test_labels_are_readable():
    assert theme.method_label("limited_interval") == "limited interval"
    assert theme.method_label("learned:self_consistency") == "learned: self consistency"


def test_omega_has_a_line_for_every_class_the_mean_and_every_schedule():
    figure = omega_figure()
    assert titles(figure) == ["learned: self consistency", "learned: trajectory"]
    for ax, height in zip(figure.axes, (0.2, 0.5), strict=True):
        assert len(ax.lines) == 3 + 1 + 2
        np.testing.assert_allclose(ax.lines[3].get_ydata(), bumps(height).mean(axis=0))
        assert ax.lines[3].get_linewidth() > 2 * ax.lines[0].get_linewidth()
        assert all(line.get_linestyle() == "--" for line in ax.lines[4:])
    assert to_hex(figure.axes[1].lines[3].get_color()) == theme.method_color("learned:trajectory")


def test_omega_axes_run_from_noise_to_data_and_hold_everything():
    figure = omega_figure()
    assert all(ax.get_xlim() == (-4.0, 6.0) for ax in figure.axes)
    (limits,) = {ax.get_ylim() for ax in figure.axes}
    assert limits[0] < 0.0
    assert limits[1] > bumps(0.5).max()
    assert r"noise $\rightarrow$ data" in figure.get_supxlabel()


def test_omega_legends():
    texts = legend_texts(omega_figure())
    assert texts == ["mean over classes", "constant", "limited interval", *CLASSES]


def test_many_classes_get_a_colour_bar():
    names = [f"class {i}" for i in range(40)]
    figure = omega_figure(learned={"learned:l2": bumps(0.1, 40)}, class_names=names)
    assert figure.axes[-1].get_ylabel() == "class"
    assert len(figure.axes[0].lines) == 40 + 1 + 2
    assert not set(names) & set(legend_texts(figure))


def test_more_classes_are_a_band_and_their_mean():
    """Weights 0, 1, ..., 1000 at every time: 90% lie in [50, 950], and the mean is 500."""
    omega = np.repeat(np.arange(1001.0)[:, None], 21, axis=1)
    names = [f"class {i}" for i in range(1001)]
    figure = omega_figure(learned={"learned:l2": omega}, class_names=names)
    ax = figure.axes[0]
    assert len(figure.axes) == 1  # no colour bar
    assert len(ax.lines) == 1 + 2
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 500.0)
    ends = [np.unique(band.get_paths()[0].vertices[:, 1]) for band in ax.collections]
    np.testing.assert_allclose(ends, [[50.0, 950.0], [250.0, 750.0]])
    bands = ["90% of 1,001 classes", "50% of 1,001 classes"]
    assert legend_texts(figure) == ["mean over classes", *bands, "constant", "limited interval"]


def test_omega_that_is_zero_everywhere():
    figure = omega_figure(learned={"learned:l2": np.zeros((3, 21))}, hand_made={})
    assert np.diff(figure.axes[0].get_ylim()) > 0


def test_grid_places_every_image():
    x = images()
    figure = grid_figure(samples={"unguided": x, "constant": -x})
    block = np.asarray(figure.axes[0].images[0].get_array())
    assert block.shape == (2 * 4 + 1, 3 * 5 + 2, 3)
    expected = np.clip((x[1, 2] + 1.0) / 2.0, 0.0, 1.0)
    np.testing.assert_allclose(block[5:9, 12:17], np.broadcast_to(expected, (4, 5, 3)))
    np.testing.assert_array_equal(block[4], 1.0)  # the seam


def test_grid_titles_and_rows():
    figure = grid_figure()
    assert titles(figure) == [theme.method_label(name) for name in METHODS[:5]]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["cat", "dog"]


def test_grid_pixels_are_whole_screen_pixels():
    figure = grid_figure()
    for ax in figure.axes:
        assert ax.bbox.width / (3 * 5 + 2) == pytest.approx(round(ax.bbox.width / (3 * 5 + 2)))


def test_grid_in_colour_and_larger_than_the_page(tmp_path):
    x = np.zeros((1, 8, 100, 100, 3))
    figure = grid_figure(samples={"unguided": x, "constant": x, "clamp_linear": x}, row_names=["a"])
    assert figure.get_figwidth() <= theme.WIDTH
    assert png(figure, tmp_path / "a.png")


def test_weight_line_is_sorted_and_banded():
    ax = weight_figure().axes[0]
    line = ax.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [0.0, 0.5, 1.0, 8.0])
    np.testing.assert_allclose(line.get_ydata(), [1.25, 1.0, 1.25, 57.25])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(1.0 - 0.05)


def test_weight_others_are_lines_in_the_order_of_their_values():
    figure = weight_figure()
    assert legend_texts(figure)[1:] == ["limited interval", "learned: trajectory"]
    assert [line.get_ydata()[0] for line in figure.axes[0].lines[1:]] == [0.9, 0.8]


def test_weight_axis_leaves_out_bad_weights_only():
    low, top = weight_figure().axes[0].get_ylim()
    assert low < 0.8 - 0.02
    assert 1.25 + 0.05 < top < 2.0
    assert weight_figure(others={}).axes[0].get_ylim()[1] > 57.25


def test_weight_legend_speaks_of_errors_only_where_there_are_some():
    assert "std" in weight_figure().legends[0].get_title().get_text()
    exact = weight_figure(std=np.zeros(4), others={"unguided": (1.25, 0.0)})
    assert exact.legends[0].get_title().get_text() == ""


def test_training_average_is_unbiased_up_to_the_ends():
    flat, noisy = training_figure().axes
    np.testing.assert_allclose(flat.lines[1].get_ydata(), 2.0)
    assert flat.lines[0].get_xdata()[-1] == 1990
    raw, smooth = (line.get_ydata() for line in noisy.lines)
    assert np.std(smooth) < 0.6 * np.std(raw)
    np.testing.assert_allclose(smooth[100], raw[96:105].mean())


def test_training_axis_survives_an_outlier():
    values = np.sin(np.arange(300.0))
    values[150] = 1e6
    (ax,) = training_figure(curves={"learned:l2": (np.arange(300), values)}).axes
    assert ax.get_ylim()[1] < 1e6


def test_training_with_one_value():
    assert training_figure(curves={"learned:l2": ([0], [1.0])}).axes[0].get_ylabel() == "loss"


def test_density_levels_hold_their_mass():
    # a standard normal in 2-D has mass 1 - exp(-r^2/2) within radius r
    for ax in density_figure().axes:
        levels = ax.collections[0].levels[:3]
        np.testing.assert_allclose(levels, np.log([0.01, 0.1, 0.5]), atol=0.03)


def test_density_panels_share_limits_and_aspect():
    figure = density_figure()
    assert titles(figure) == ["unguided", "learned: trajectory"]
    for ax in figure.axes:
        assert (*ax.get_xlim(), *ax.get_ylim()) == EXTENT
        assert ax.get_aspect() == 1.0
        assert len(ax.collections[1].get_offsets()) == 30
    assert legend_texts(figure) == ["0", "1", "2"]


def test_density_colours_follow_the_labels():
    scatter = density_figure().axes[0].collections[1]
    faces = scatter.get_facecolors()[:, :3]
    np.testing.assert_array_equal(faces[0], faces[3])
    assert len(np.unique(faces, axis=0)) == 3


def test_density_may_be_zero_or_flat():
    log_density = gaussian_log_density()
    log_density[:10] = -np.inf
    assert density_figure(log_density=log_density).axes
    assert density_figure(log_density=np.zeros((5, 6)), class_names=CLASSES).axes


def test_bars_show_two_standard_errors():
    figure = bars_figure()
    ax = figure.axes[0]
    segments = [c.get_segments()[0] for c in ax.collections if hasattr(c, "get_segments")]
    assert len(segments) == 2  # a single value has no error
    half = np.std([1.5, 1.6, 1.7, 1.8], ddof=1)  # 2 / sqrt(4) = 1
    np.testing.assert_allclose(segments[0][:, 0], [1.65 - half, 1.65 + half])
    texts = [text.get_text() for text in ax.texts]
    assert texts[:3] == [r"1.650 $\pm$ 0.129", r"1.430 $\pm$ 0.026", "1.300"]


def test_bars_keep_the_order_of_the_rows():
    ax = bars_figure().axes[0]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["unguided", "constant", "learned: trajectory"]
    assert ax.yaxis_inverted()


@pytest.mark.parametrize(("lower", "best"), [(True, 1.43), (False, 1.65)])
def test_bars_mark_the_best_hand_made(lower, best):
    ax = bars_figure(lower_is_better=lower).axes[0]
    verticals = [x for x in map(list, (line.get_xdata() for line in ax.lines)) if len(x) == 2]
    assert verticals == [[pytest.approx(best)] * 2]
    assert ("lower" if lower else "higher") in ax.get_xlabel()


def test_bars_of_learned_methods_only():
    ax = bars_figure(rows=[row("learned:l2", [1.0, 2.0])]).axes[0]
    assert "best hand-made" not in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (omega_figure, {"learned": {}}, "expected at least one method, got none"),
        (omega_figure, {"learned": {"a": np.zeros((2, 21))}}, r"omega of a .*\(3, 21\), got \(2"),
        (omega_figure, {"hand_made": {"a": np.zeros(20)}}, r"of shape \(21,\), got \(20,\)"),
        (
            omega_figure,
            {"logsnr": np.append(LOGSNR[1:], np.inf)},
            "expected finite logsnr, got inf",
        ),
        (grid_figure, {"samples": {}}, "expected at least one method, got none"),
        (grid_figure, {"row_names": ["a"]}, r"expected .*\(1, 3, 4, 5, 1\), got \(2, 3, 4, 5, 1\)"),
        (grid_figure, {"samples": {"a": images(2)}}, "expected 1 or 3 channels, got 2"),
        (weight_figure, {"std": np.zeros(3)}, r"expected std of shape \(4,\), got \(3,\)"),
        (weight_figure, {"weights": np.zeros((4, 1))}, r"expected weights .*, got \(4, 1\)"),
        (training_figure, {"curves": {}}, "expected at least one method, got none"),
        (training_figure, {"curves": {"a": ([0, 1], [1.0])}}, r"values of a .*\(2,\), got \(1,\)"),
        (training_figure, {"curves": {"a": ([], [])}}, r"expected steps of a .*, got \(0,\)"),
        (density_figure, {"samples": {}, "labels": {}}, "expected at least one method, got none"),
        (density_figure, {"labels": {}}, r"expected labels of .*, got \[\]"),
        (density_figure, {"log_density": np.zeros(4)}, r"expected log_density .*, got \(4,\)"),
        (density_figure, {"log_density": np.full((3, 3), np.nan)}, "finite log_density, got nan"),
        (density_figure, {"class_names": ["a"]}, "expected labels below 1, got 2"),
        (bars_figure, {"rows": []}, "expected rows that all have 'energy_distance', got 0 rows"),
        (bars_figure, {"metric": "fid"}, "expected rows that all have 'fid', got 3 rows"),
    ],
)
def test_bad_input_is_named(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_weights_of_a_reward_share_a_colour():
    name = "learned:trajectory:reward(0.1)"
    assert theme.method_color(name) == theme.method_color("learned:trajectory")


def test_trade_off_holds_learned_rows_and_lets_bad_hand_made_ones_leave():
    ax = trade_off_figure().axes[0]
    (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert low < 0.0 < 4.0 < high < 81.5
    assert bottom < 0.0 < 2.5 < top < 9.0


def test_trade_off_names_weights_and_every_curve():
    figure = trade_off_figure()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["0.5", "2", "real"]  # gamma = 0 needs no name
    assert legend_texts(figure) == ["tilted", "unguided", "constant", "learned: trajectory"]


def test_trade_off_leaves_out_names_that_would_overlap():
    close = {"learned:l2": rewarded("learned:l2", (0.5, 0.5001, 2.0))}
    figure = trade_off_figure(families=close, level=None)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.5", "2"]


def test_reward_weights_are_spaced_equally_in_their_order():
    figure = reward_weight_figure()
    assert [ax.get_ylabel() for ax in figure.axes] == ["R", "D"]
    ax = figure.axes[1]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.5", "1", "2", "9"]
    learned = ax.containers[1].lines[0]
    np.testing.assert_array_equal(learned.get_xdata(), [0, 1, 3])
    assert list(learned.get_ydata()) == [0.0, 0.25, 4.0]


def test_ranges_say_which_classes_are_not_helped():
    figure = ranges_figure()
    ax = figure.axes[0]
    assert len(ax.texts) == 2
    assert [place for _, place in (text.get_position() for text in ax.texts)] == [0.0, 2.0]
    assert legend_texts(figure) == ["constant", "learned: trajectory", "unguided", "real data"]


# Curves of methods over a setting


def curves_figure(**changes):
    x = [8.0, 16.0, 64.0]
    methods = {name: (x, [1.0, 0.5 + i, 2.0], [0.1] * 3) for i, name in enumerate(METHODS[:4])}
    arguments = {"curves": {"ddim": methods, "heun": methods}, "xlabel": "steps", "ylabel": "loss"}
    return plots.method_curves(**arguments | changes)


def test_method_curves_have_a_panel_a_key_and_a_line_a_method():
    figure = curves_figure()
    assert [ax.get_title() for ax in figure.axes] == ["ddim", "heun"]
    for ax in figure.axes:
        assert ax.get_xscale() == "log"
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["8", "16", "64"]
        lines = [line for line in ax.lines if len(line.get_xdata()) == 3]
        assert [list(line.get_ydata()) for line in lines] == [[1.0, 0.5 + i, 2.0] for i in range(4)]
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [theme.method_label(name) for name in METHODS[:4]]


def test_method_curves_refuse_lengths_that_differ():
    curves = {"": {"constant": ([1.0, 2.0], [1.0], [0.0])}}
    with pytest.raises(ValueError, match="expected curve of constant"):
        curves_figure(curves=curves)


def test_budget_curves_draw_every_budget_and_the_least_so_far():
    curves = {"learned:a": ([1e3, 1e5, 1e4], [5.0, 1.0, 7.0])}
    figure = plots.budget_curves(
        {"calls": curves, "seconds": curves}, ylabel="gap", marks={"mark": 1e6}
    )
    line, points = figure.axes[0].lines[:2]
    np.testing.assert_array_equal(line.get_ydata(), [5.0, 5.0, 1.0])
    np.testing.assert_array_equal(points.get_ydata(), [5.0, 7.0, 1.0])
    assert figure.axes[0].get_xscale() == "log"
    assert [ax.get_xlabel() for ax in figure.axes] == ["calls", "seconds"]


def test_ranked_differences_shows_every_schedule_and_greys_the_undecided():
    ax = ranked_figure().axes[0]
    shown = [text.get_text() for text in ax.get_yticklabels()]
    assert shown == ["constant(0.1)", "unguided", r"\$mine\$", "limited interval(1, 0.2, 0.8)"]
    means = [float(np.ravel(line.get_xdata())[0]) for line in ax.lines if line.get_marker() == "s"]
    np.testing.assert_allclose(means, [-0.02, 0.0, 0.004, 3.0])
    low, high = ax.get_xlim()
    assert low < -0.03
    assert high > 3.2
    colors = [to_hex(line.get_color()) for line in ax.lines if line.get_marker() == "s"]
    assert colors[1] == colors[2] == "#b0b0b0"
    assert "#b0b0b0" not in (colors[0], colors[3])


def test_difference_maps_are_centred_and_blank_without_data():
    meshes = [ax.collections[0] for ax in maps_figure().axes[:4]]
    assert all(mesh.norm.vmin == -mesh.norm.vmax for mesh in meshes)
    assert meshes[0].get_array().mask.sum() == 10


def test_class_differences_mark_what_is_undecided():
    figure = by_class_figure()
    ax = figure.axes[0]
    dots = ax.collections[1].get_offsets()
    expected = [(1.5, 0.5), (0.5, 1.5), (1.5, 1.5)]
    assert {tuple(map(float, dot)) for dot in dots} == set(expected)
    assert [text.get_text() for text in ax.get_xticklabels()] == CLASSES


@pytest.mark.parametrize("make", [ranked_figure, by_class_figure])
def test_rankings_of_wrong_shapes_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make(differences=[0.0])


def test_names_with_dollars_are_no_formulas():
    """Of methods and classes, which come from files and folders of users."""
    name = r"$\frac{$"
    curves = {name: ([1, 2], [1.0, 2.0])}
    for figure in (
        plots.training_curves(curves, ylabel="loss"),
        plots.omega_curves(
            {name: np.ones((2, 3))},
            {name: np.ones(3)},
            logsnr=np.arange(3.0),
            class_names=[name] * 2,
        ),
        plots.sample_grid({name: np.zeros((2, 2, 4, 4, 1))}, [name] * 2),
    ):
        figure.draw_without_rendering()


def test_a_figure_is_not_written_through_a_link(tmp_path):
    (tmp_path / "kept").write_text("mine")
    (tmp_path / "figure.png").symlink_to(tmp_path / "kept")
    plots.save(Figure(), tmp_path / "figure.png")
    assert (tmp_path / "kept").read_text() == "mine"
    assert not (tmp_path / "figure.png").is_symlink()
