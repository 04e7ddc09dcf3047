"""Objectives on statistics: losses and gradients in law, subsets, weights of other laws.

THE STATISTICAL TEST compares 5,120 redraws of the fresh noise of 16 examples with as many draws of
it in R^d, on the particles themselves: means and variances of losses and of gradients in omega. A
comparison fails beyond `LIMIT` standard errors, which happens by chance once in 1,000 runs of all.
That the draws suffice is asserted beside it: a relative error of 3% in mean losses, of 5% in mean
gradients, or of 15% in the variance of either would lie at least `LIMIT` + 2.33 standard errors
away, and so be found with a power above .99. `experiments.benchmarks.gram.agreement` sees less.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.gram import law
from lgd import objectives
from lgd.gram import Layout, Statistics, StatisticsError, loss
from lgd.objectives import (
    ConditionalMarginalConsistency,
    GuidedScoreMatching,
    MarginalConsistency,
    SelfConsistency,
    TimeLaw,
    UniformTimes,
)
from tests.gram_cases import FLOW, collected

DRAWS = 128  # in each of 40 batches
LIMIT = 4.5
SEEN = {"loss": 0.03, "gradient": 0.05, "variance of loss": 0.15, "variance of gradient": 0.15}


@pytest.mark.parametrize(
    ("dim", "members", "num_directions"),
    [(2, "copies", 2), (7, "condition", 1), (14, "copies", 1), (64, "mixed", 2)],
)
def test_redrawn_losses_and_gradients_have_the_law_of_those_of_the_particles(
    dim, members, num_directions
):
    """Dimensions below, just above and far above the number of known rows."""
    for name, (gap, error) in law.compared(dim, members, num_directions, batch=DRAWS).items():
        drawn = ~law.NO_NOISE
        assert (np.abs(gap) <= LIMIT * error)[drawn].all(), (name, gap / error)
        assert ((LIMIT + law.POWER_GAP) * error <= SEEN[name])[drawn].all(), (name, error)
        if "variance" not in name:
            np.testing.assert_allclose(gap[law.NO_NOISE], 0.0, atol=1e-4)


@pytest.mark.parametrize(("dim", "num_directions"), [(2, 2), (14, 1)])
def test_a_degree_of_freedom_too_many_is_detected(dim, num_directions):
    gap, error = law.compared(dim, "copies", num_directions, batch=DRAWS, claimed_dim=dim + 1)[
        "loss"
    ]
    assert (np.abs(gap) > LIMIT * error)[~law.NO_NOISE].any()


@pytest.mark.parametrize("members", ["copies", "condition"])
def test_fewer_particles_than_were_collected_are_the_first_of_each(members):
    """Centred anew, they have the products of the rows of those particles alone."""
    blocks = law.frozen_rows(7, members, 2)
    batch, layout = law.as_examples(blocks, members=members)
    found = loss.redrawn_rows(jax.random.key(0), batch, layout, num_particles=3)
    centred, residual, delta, eps = (np.asarray(block, np.float64) for block in blocks)
    delta = delta.reshape(law.GROUPS, 2, law.PARTICLES, 7)[:, :, :3].reshape(law.GROUPS, 6, 7)
    centred = centred[:, :3] - centred[:, :3].mean(axis=1, keepdims=True)
    expected = np.concatenate([centred, residual[:, :3], delta, eps[:, :3]], axis=1)
    rows = np.concatenate([np.asarray(block, np.float64) for block in found[:4]], axis=1)
    products = expected @ expected.swapaxes(1, 2)
    np.testing.assert_allclose(rows @ rows.swapaxes(1, 2), products, rtol=1e-4, atol=1e-4)
    assert found.z.shape[:2] == found.eps_target.shape[:2] == (law.GROUPS, 3)


# Weights


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    """16,384 examples at uniform times."""
    return many(tmp_path_factory.mktemp("uniform"), None)


@pytest.fixture(scope="module")
def by_law(tmp_path_factory):
    """As many at the times of the objective's own law."""
    return many(tmp_path_factory.mktemp("law"), TimeLaw())


def many(folder, law):
    size = 16_384
    return collected(folder, law=law, num_examples=size, batch_size=2048, shard_examples=size)


@functools.partial(jax.jit, static_argnames=("layout", "law"))
def losses(data, layout, law):
    """Of constants 0 and 1.5, for every example."""
    objective = SelfConsistency()
    s_key, rows_key = jax.random.split(jax.random.key(0))
    s = law.sample_s(s_key, data.t)
    rows = loss.redrawn_rows(rows_key, data, layout, num_particles=4)
    forms = loss.forms_of(objective, rows, s=s, t=data.t, schedule=FLOW, churn=1.0)
    each = [jnp.full((len(s), 4, 1), w) for w in (0.0, 1.5)]
    return jnp.stack([loss.loss_of(objective, forms, w, beta=1.75, lam=1.0) for w in each])


def mean_loss(statistics, law):
    """Weighted means, and their standard errors."""
    values = np.asarray(losses(loss.examples(statistics), statistics.layout, law), np.float64)
    values = values * loss.relative_weights(statistics, law)
    return values.mean(axis=1), values.std(axis=1) / np.sqrt(statistics.size)


def test_weights_of_another_law_give_its_expectation(uniform, by_law):
    """Within 4.5 standard errors, which are under 10% of the loss."""
    law = TimeLaw()
    weighted, error = mean_loss(uniform, law)
    plain, other = mean_loss(by_law, law)
    np.testing.assert_allclose(loss.relative_weights(by_law, law), 1.0, rtol=1e-5)
    both = np.hypot(error, other)
    assert (np.abs(weighted - plain) < 4.5 * both).all()
    assert (4.5 * both < 0.1 * plain).all()
    unweighted = mean_loss(uniform._replace(law=law), law)[0]
    assert (np.abs(unweighted - plain) > 4.5 * both).any()


def some(law):
    """Statistics of which only times matter."""
    n, layout = 8, Layout(dim=3)
    t = np.linspace(0.3, 0.6, n).astype(np.float32)
    zeros = np.zeros((n, layout.packed), np.float32)
    c = np.zeros(n, np.int32)
    return Statistics(layout, law, t, c, zeros, c, np.zeros((n, 4, 0), np.float32), {})


def test_laws_beyond_what_was_collected_are_refused():
    narrow = some(UniformTimes(t_min=0.3, t_max=0.6))
    with pytest.raises(StatisticsError, match="law: expected times within those of Uniform"):
        loss.relative_weights(narrow, TimeLaw())
    with pytest.raises(StatisticsError, match="law: expected times within"):
        loss.relative_weights(narrow, objectives.GridLaw(times=(0.5, 0.4, 0.25, 0.2)))
    uneven = objectives.GridLaw(times=(0.6, 0.5, 0.35, 0.0))  # s + gap_min is below all its times
    assert loss.relative_weights(narrow, uneven).mean() == pytest.approx(1.0)
    with pytest.raises(StatisticsError, match="law: expected examples at times of"):
        loss.relative_weights(some(UniformTimes()), TimeLaw(s_min=0.8, delta=0.05))


# What fits


@pytest.mark.parametrize(
    ("objective", "layout", "message"),
    [
        (SelfConsistency(), {"members": "mixed"}, "members: expected copies for SelfCons"),
        (ConditionalMarginalConsistency(), {}, "members: expected condition for Cond.* got copies"),
        (MarginalConsistency(), {"members": "condition"}, "members: expected mixed for Marginal"),
        (SelfConsistency(num_particles=5), {}, "expected at most the 4 particles collected, got 5"),
        (
            ConditionalMarginalConsistency(group_size=5),
            {"members": "condition"},
            "expected at most the 4 particles collected, got 5",
        ),
        (SelfConsistency(reward=lambda x, c: x), {}, "reward: expected none"),
    ],
)
def test_objectives_that_statistics_cannot_serve_are_refused(objective, layout, message):
    with pytest.raises(StatisticsError, match=message):
        loss.check_fits(objective, Layout(dim=3, **layout))


def test_guided_score_matching_serves_all_members():
    for members in ("copies", "condition", "mixed"):
        loss.check_fits(GuidedScoreMatching(), Layout(dim=3, members=members))


def test_a_frame_is_what_objectives_of_one_program_share():
    frames = {
        loss.frame_of(SelfConsistency(coupling=coupling, beta=beta, lam=lam, churn=churn))
        for beta, churn in ((1.0, 0.0), (2.0, 0.5))
        for coupling, lam in (("independent", 0.0), ("independent", 1.0), ("shared", 1.0))
    }
    assert len(frames) == 2  # one of either coupling
    assert loss.frame_of(SelfConsistency(coupling="shared", lam=0.0)) not in frames
