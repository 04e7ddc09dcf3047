"""Tables solved for: against formulas, brute force, repetition, and the limits of the ridge."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from lgd import guidance, objectives, schedules
from lgd.denoisers import GaussianMixture
from lgd.gram import StatisticsError, closed_form, loss, score
from lgd.gram.ridge import minimise, penalty_curvature, penalty_gradient
from lgd.objectives import SelfConsistency, TimeLaw
from lgd.omega import BinTable, ByLabel
from lgd.types import Batch
from tests.gram_cases import FLOW, collected, fresh
from tests.two_points import l2_optimum

pytestmark = pytest.mark.usefixtures("quick_compilation")
WIDE = TimeLaw(s_min=0.02, delta=0.1, zeta=0.02)
ENERGY = SelfConsistency(time_law=WIDE)


@pytest.fixture(scope="module")
def blurred(tmp_path_factory):
    """4,096 examples of the blurred denoiser, each of an x0 of its own."""
    return collected(
        tmp_path_factory.mktemp("blurred"),
        fresh(1024),
        data_name="draws",
        num_examples=4096,
        batch_size=1024,
        shard_examples=4096,
        law=WIDE,
    )


def solve(statistics, objective, **settings):
    defaults = {"schedule": FLOW, "num_bins": 3, "num_draws": 2, "ridge": 0.0}
    return closed_form(statistics, objective, **(defaults | settings))


def values(solved):
    return np.asarray(solved.guidance.params["values"], np.float64)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_l2_optimum_of_two_points_is_the_known_one(tmp_path, churn):
    """Points at -1 and 1, exact denoisers, one narrow bin of times; formula by quadrature.

    ``omega = -sigma_s k / a E[Delta eps] / E[Delta^2]``, as in tests/test_objectives.py.
    """
    s, t = 0.3, 0.6
    law = TimeLaw(s_min=s, delta=t - s - 1e-4, zeta=1.0 - t)
    denoiser = GaussianMixture((0, 1), FLOW)
    params = denoiser.params(jnp.asarray([[1.0, 0.0], [-1.0, 0.0]]), 0.0)
    batch = Batch(np.tile(np.float32([[1.0, 0.0]]), (4096, 1)), np.zeros(4096, np.int32))
    found = collected(
        tmp_path,
        lambda step: batch,
        denoiser=denoiser,
        params=params,
        data_name="a point",
        law=law,
        num_examples=8192,
        batch_size=4096,
        shard_examples=8192,
        members="copies",
    )
    found = found._replace(source=np.arange(found.size, dtype=np.int32))  # noise is all there is
    objective = objectives.l2(churn=churn, time_law=law)
    solved = solve(found, objective, num_bins=2, num_draws=1, ridge=1e6)

    expected = l2_optimum(s, t, churn=churn)
    filled = np.isfinite(solved.standard_errors)
    error = 1.0 / np.sqrt(np.sum(solved.standard_errors[filled] ** -2.0))
    assert error < 0.03
    np.testing.assert_allclose(values(solved), expected, atol=4.0 * error)
    assert expected > 4.0 * error


def binned_losses(statistics, objective, grid, bins=3, draws=2):
    """Mean loss in each bin of constants, with other draws: by `score`, (constants, bins)."""
    constants = {str(w): guidance.constant(float(w)) for w in grid}
    found = score(
        statistics, constants, objective=objective, schedule=FLOW, num_draws=draws, seed=5
    )
    centres = BinTable(support=objective.support, num_bins=bins).bin_centres()
    near = [
        np.argmin(np.abs(each[..., None] - np.asarray(centre)), axis=-1)
        for each, centre in zip((found.s, found.t[None]), centres, strict=True)
    ]
    place = np.broadcast_to(near[0] * bins + near[1], found.s.shape)
    sums = np.zeros((len(grid), bins * bins))
    for i, name in enumerate(constants):
        weighted = found.weights * found.losses[:, found.names.index(name)]
        sums[i] = np.bincount(place.ravel(), weighted.ravel(), bins * bins)
    return sums


@pytest.mark.sampled(2)
@pytest.mark.slow
def test_energy_optimum_is_that_of_brute_force(blurred):
    """A grid of constants scored on the same examples, and a parabola through its least three."""
    solved = solve(blurred, ENERGY, num_draws=4)
    grid = np.linspace(0.0, 4.0, 21)
    sums = binned_losses(blurred, ENERGY, grid, draws=4)
    with_data = (solved.counts.ravel() > 1500) & (values(solved).ravel() < 3.5)
    assert with_data.sum() >= 4
    for place in np.flatnonzero(with_data):
        best = int(np.clip(np.argmin(sums[:, place]), 1, len(grid) - 2))
        low, here, high = sums[best - 1 : best + 2, place]
        least = np.clip(grid[best] - 0.1 * (high - low) / (high + low - 2 * here), 0.0, 4.0)
        error = solved.standard_errors.ravel()[place]
        assert abs(values(solved).ravel()[place] - least) < 4.0 * error + 0.02


@pytest.mark.slow
def test_standard_errors_have_the_size_of_the_scatter(blurred):
    """Of 16 disjoint parts of the examples: root mean square of deviations over errors near 1.

    With about 4 bins of 15 degrees of freedom each, 0.7 to 1.35 holds 99.8% of the time.
    """
    each = [
        solve(
            blurred.take(slice(256 * i, 256 * (i + 1))),
            objectives.l2(time_law=WIDE),
            omega_max=100.0,
            seed=i,
        )
        for i in range(16)
    ]
    table = np.stack([values(solved) for solved in each])
    inside = ((table > 0.0) & (table < 90.0)).all(axis=0)
    enough = np.min([solved.counts for solved in each], axis=0) > 40
    chosen = inside & enough
    assert chosen.sum() >= 2
    scatter = table.std(axis=0, ddof=1)[chosen]
    stated = np.sqrt(np.mean([solved.standard_errors**2 for solved in each], axis=0))[chosen]
    assert 0.7 < np.sqrt(np.mean((scatter / stated) ** 2)) < 1.35


@pytest.mark.slow
def test_copies_of_an_x0_do_not_shrink_the_errors(blurred):
    """Every example four times over, under one source: the same table and the same errors."""
    objective = objectives.l2(time_law=dataclasses.replace(WIDE))
    four = blurred.take(np.tile(np.arange(512), 4))
    one, many = (solve(each, objective, num_draws=1) for each in (blurred.take(slice(512)), four))
    dense = one.counts > 60
    ratio = many.standard_errors[dense] / one.standard_errors[dense]
    assert (ratio > 0.6).all()  # s is drawn anew for each; as strangers it would be 0.5
    assert (ratio < 1.4).all()


def test_ridge_goes_from_single_bins_to_a_constant(blurred):
    objective = objectives.l2(time_law=WIDE)
    single, some, one = (
        solve(blurred, objective, ridge=r, rows=ByLabel(2)) for r in (0.0, 0.3, 1e8)
    )
    assert values(one).std() < 1e-3
    assert values(some).std() < 0.9 * values(single).std()
    sums = loss.relative_weights(blurred, WIDE)  # the constant is the optimum of them all
    assert sums.mean() == pytest.approx(1.0)
    whole = solve(blurred, objective, num_bins=2, ridge=1e8)
    np.testing.assert_allclose(values(one).mean(), values(whole).mean(), rtol=2e-3)


def test_values_lie_in_the_box_and_empty_bins_take_those_around(blurred):
    solved = solve(blurred, ENERGY, omega_max=0.3, num_bins=6)
    table = values(solved)
    assert table.min() >= 0.0
    assert table.max() == pytest.approx(0.3)
    empty = solved.counts == 0
    assert empty.any()
    assert np.isinf(solved.standard_errors[empty]).all()
    lowest, highest = table[~empty].min(), table[~empty].max()
    assert (table[empty] >= lowest - 1e-6).all()
    assert (table[empty] <= highest + 1e-6).all()
    inner = np.pad(table[0], 1, mode="edge")
    mean = (inner[:-2, 1:-1] + inner[2:, 1:-1] + inner[1:-1, :-2] + inner[1:-1, 2:]) / 4
    np.testing.assert_allclose(table[0][empty[0]], mean[empty[0]], atol=1e-4)


def test_a_class_with_few_data_leans_on_the_others(blurred):
    """Class 1 keeps 8 examples: with a ridge its table comes near that of class 0."""
    c = np.asarray(blurred.c)
    kept = np.concatenate([np.flatnonzero(c == 0), np.flatnonzero(c == 1)[:8]])
    part, objective = blurred.take(kept), objectives.l2(time_law=WIDE)
    alone, leaning = (values(solve(part, objective, rows=ByLabel(2), ridge=r)) for r in (1e-9, 0.3))
    gaps = [np.abs(table[1] - table[0]).mean() for table in (alone, leaning)]
    assert gaps[1] < 0.3 * gaps[0]


# The bounded problem


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 0.1, 10.0])
@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 4, 4)])
def test_the_solver_finds_the_bounded_least_squares_solution(shape, ridge):
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    curvature = rng.exponential(size=size) * (rng.random(size) > 0.3)
    goal = rng.normal(1.0, 2.0, size)
    table = rng.uniform(0.0, 3.0, shape)
    slope = curvature * (table.ravel() - goal)
    parabolas = (slope.reshape(shape), curvature.reshape(shape))
    found = minimise(*parabolas, table, ridge=ridge, upper=3.0)
    strength = max(ridge, 1e-9) * curvature[curvature > 0].mean()
    pull = np.stack(
        [penalty_gradient(each.reshape(shape)).ravel() for each in np.eye(size)], axis=1
    )
    np.testing.assert_allclose(pull, pull.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(pull), penalty_curvature(shape).ravel())
    whole = np.diag(curvature) + strength * pull
    values, vectors = np.linalg.eigh(whole)
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    aim = (vectors.T @ (curvature * goal)) / np.sqrt(np.maximum(values, 1e-300))
    expected = lsq_linear(root, aim, bounds=(0.0, 3.0), method="bvls", tol=1e-14).x
    has_data = curvature > 0.0
    np.testing.assert_allclose(found.ravel()[has_data], expected[has_data], atol=1e-4)
    if ridge:
        np.testing.assert_allclose(found.ravel(), expected, atol=1e-4)


def test_ridge_terms_are_neighbours_and_the_mean_of_classes():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(3, 4, 5))
    energy = 0.5 * sum(np.sum(np.diff(table, axis=axis) ** 2) for axis in (1, 2))
    energy += 0.5 * np.sum((table - table.mean(axis=0)) ** 2)
    np.testing.assert_allclose(0.5 * np.sum(table * penalty_gradient(table)), energy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ridge": -1.0}, "expected ridge >= 0"),
        ({"omega_max": 0.0}, "omega_max > 0"),
        ({"num_draws": 0}, "num_draws >= 1"),
        ({"schedule": schedules.cosine()}, "schedule: expected RectifiedFlow"),
    ],
)
def test_settings_that_do_not_fit_are_refused(blurred, settings, message):
    with pytest.raises(StatisticsError, match=message):
        solve(blurred, objectives.l2(), **settings)


def test_statistics_with_features_are_refused(blurred):
    layout = dataclasses.replace(blurred.layout, has_features=True)
    with pytest.raises(StatisticsError, match="statistics: expected one direction"):
        solve(blurred._replace(layout=layout), objectives.l2())
