"""Objectives on statistics: subsets of particles, weights of other laws, what fits what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import objectives
from lgd.gram import Layout, Statistics, StatisticsError, loss, score
from lgd.gram.layout import pack
from lgd.gram.redraw import factor
from lgd.objectives import (
    ConditionalMarginalConsistency,
    GuidedScoreMatching,
    MarginalConsistency,
    SelfConsistency,
    TimeLaw,
    UniformTimes,
)
from lgd.types import Batch
from tests.gram_cases import DENOISER, FLOW, collected, draw, wide_params
from tests.objective_cases import per_class
from tests.test_one_step import MATRIX

pytestmark = pytest.mark.usefixtures("quick_compilation")
GROUPS, PARTICLES, DIM, DIRECTIONS = 5, 4, 7, 2
redrawn_rows = jax.jit(loss.redrawn_rows, static_argnums=2, static_argnames="num_particles")


def frozen_rows(members):
    """Rows of any size: centred, residual, delta and eps, in float64."""
    rng = np.random.default_rng(0)
    centred, residual, eps = rng.normal(size=(3, GROUPS, PARTICLES, DIM))
    delta = rng.normal(size=(GROUPS, DIRECTIONS * PARTICLES, DIM))
    if members == "copies":
        centred = 0.0 * centred
    return centred - centred.mean(axis=1, keepdims=True), residual, delta, eps


def as_examples(blocks, members):
    """Those rows as statistics on the device."""
    rows = np.concatenate(blocks[1:] if members == "copies" else blocks, axis=1)
    layout = Layout(members=members, dim=DIM, directions=("uncond", "weaker"))
    lower = jnp.asarray(pack(factor(rows @ rows.swapaxes(1, 2), DIM)), jnp.float32)
    features = jnp.zeros((GROUPS, PARTICLES, 0))
    t, c = jnp.linspace(0.2, 0.8, GROUPS), jnp.zeros(GROUPS, jnp.int32)
    return loss.Examples(t, c, lower, features), layout


@pytest.mark.parametrize("members", ["copies", "condition"])
def test_fewer_particles_than_were_collected_are_the_first_of_each(members):
    """Centred anew, they have the products of the rows of those particles alone."""
    blocks = frozen_rows(members)
    batch, layout = as_examples(blocks, members)
    found = redrawn_rows(jax.random.key(0), batch, layout, num_particles=3)
    centred, residual, delta, eps = blocks
    delta = delta.reshape(GROUPS, 2, PARTICLES, DIM)[:, :, :3].reshape(GROUPS, 6, DIM)
    centred = centred[:, :3] - centred[:, :3].mean(axis=1, keepdims=True)
    expected = np.concatenate([centred, residual[:, :3], delta, eps[:, :3]], axis=1)
    rows = np.concatenate([np.asarray(block, np.float64) for block in found[:4]], axis=1)
    products = expected @ expected.swapaxes(1, 2)
    np.testing.assert_allclose(rows @ rows.swapaxes(1, 2), products, rtol=1e-4, atol=1e-4)
    assert found.z.shape[:2] == found.eps_target.shape[:2] == (GROUPS, 3)


# Statistics against online training

GROUP = 4


def batches(members, size, seed=0):
    """Batches of ``size`` examples of statistics that never repeat."""
    per_example = 1 if members == "copies" else GROUP

    def batch(step):
        labels = (np.arange(size * per_example) % 2).astype(np.int32)
        if members == "condition":
            labels = np.repeat(labels[:size], GROUP)
        x0 = draw(np.random.default_rng((seed, step)), labels)
        if members == "condition":
            return Batch(x0.reshape(size, GROUP, -1), labels.reshape(size, GROUP))
        return Batch(x0, labels)

    return batch


@pytest.fixture(scope="module")
def by_members(tmp_path_factory):
    """4,096 examples of each kind of members, at the times of the objectives' law."""
    size = {"num_examples": 4096, "batch_size": 2048, "shard_examples": 4096}
    return {
        members: collected(
            tmp_path_factory.mktemp(members),
            batches(members, 2048),
            data_name="draws",
            law=TimeLaw(),
            members=members,
            **size,
        )
        for members in ("copies", "condition", "mixed")
    }


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", MATRIX)
def test_losses_on_statistics_have_the_mean_of_online_ones(by_members, name):
    """Of a weight for each class, within 4.5 standard errors, which are under 4% of the loss."""
    objective, _ = MATRIX[name]
    members = objective.members[0]
    omega_fn = per_class(jnp.asarray([0.5, 1.2]))
    scores = score(by_members[members], {"it": omega_fn}, objective=objective, schedule=FLOW)
    online = jax.jit(lambda key, batch: objective(key, omega_fn, DENOISER, wide_params(), batch)[0])
    draws = batches(members, 512, seed=1)
    each = [float(online(jax.random.key(i), draws(i))) for i in range(16)]
    error = np.hypot(scores.standard_error("it"), np.std(each, ddof=1) / np.sqrt(len(each)))
    assert abs(scores.mean("it") - np.mean(each)) < 4.5 * error
    assert error < 0.04 * np.mean(each)


# Weights


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    """16,384 examples at uniform times."""
    return many(tmp_path_factory.mktemp("uniform"), UniformTimes())


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
    forms = objective.forms(rows, s=s, t=data.t, schedule=FLOW, churn=1.0)
    each = [jnp.full((len(s), 4, 1), w) for w in (0.0, 1.5)]
    return jnp.stack([objective.losses(forms, w, beta=1.75, lam=1.0) for w in each])


def mean_loss(statistics, law):
    """Weighted means, and their standard errors."""
    values = np.asarray(losses(loss.examples(statistics), statistics.layout, law), np.float64)
    values = values * loss.relative_weights(statistics, law)
    return values.mean(axis=1), values.std(axis=1) / np.sqrt(statistics.size)


@pytest.mark.slow
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
        (GuidedScoreMatching(reward=lambda x, c: x), {}, "reward: expected none"),
    ],
)
def test_objectives_that_statistics_cannot_serve_are_refused(objective, layout, message):
    with pytest.raises(StatisticsError, match=message):
        loss.check_fits(objective, Layout(dim=3, **layout))


@pytest.mark.parametrize("name", MATRIX)
def test_objectives_fit_the_members_that_they_name_and_no_others(name):
    objective, _ = MATRIX[name]
    for members in ("copies", "condition", "mixed"):
        layout = Layout(dim=3, members=members, num_particles=objective.num_members)
        if members in objective.members:
            loss.check_fits(objective, layout)
        else:
            with pytest.raises(StatisticsError, match="members: expected"):
                loss.check_fits(objective, layout)
