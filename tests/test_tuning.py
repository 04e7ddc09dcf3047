"""Families of schedules tuned by one score: on the same runs, and stratum by stratum."""

import jax.numpy as jnp
import numpy as np
import pytest

from lgd import guidance, schedules
from lgd.evaluation import (
    Grid,
    Journal,
    MemoryJournal,
    ValidationScore,
    num_candidates,
    schedule_key,
    search,
    tune,
)

FLOW = schedules.rectified_flow()
BEST = np.asarray([0.3, 1.4])


class Shifting:
    """A generator whose samples tell the weight of a schedule; it counts its runs."""

    def __init__(self):
        self.runs = []

    def __call__(self, schedule, count, *, seed):
        self.runs.append((schedule, count, seed))
        t = jnp.full(2, 0.25)
        omega = schedule(s=t, t=t, c=jnp.arange(2, dtype=jnp.int32))
        return jnp.broadcast_to(omega[:, None, None], (2, count, 1)) + 0.01 * seed


def distance(x):
    """Pooled, then of each stratum: squares of how far the weight is from `BEST`."""
    gaps = np.square(np.asarray(x).mean(axis=(1, 2)) - BEST)
    return np.concatenate([[gaps.sum() + 5.0], gaps])


def score(**settings):
    defaults = {"journal": MemoryJournal(), "distance": distance, "full": 8, "part": slice(1, None)}
    return ValidationScore(generator=Shifting(), **defaults | settings)


def test_score_is_a_mean_over_seeds_of_full_runs():
    full = score(num_seeds=3, screening=4, first_seed=10)
    expected = [np.square(1.0 + 0.01 * seed - BEST) for seed in (10, 11, 12)]
    np.testing.assert_allclose(full(guidance.constant(1.0), 8), np.mean(expected, 0), rtol=1e-5)
    np.testing.assert_allclose(full(guidance.constant(1.0), 4), expected[0], rtol=1e-5)
    each = full.on_seeds(guidance.constant(1.0), 8, [10, 12])
    np.testing.assert_allclose(each, [expected[0], expected[2]], rtol=1e-5)
    assert [run[1:] for run in full.generator.runs] == [(8, 10), (8, 11), (8, 12), (4, 10)]
    assert (full.first_look, score().first_look) == (4, 8)


def test_scores_of_all_weights_and_parts_share_their_runs(tmp_path):
    reward = lambda x: 2.0 * jnp.mean(x, axis=(1, 2))  # noqa: E731
    plain = score(reward=reward, journal=Journal(tmp_path / "measured.jsonl"))
    w = guidance.constant(1.0)
    gaps = np.square(1.0 - BEST)
    np.testing.assert_allclose(plain(w, 8), gaps, rtol=1e-5)
    np.testing.assert_allclose(plain.with_gamma(0.5)(w, 8), gaps - 1.0, rtol=1e-5)
    pooled = plain.with_part(slice(0, 1)).with_gamma(2.0)
    np.testing.assert_allclose(pooled(w, 8), [gaps.sum() + 5.0 - 4.0], rtol=1e-5)
    assert len(plain.generator.runs) == 1


def test_rules_and_schedules_are_told_apart_in_the_journal():
    by_rule = score()
    by_rule(guidance.constant(1.0), 8)
    by_rule(guidance.limited_interval(1.0, 0.0, 1.0), 8)
    assert len(by_rule.generator.runs) == 2
    assert schedule_key(guidance.Clipped(guidance.constant(1.0))) != schedule_key(
        guidance.constant(1.0)
    )


NAMES = ("limited_interval_per_class", "constant", "limited_interval", "clamp_linear")
AXES = {
    "constant": {"w": (0.0, 0.5, 1.0)},
    "limited_interval": {"w": (0.2, 0.8, 1.4), "lo": (0.0, 0.1), "hi": (0.2, 0.5)},
    "clamp_linear": {"cfg_scale": (0.6, 0.8)},
}


def test_families_are_tuned_as_by_a_search_of_their_grid():
    steps = []
    selected, screened = tune(
        NAMES,
        score(screening=4),
        schedule=FLOW,
        axes=AXES,
        finalists=2,
        advance=lambda note="": steps.append(note),
    )
    assert tuple(selected) == NAMES
    assert set(screened) == set(NAMES[1:])
    grid = Grid(make=guidance.constant, axes={"w": (0.0, 0.5, 1.0)}, bounds={"w": (0.0, np.inf)})
    alone, _ = search(grid, score(), screening=8, full=8, finalists=2)
    assert selected["constant"][:2] == alone[:2]
    best = selected["limited_interval_per_class"]
    assert best.params["w"] == [0.2, 1.4]
    assert best.score < selected["limited_interval"].score
    about = num_candidates(NAMES, schedule=FLOW, axes=AXES, finalists=2)
    assert about == 3 + 12 + 2 + 2 + 2
    assert len(steps) >= about


def test_strata_are_told_apart_by_their_own_distance_and_rows_scored_by_the_pooled_one():
    by_stratum = score(screening=4)
    pooled = by_stratum.with_part(slice(0, 1))
    name = "limited_interval_per_class"
    selected, screened = tune((name,), pooled, by_stratum, schedule=FLOW, axes=AXES, finalists=2)
    alone, _ = tune((name,), score(screening=4), schedule=FLOW, axes=AXES, finalists=2)
    assert selected[name].params == alone[name].params
    assert selected[name].score == pytest.approx(5.0 + 2 * alone[name].score, rel=1e-5)
    assert screened["limited_interval"].scores.shape[1] == 1


def test_families_that_cannot_be_tuned_are_skipped_and_unknown_ones_refused(monkeypatch):
    field = guidance.Field()
    monkeypatch.setitem(
        guidance.FAMILIES,
        "fixed",
        guidance.Family(make=guidance.constant, fields={"w": field}),
    )
    selected, _ = tune(("fixed", "constant"), score(), schedule=FLOW, axes=AXES)
    assert [*selected] == ["constant"]
    with pytest.raises(ValueError, match=r"expected families of .*, got \['constent'\]"):
        tune(("constent",), score(), schedule=FLOW)
