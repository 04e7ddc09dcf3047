"""Laws of the two times of a step: densities, draws, refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from lgd.objectives import GridLaw, TimeLaw, UniformTimes
from lgd.omega import Support

pytestmark = pytest.mark.usefixtures("quick_compilation")
sample_times = jax.jit(TimeLaw.sample, static_argnums=(0, 2))


def test_time_law_has_the_laws_it_states():
    law = TimeLaw(s_min=0.1, delta=0.2, zeta=0.05)
    s, t = (np.asarray(v, np.float64) for v in law.sample(jax.random.key(0), 40_000))
    s_rank = (s - 0.1) / (0.75 - 0.1)
    gap_rank = (t - s - 0.2) / (1 - 0.05 - s - 0.2)
    for rank in (s_rank, gap_rank):
        assert rank.min() > -1e-4
        assert rank.max() < 1 + 1e-4
        assert abs(rank.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / 40_000)
        assert abs(rank.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / 40_000)
    assert abs(np.corrcoef(s_rank, gap_rank)[0, 1]) < 4 / np.sqrt(40_000)
    support = law.support
    assert s.min() >= support.s_min
    assert t.max() <= support.t_max + 1e-6
    assert (t - s).min() >= support.gap_min - 1e-6


LAWS = [
    TimeLaw(),
    TimeLaw(s_min=0.2, delta=0.01, zeta=0.1),
    TimeLaw(s_min=0.0, delta=0.3, zeta=0.0),
    GridLaw(times=(1.0, 0.7, 0.5, 0.1, 0.0)),
    GridLaw(times=(0.8, 0.4, 0.3)),
    UniformTimes(),
    UniformTimes(t_min=0.3, t_max=0.5),
]


def cumulative(law):
    """The integral of a law's density from 0 on, in cells of 1e-5: a function of t."""
    middles = (np.arange(100_000) + 0.5) / 100_000
    mass = np.asarray(law.density(jnp.asarray(middles, jnp.float32)), np.float64) / 100_000
    ends = np.concatenate([[0.0], np.cumsum(mass)])
    return lambda t: np.interp(t, np.linspace(0.0, 1.0, 100_001), ends)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_densities_of_t_integrate_to_1(law):
    np.testing.assert_allclose(cumulative(law)(1.0), 1.0, atol=2e-3)


@pytest.mark.parametrize("law", LAWS[:3], ids=str)
def test_density_of_t_and_law_of_s_given_t_are_those_of_the_time_law(law):
    """By Kolmogorov-Smirnov of 40,000 draws: t on the whole, and s within each eighth of t."""
    s, t = (np.asarray(v) for v in sample_times(law, jax.random.key(0), 40_000))
    assert kstest(t, cumulative(law)).pvalue > 1e-3
    other = np.asarray(sample_times(law, jax.random.key(1), 40_000)[1])
    drawn = np.asarray(law.sample_s(jax.random.key(2), jnp.asarray(other)))
    edges = np.quantile(t, np.linspace(0.0, 1.0, 9))
    edges[[0, -1]] = 0.0, 1.0
    for low, high in itertools.pairwise(edges):
        ours, theirs = ((each > low) & (each <= high) for each in (other, t))
        assert ks_2samp(drawn[ours], s[theirs]).pvalue > 1e-4
    assert drawn.min() >= law.support.s_min
    assert (other - drawn).min() >= law.support.gap_min - 1e-6


def test_uniform_times_have_the_density_they_state():
    law = UniformTimes(t_min=0.3, t_max=0.5)
    t = np.asarray(law.sample_t(jax.random.key(0), 10_000))
    assert kstest(t, cumulative(law)).pvalue > 1e-3


def test_a_grid_law_takes_the_steps_of_its_grid():
    """At its times the next one; between them the step is interpolated; time 1 is left out."""
    law = GridLaw(times=(1.0, 0.7, 0.5, 0.1, 0.0), zeta=0.02)
    t = jnp.asarray([0.7, 0.5, 0.1, 0.6, 0.85])
    s = law.sample_s(jax.random.key(0), t)
    np.testing.assert_allclose(s, [0.5, 0.1, 0.0, 0.3, 0.6], atol=1e-6)
    assert law.support == Support(0.0, 0.98, pytest.approx(0.1), pytest.approx(0.4))
    np.testing.assert_array_equal(law.density(jnp.asarray([0.05, 0.99])), 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridLaw(times=(1.0,)), "expected at least two decreasing times"),
        (lambda: GridLaw(times=(0.0, 0.5, 1.0)), "expected at least two decreasing times"),
        (lambda: GridLaw(times=(1.0, 0.0)), "expected a range of times below 1 - zeta"),
        (lambda: UniformTimes(t_min=0.5, t_max=0.5), "expected 0 <= t_min < t_max <= 1"),
        (lambda: UniformTimes(t_max=1.1), "expected 0 <= t_min < t_max <= 1"),
    ],
)
def test_laws_without_mass_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"s_min": 0.61, "delta": 0.3, "zeta": 0.1}, "expected s_min < 1 - zeta - delta, got"),
        ({"s_min": 0.0, "delta": 0.95, "zeta": 0.1}, "expected s_min < 1 - zeta - delta, got"),
        ({"delta": 0.0}, "delta > 0, got"),
        ({"s_min": -0.1}, "s_min, zeta >= 0 .*, got"),
        ({"zeta": -0.1}, "s_min, zeta >= 0 .*, got"),
    ],
)
def test_empty_time_laws_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TimeLaw(**settings)
