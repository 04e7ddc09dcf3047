"""A comparison for a model of one's own: a planted remedy wins, what does nothing ties."""

import doctest
import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd import guidance, schedules
from lgd.data.dataset import FileImages, Split, labelled
from lgd.denoisers import Directions, GaussianMixture, from_function
from lgd.evaluation import CompareSettings, EnergyMeasure, Generator
from lgd.evaluation.draws import Draws, halves
from lgd.machinery import parallel

pytestmark = pytest.mark.usefixtures("quick_compilation")

FLOW = schedules.rectified_flow()
EXACT = GaussianMixture((0, 1), FLOW)
MEANS, VARIANCE = np.array([[1.0], [-1.0]], np.float32), 0.5
MIXTURE = EXACT.params(jnp.asarray(MEANS), VARIANCE)
PULL = jnp.asarray([0.5, 0.0, 0.0])  # of label 0 alone; its remedy is omega = 1


def pulled(params, x_t, t, c):
    """cond - pull (cond - uncond): mix at omega = pull / (1 - pull) gives back cond exactly."""
    cond, uncond = (EXACT.apply(MIXTURE, x_t, t=t, c=label) for label in (c, EXACT.null(c)))
    return cond - params[c][:, None] * (cond - uncond)


PULLED = from_function(pulled, schedule=FLOW, kind="x0", null=2)
QUICK = CompareSettings(
    num_samples=600,
    num_steps=8,
    solver="heun",
    families=("constant", "clamp_linear"),
    axes={"constant": {"w": (0.0, 0.5, 1.0)}, "clamp_linear": {"cfg_scale": (0.5, 0.8)}},
    progress=False,
)


def quick(**changes):
    return CompareSettings(**{name: getattr(QUICK, name) for name in vars(QUICK)} | changes)


def draw(size, seed=0):
    labels = np.arange(size) % 2
    noise = np.random.default_rng(seed).normal(size=(size, 1))
    return MEANS[labels] + VARIANCE**0.5 * noise, labels


X0, LABELS = draw(1600)


def remedy(*, s, t, c):
    return jnp.where(c == 0, 1.0, 0.0)


def looking(*, s, t, c, features):
    return 0.0 * features[:, 0]


GIVEN = {"remedy": remedy, "nothing": 0.0, "looking": looking}


@pytest.fixture(scope="module")
def compared():
    return lgd.compare(jax.random.key(0), PULLED, PULL, GIVEN, X0, LABELS, settings=QUICK)


def pair(comparison, method, against):
    (found,) = [
        pair
        for pair in comparison.comparisons
        if (pair["method"], pair["against"]) == (method, against)
    ]
    return found


def test_the_planted_remedy_wins(compared):
    rows = {row["method"]: row["metrics"]["energy_distance"]["mean"] for row in compared.rows}
    assert min(rows, key=rows.get) == "remedy"
    assert rows["unguided"] > 0.02
    lines = compared.summary().splitlines()
    assert lines[0].startswith("The least energy distance has remedy")
    best = min(("constant", "clamp_linear"), key=rows.get)
    assert lines[1].startswith("remedy beats unguided: energy distance ")
    assert lines[2].startswith(f"remedy beats {best}, the best tuned schedule: energy distance ")


def test_what_does_nothing_ties_with_unguided(compared):
    for name in ("nothing", "looking"):
        found = pair(compared, name, "unguided")
        assert (found["mean"], found["standard_error"]) == pytest.approx((0.0, 0.0), abs=1e-6)
        assert f"{name} ties with unguided: energy distance " in compared.summary()
    assert f"nothing loses to {compared.comparisons[1]['against']}" in compared.summary()


def test_rows_are_as_those_of_results(compared):
    first, *_, given = compared.rows[:4]
    assert [row["method"] for row in compared.rows] == [
        *("unguided", "constant", "clamp_linear", "remedy", "nothing", "looking"),
    ]
    values = first["metrics"]["energy_distance"]
    assert len(values["values"]) == 3
    assert values["mean"] == pytest.approx(np.mean(values["values"]))
    assert (first["num_samples"], first["num_steps"], first["nfe"]) == (600, 8, 30)
    assert compared.rows[1]["validation"] == pytest.approx(0.01, abs=0.02)
    assert (first["validation"], given["validation"], given["params"]) == (None, None, {})
    assert 0.4 < given["omega"]["mean"] < 0.6  # 1 for half of the samples
    assert compared.rows[-1]["omega"] is None


def test_the_table_is_markdown_with_the_least_distance_bold(compared):
    head, marks, *rows = compared.table().splitlines()
    assert head == "| method | tuned | energy distance | NFE |"
    assert marks == "|---|---|---:|---:|"
    assert rows[0].startswith("| unguided |  | ")
    assert rows[1].startswith("| constant | w 0.5 | ")
    assert [row.count("**") for row in rows] == [0, 0, 0, 2, 0, 0]
    assert str(compared) == f"{compared.summary()}\n\n{compared.table()}"
    assert "remedy" in repr(compared)


def test_a_figure_shows_what_was_given_beside_dashed_opponents(compared):
    figure = compared.figure()
    panels = figure.axes
    assert [ax.get_title() for ax in panels] == ["remedy", "nothing"]
    np.testing.assert_array_equal(panels[0].lines[0].get_ydata(), np.ones(8))
    np.testing.assert_array_equal(panels[0].lines[1].get_ydata(), np.zeros(8))
    assert {line.get_label() for line in panels[0].lines[3:]} == {"constant", "clamp linear"}


def test_a_comparison_is_saved_as_json(compared, tmp_path):
    compared.save(tmp_path / "comparison.json")
    saved = json.loads((tmp_path / "comparison.json").read_text())
    assert saved["rows"] == list(compared.rows)
    assert saved["comparisons"] == list(compared.comparisons)
    assert [*saved["curves"]["given"]] == ["remedy", "nothing"]


def test_a_comparison_is_a_page_for_a_browser(compared, tmp_path):
    files = {"remedy": "remedy.safetensors"}
    compared.html(tmp_path / "page.html", class_names=["left", "right"], files=files)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "remedy, the best of 3 given rows, wins: its energy distance of " in text
    block = re.search(r'id="data">(.*?)</script>', text).group(1)
    data = json.loads(block)
    assert data["rows"] == list(compared.rows)
    assert data["weights"]["conditions"] == ["left", "right"]
    assert [*data["weights"]["axes"]] == ["t", "sigma", "step", "logsnr"]
    np.testing.assert_allclose(data["weights"]["axes"]["t"], np.linspace(1.0, 0.125, 8))
    assert data["weights"]["axes"]["logsnr"][0] is None  # where it is infinite
    assert "lgd.load" in text
    with pytest.raises(ValueError, match="class_names: expected 2 names, got 1"):
        compared.html(tmp_path / "page.html", class_names=["one"])
    with pytest.raises(ValueError, match=r"files: expected some of .*, got \['his'\]"):
        compared.html(tmp_path / "page.html", files={"his": "x"})


@pytest.mark.slow
def test_the_same_key_gives_the_same_numbers(compared):
    again = lgd.compare(jax.random.key(0), PULLED, PULL, GIVEN, X0, LABELS, settings=QUICK)
    assert again.rows == compared.rows
    other = lgd.compare(
        jax.random.key(1), PULLED, PULL, {"none": 0.0}, X0, LABELS, settings=quick(families=())
    )
    assert other.rows[0]["metrics"] != compared.rows[0]["metrics"]
    assert {pair["against"] for pair in other.comparisons} == {"unguided"}


def test_nothing_is_measured_on_what_tuned(monkeypatch):
    asked, real = [], []

    def recorded(generator, schedule, count, *, seed):
        asked.append(seed)
        return drawn(generator, schedule, count, seed=seed)

    def measure(split):
        real.append(split)
        return EnergyMeasure(split, seed=0)

    drawn = Generator.__call__
    monkeypatch.setattr(Generator, "__call__", recorded)
    result = lgd.compare(
        jax.random.key(0), PULLED, PULL, {"remedy": remedy}, X0, LABELS,
        measures={"again": measure}, settings=quick(families=("constant",), validation_seeds=2),
    )  # fmt: skip
    validation, test = set(asked[: -3 * 3]), set(asked[-3 * 3 :])
    assert (len(validation), len(test)) == (2, 3)
    assert not validation & test
    assert len(real[0].x) == len(X0) // 2
    for row in result.rows:
        one, other = row["metrics"].values()
        assert one == other
        assert [*row["metrics"]] == ["energy_distance", "again.energy_distance"]


@pytest.mark.slow
def test_default_opponents_have_an_interval_for_each_label_where_there_are_labels():
    few = {"finalists": 1, "num_samples": 40, "num_steps": 1, "solver": "ddim", "families": None}
    axes = {"limited_interval": {"w": (0.5,), "lo": (0.0,), "hi": (0.5, 1.0)}, **QUICK.axes}
    settings = quick(**few, axes=axes)
    result = lgd.compare(
        jax.random.key(0), PULLED, PULL, {"none": 0.0}, X0[:80], LABELS[:80], settings=settings
    )
    assert [row["method"] for row in result.rows] == [
        *("unguided", "constant", "limited_interval", "limited_interval_per_class"),
        *("clamp_linear", "none"),
    ]
    assert "one for each label" in result.table()


# Other conditions


def timid(params, x_t, t, c):
    """x0 = c + z / 2 as a model sees it that draws the means c together; omega = 1/4 mends it."""
    mean = 0.8 * c["mean"]
    alpha, sigma = 1.0 - t[:, None], t[:, None]
    gain = 0.25 * alpha / (0.25 * alpha**2 + sigma**2)
    return mean + gain * (x_t - alpha * mean)


TIMID = from_function(
    timid, schedule=FLOW, kind="x0", null=lambda c: jax.tree.map(jnp.zeros_like, c)
)


def vectors(size):
    rng = np.random.default_rng(0)
    means = rng.choice([-2.0, 2.0], size=(size, 1)) + rng.normal(size=(size, 1))
    return means + 0.5 * rng.normal(size=(size, 1)), {"mean": means}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("with_strata", [False, True])
@pytest.mark.slow
def test_conditions_are_those_of_the_examples(with_strata):
    """A mean for every example; strata by its sign."""
    x0, c = vectors(600)
    stratum = (c["mean"][:, 0] > 0.0).astype(int) if with_strata else None
    axes = {"limited_interval": {"w": (0.5,), "lo": (0.0,), "hi": (0.5, 1.0)}, **QUICK.axes}
    result = lgd.compare(
        jax.random.key(0), TIMID, (), {"mended": 0.25}, x0, c, stratum=stratum,
        settings=quick(families=None, num_samples=300, finalists=1, axes=axes),
    )  # fmt: skip
    assert [row["method"] for row in result.rows] == [
        *("unguided", "constant", "limited_interval", "clamp_linear", "mended"),
    ]
    found = pair(result, "mended", "unguided")
    assert found["mean"] < -2.0 * found["standard_error"]
    assert result.rows[-1]["metrics"]["energy_distance"]["mean"] < 0.02
    assert len(result.curves.given["mended"]) == (2 if with_strata else 1)
    assert result.figure().axes[0].get_title() == "mended"


@pytest.mark.slow
def test_several_directions_are_compared():
    both = Directions(PULLED, {"weak": from_function(pulled, schedule=FLOW, kind="x0", null=2)})
    params = (PULL, {"weak": jnp.asarray([0.9, 0.9, 0.0])})
    result = lgd.compare(
        jax.random.key(0), both, params, {"two": guidance.constant_directions(0.5, 0.5)},
        X0[:80], LABELS[:80], settings=quick(num_samples=40, families=("constant",)),
    )  # fmt: skip
    assert [*result.curves.given] == ["two (uncond)", "two (weak)"]
    assert result.rows[-1]["nfe"] == 3 * 15
    assert [ax.get_title() for ax in result.figure().axes] == ["two (uncond)", "two (weak)"]


@pytest.mark.slow
def test_devices_and_parts_change_rounding_only():
    """In parts other noise is drawn, so that those are compared with each other."""
    numbers = []
    for mesh, batch in [
        (None, 0),
        (parallel.make_mesh(2), 0),
        (None, 20),
        (parallel.make_mesh(2), 20),
    ]:
        result = lgd.compare(
            jax.random.key(0), PULLED, PULL, {"remedy": remedy}, X0[:80], LABELS[:80],
            settings=quick(num_samples=40, num_steps=2, families=(), mesh=mesh, batch=batch),
        )  # fmt: skip
        numbers.append([row["metrics"]["energy_distance"]["values"] for row in result.rows])
    np.testing.assert_allclose(numbers[1], numbers[0], atol=1e-5)
    np.testing.assert_allclose(numbers[3], numbers[2], atol=1e-5)
    assert not np.allclose(numbers[2], numbers[0], atol=1e-5)


# Halves


def test_halves_are_stratified_and_share_no_example():
    real = labelled(np.arange(30.0)[:, None], np.repeat([0, 1], (11, 19)).astype(np.int32))
    first, second = halves(real, seed=0, most=100)
    np.testing.assert_array_equal(np.bincount(first.strata), [5, 9])
    np.testing.assert_array_equal(np.bincount(second.strata), [6, 10])
    assert sorted([*first.x[:, 0], *second.x[:, 0]]) == list(range(30))
    np.testing.assert_array_equal(first.c, (first.x[:, 0] >= 11).astype(int))
    few, fewer = halves(real, seed=0, most=6)
    assert np.bincount(few.strata).tolist() == np.bincount(fewer.strata).tolist() == [3, 3]
    with pytest.raises(ValueError, match=r"expected >= 4 examples of every stratum, got 3 of 0"):
        halves(labelled(np.zeros((12, 1)), np.repeat([0, 1], (3, 9))), seed=0, most=100)


def test_halves_of_images_in_files_are_read():
    images = FileImages((9, 2, 2, 1), lambda i: np.full((2, 2, 1), i, np.uint8), "nine")
    first, second = halves(Split(images, np.arange(9), None), seed=0, most=100)
    assert (first.x.shape, second.x.shape) == ((4, 2, 2, 1), (5, 2, 2, 1))
    both = np.concatenate([first.x, second.x])[:, 0, 0, 0]
    np.testing.assert_allclose(np.sort(both), np.arange(9) / 127.5 - 1.0, rtol=1e-6)
    assert (first.stratum, second.stratum) == (None, None)


def test_samples_have_the_conditions_of_examples_in_turn():
    real = Split(
        np.zeros((5, 1), np.float32), {"mean": np.arange(5.0)[:, None]}, np.array([0, 1, 0, 1, 1])
    )
    base = Generator(
        denoiser=TIMID, params=(), shape=(1,), conditions=real.c, times=jnp.asarray([1.0, 0.0])
    )
    draws = Draws(base, real)
    np.testing.assert_array_equal(draws.index(4), [[0, 2, 0, 2], [1, 3, 4, 1]])
    means = draws.generator(4).conditions["mean"][:, 0]
    np.testing.assert_array_equal(means, [0, 2, 0, 2, 1, 3, 4, 1])
    x = draws(0.25, 4, seed=0)
    np.testing.assert_allclose(x[..., 0].ravel(), means, atol=1e-5)


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidances": {}}, "expected guidance to compare, got none"),
        ({"guidances": {"constant": 0.0}}, r"expected names that no other row has, got \['cons"),
        ({"x0": np.where(X0 > 2.0, np.nan, X0)}, "x0: expected finite numbers"),
        ({"c": LABELS[:-1]}, "expected 1600 rows"),
        ({"c": LABELS.astype(np.float32)[:, None], "families": ("limited_interval_per_class",)},
         "that are no labels"),
        ({"families": ("constent",)}, r"families: .* did you mean 'constant'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes, message):
    arguments = {"guidances": {"remedy": remedy}, "x0": X0, "c": LABELS} | changes
    families = arguments.pop("families", ("constant",))
    with pytest.raises(ValueError, match=message):
        lgd.compare(jax.random.key(0), PULLED, PULL, settings=quick(families=families), **arguments)


def test_settings_that_do_not_fit_are_refused():
    for name, value in {"test_seeds": 1, "num_samples": 0, "finalists": 0}.items():
        with pytest.raises(ValueError, match=f"{name}: expected a whole number >= "):
            quick(**{name: value})


def test_the_example_of_the_docstring_runs():
    found = doctest.testmod(sys.modules["lgd.evaluation.compare"])
    assert (found.failed, found.attempted > 0) == (0, True)


def test_a_model_that_is_read_wrongly_is_noticed():
    backwards = from_function(
        lambda params, x, t, c: pulled(params, x, 1.0 - t, c), schedule=FLOW, kind="x0", null=2
    )
    with pytest.raises(UserWarning, match="as if time ran from 0, noise, to 1"):
        lgd.compare(jax.random.key(0), backwards, 0.0 * PULL, GIVEN, X0, LABELS, settings=quick())
