from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ttest_rel

from lgd import guidance, schedules
from lgd.denoisers import from_function
from lgd.evaluation import (
    MAX_GROWTH,
    Generator,
    Grid,
    Screened,
    paired_difference,
    screen,
    search,
    search_apart,
    summary,
)

ANY = (-np.inf, np.inf)


class Point(NamedTuple):
    """Stands for a schedule; scores below read its parameters."""

    w: object
    lo: object = 0.0

    def __call__(self, *, s, t, c):
        raise AssertionError("not sampled here")


def make(w, lo=0.0):
    if np.ndim(w) == 0 and w < lo:
        raise ValueError(f"expected w >= lo, got {w} and {lo}")
    return Point(w, lo)


def grid(w, lo=None, *, bounds=ANY):
    axes = {"w": w} if lo is None else {"w": w, "lo": lo}
    return Grid(make=make, axes=axes, bounds=dict.fromkeys(axes, bounds))


def parabola(*best):
    """A score with its least value, 1, at ``best``, for every stratum."""

    def score(point, per_stratum):
        gaps = np.asarray(point[: len(best)], float) - np.asarray(best)
        return 1.0 + np.sum(gaps**2) + np.zeros(3)

    return score


def counted(score):
    """The score, and a list of the (schedule, sample count) it was asked for."""
    asked = []

    def counting(point, per_stratum):
        asked.append((point, per_stratum))
        return score(point, per_stratum)

    return counting, asked


# Grids


def test_invalid_combinations_are_left_out():
    points = grid((0.0, 1.0, 2.0), (0.5, 1.5)).points()
    assert list(points) == [(1.0, 0.5), (2.0, 0.5), (2.0, 1.5)]
    assert points[2.0, 1.5] == Point(2.0, 1.5)
    intervals = Grid(
        make=guidance.limited_interval,
        axes={"w": (0.5,), "lo": (0.0, 0.6), "hi": (0.4, 0.6, 1.0)},
        bounds=dict.fromkeys(("w", "lo", "hi"), ANY),
    )
    assert [point[1:] for point in intervals.points()] == [
        *((0.0, 0.4), (0.0, 0.6), (0.0, 1.0), (0.6, 1.0)),
    ]


@pytest.mark.parametrize(
    ("axis", "best", "bounds", "grown"),
    [
        ((0.0, 1.0, 3.0), 3.0, ANY, (0.0, 1.0, 3.0, 5.0)),
        ((0.0, 1.0, 3.0), 0.0, ANY, (-1.0, 0.0, 1.0, 3.0)),
        ((0.0, 1.0, 3.0), 1.0, ANY, None),
        ((0.0, 1.0, 3.0), 3.0, (0.0, 3.5), (0.0, 1.0, 3.0, 3.5)),
        ((0.25, 1.0, 3.0), 0.25, (0.0, 9.0), (0.0, 0.25, 1.0, 3.0)),
        ((0.0, 1.0, 3.0), 0.0, (0.0, 9.0), None),
        ((0.0, 1.0, 3.0), 3.0, (0.0, 3.0), None),
        ((0.1, 0.3), 0.3, ANY, (0.1, 0.3, 0.5)),  # and not 0.5 - 5e-17
        ((2.0,), 2.0, ANY, None),
    ],
)
def test_an_axis_grows_where_the_best_lies_at_its_edge(axis, best, bounds, grown):
    wider = grid(axis, bounds=bounds).grown((best,))
    assert (wider and tuple(wider.axes["w"])) == grown


def test_every_axis_grows_by_itself():
    wider = grid((1.0, 2.0, 3.0), (0.0, 0.5, 1.0)).grown((3.0, 0.0))
    assert {name: tuple(values) for name, values in wider.axes.items()} == {
        "w": (1.0, 2.0, 3.0, 4.0),
        "lo": (-0.5, 0.0, 0.5, 1.0),
    }


# Search


def test_screening_grows_past_the_edge_and_asks_for_nothing_twice():
    score, asked = counted(parabola(3.2))
    screened = screen(grid((0.0, 1.0, 2.0)), score, 7, advance=lambda: None)
    assert screened.points == [(float(w),) for w in range(5)]  # 4: the best, 3, lies inside
    assert asked == [(Point(float(w)), 7) for w in range(5)]
    expected = np.tile(1 + (np.arange(5.0)[:, None] - 3.2) ** 2, 3)
    np.testing.assert_array_equal(screened.scores, expected)
    assert screened.params(3) == {"w": 3.0}


def test_growth_ends():
    score, asked = counted(lambda point, per_stratum: np.full(2, -point.w))
    screened = screen(grid((0.0, 1.0)), score, 7, advance=lambda: None)
    assert max(screened.points) == (1.0 + MAX_GROWTH,)
    assert len(asked) == 2 + MAX_GROWTH


def test_search_finds_the_optimum_over_two_axes():
    found, screened = search(
        grid((0.0, 1.0, 2.0), (-1.0, 0.0)), parabola(4.0, -2.0), screening=10, full=90, finalists=3
    )
    assert found.params == {"w": 4.0, "lo": -2.0}
    assert found.guidance == Point(4.0, -2.0)
    assert found.score == 1.0
    assert screened.scores.shape == (len(screened.points), 3)


def test_finalists_are_run_again_in_full_and_decide():
    screening, full = parabola(1.0), parabola(2.0)
    score, asked = counted(lambda point, n: (full if n == 90 else screening)(point, n))
    steps = []
    settings = {"screening": 10, "full": 90, "advance": lambda note="": steps.append(1)}
    found, _ = search(grid((0.0, 1.0, 2.0, 3.0)), score, finalists=3, **settings)
    assert [(point.w, n) for point, n in asked[4:]] == [(1.0, 90), (0.0, 90), (2.0, 90)]
    assert (found.params, found.score) == ({"w": 2.0}, 1.0)
    assert len(steps) == len(asked)
    found, _ = search(grid((0.0, 1.0, 2.0, 3.0)), score, finalists=1, **settings)
    assert (found.params, found.score) == ({"w": 1.0}, 2.0)


def test_first_look_in_full_is_the_last():
    score, asked = counted(parabola(1.2))
    found, screened = search(grid((0.0, 1.0, 2.0)), score, screening=90, full=90, finalists=2)
    assert (found.params, found.guidance) == ({"w": 1.0}, Point(1.0))
    assert found.score == pytest.approx(1.04)
    assert len(asked) == len(screened.points) == 3


def by_stratum(point, best):
    """A parabola for every stratum; the schedule may hold a list of weights, one for each."""
    return (np.broadcast_to(point.w, 3) - np.asarray(best)) ** 2 + np.arange(3.0)


@pytest.mark.parametrize(
    ("finalists", "winners", "score"), [(1, [0.0, 2.0, 1.0], 4.0 / 3), (2, [0.0, 1.0, 1.0], 1.0)]
)
def test_every_stratum_has_its_own_winner(finalists, winners, score):
    """Stratum 1 seems best at 2, with 1 next to it, and in full is best at 1."""

    def measure(point, per_stratum):
        return by_stratum(point, (0.0, 1.0 if per_stratum == 90 else 1.9, 1.0))

    counting, asked = counted(measure)
    screened = screen(grid((0.0, 1.0, 2.0), bounds=(0.0, 2.0)), measure, 10, advance=lambda: None)
    found = search_apart(screened, make, counting, screening=10, full=90, finalists=finalists)
    assert found.params == {"w": winners}
    assert found.guidance == Point(winners)
    assert found.score == pytest.approx(score)
    assert [n for _, n in asked] == [90] * finalists


def test_every_stratum_looks_past_its_own_edge_in_runs_that_all_share():
    """Stratum 0 is best at the end of the grid, 1 inside, 2 at its bound, 3 two values beyond."""
    best = np.asarray([2.0, 1.0, 0.0, 4.1])

    def measure(point, per_stratum):
        return (np.broadcast_to(point.w, 4) - best) ** 2

    screened = screen(grid((0.0, 1.0, 2.0), bounds=(0.0, 9.0)), measure, 10, advance=lambda: None)
    screened = screened._replace(
        grid=grid((0.0, 1.0, 2.0), bounds=(0.0, 9.0)),
        points=screened.points[:3],
        scores=screened.scores[:3],
    )
    counting, asked = counted(measure)
    found = search_apart(screened, make, counting, screening=10, full=90, finalists=1)
    assert found.params == {"w": [2.0, 1.0, 0.0, 4.0]}
    assert [(point.w, n) for point, n in asked] == [
        ([3.0, 1.0, 0.0, 3.0], 10),
        ([2.0, 1.0, 0.0, 4.0], 10),
        ([2.0, 1.0, 0.0, 5.0], 10),
        ([2.0, 1.0, 0.0, 4.0], 90),
    ]


def test_neighbours_of_a_point_are_those_of_every_axis():
    both = grid((0.0, 1.0, 2.0, 3.0), (0.0, 0.5, 1.0))
    assert list(both.around((3.0, 0.5))) == [(w, lo) for w in (2.0, 3.0) for lo in (0.0, 0.5, 1.0)]


def test_more_finalists_than_points_are_all_points_of_the_stratum_that_has_fewest():
    """Stratum 0 looks further, to a third point; stratum 1 has its two."""

    def measure(point, per_stratum):
        return (np.broadcast_to(point.w, 2) - np.asarray([2.1, 0.0])) ** 2

    screened = Screened(
        grid((0.0, 1.0), bounds=(0.0, 9.0)),
        [(0.0,), (1.0,)],
        np.stack([measure(Point(w), 10) for w in (0.0, 1.0)]),
    )
    counting, asked = counted(measure)
    found = search_apart(screened, make, counting, screening=10, full=90, finalists=8)
    assert found.params == {"w": [2.0, 0.0]}
    assert [n for _, n in asked] == [10, 10, 90, 90]


def test_winners_of_strata_keep_their_parameters_together():
    screened = screen(
        grid((1.0, 2.0), (0.0, 1.0), bounds=(0.0, 2.0)),
        lambda point, n: np.array([abs(point.w - 2.0) + point.lo, abs(point.w - 1.0) - point.lo]),
        10,
        advance=lambda: None,
    )
    score = lambda point, n: np.asarray(point.w) - np.asarray(point.lo)  # noqa: E731
    found = search_apart(screened, make, score, screening=10, full=90, finalists=1)
    assert found.params == {"w": [2.0, 1.0], "lo": [0.0, 1.0]}
    assert found.score == pytest.approx(np.mean([2.0 - 0.0, 1.0 - 1.0]))


# Samples

OFFSETS = (10.0, 20.0, 30.0, 0.0)  # of x0 for every label, and without one


def shifted(params, x_t, t, c):
    """x0_hat = x_t / 2 + the offset of the label: cond - uncond is the offset."""
    return 0.5 * x_t + jnp.asarray(OFFSETS)[c][:, None]


@pytest.fixture(scope="module")
def generator():
    return Generator(
        denoiser=from_function(shifted, schedule=schedules.rectified_flow(), kind="x0", null=3),
        params=(),
        shape=(2,),
        conditions=np.arange(3, dtype=np.int32),
        times=jnp.asarray([1.0, 0.0]),
    )


@pytest.fixture(scope="module")
def unguided(generator):
    return np.asarray(generator(guidance.constant(0.0), 5, seed=8))


def test_samples_are_ordered_by_condition(unguided):
    assert unguided.shape == (3, 5, 2)
    noise = unguided - np.asarray(OFFSETS)[:3, None, None]
    assert np.abs(noise).max() < 5.0
    assert len(np.unique(noise)) == noise.size


@pytest.mark.parametrize(
    ("schedule", "weights"),
    [
        (guidance.constant(1.5), (1.5, 1.5, 1.5)),
        (guidance.constant(-1.0), (-1.0, -1.0, -1.0)),
        (guidance.limited_interval(2.0, 0.0, 0.5), (0.0, 0.0, 0.0)),
        (
            guidance.limited_interval_per_class((0.5, 3.0, 1.0), (0.0, 0.0, 0.0), (1.0, 1.0, 0.5)),
            (0.5, 3.0, 0.0),
        ),
    ],
)
def test_schedules_meet_the_same_noise(generator, unguided, schedule, weights):
    guided = np.asarray(generator(schedule, 5, seed=8))
    expected = np.asarray(weights) * np.asarray(OFFSETS)[:3]
    moved = np.broadcast_to(expected[:, None, None], unguided.shape)
    np.testing.assert_allclose(guided - unguided, moved, atol=1e-4)


def test_another_seed_is_other_noise(generator, unguided):
    again, other = (generator(guidance.constant(0.0), 5, seed=seed) for seed in (8, 9))
    assert np.array_equal(again, unguided)
    assert not np.isclose(other, unguided).any()


def test_generator_counts_network_evaluations(generator):
    assert generator.nfe_of(guidance.constant(1.0), 5) == 2


# Statistics


def test_summary_has_the_sample_standard_deviation():
    assert summary([1.0, 2.0, 6.0]) == {
        "mean": 3.0,
        "std": pytest.approx(7.0**0.5),
        "values": [1.0, 2.0, 6.0],
    }
    assert summary([0.5]) == {"mean": 0.5, "std": 0.0, "values": [0.5]}


def test_paired_difference_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    ours, gaps = rng.normal(size=7), 0.1 * rng.normal(size=7) + 0.05
    theirs = ours + gaps
    got = paired_difference(ours.tolist(), theirs.tolist())
    assert got["mean"] == pytest.approx(ours.mean() - theirs.mean())
    assert got["mean"] / got["standard_error"] == pytest.approx(ttest_rel(ours, theirs).statistic)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [2.0]), ([], []), ([1.0, 2.0, 3.0], [1.0])])
def test_paired_difference_refuses_too_few_and_unpaired_seeds(ours, theirs):
    with pytest.raises(ValueError, match=f"expected .* 2 seeds.*, got {len(ours)}"):
        paired_difference(ours, theirs)
