import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from lgd import objectives, schedules, training
from lgd.denoisers import GaussianMixture, from_function
from lgd.diffusion import denoise_pair
from lgd.learn import omega_loss
from lgd.machinery import parallel
from lgd.objectives import (
    ConditionalMarginalConsistency,
    GridLaw,
    GuidedScoreMatching,
    MarginalConsistency,
    SelfConsistency,
    TimeLaw,
    Trajectory,
    UniformTimes,
)
from lgd.omega import BinTable, Support
from lgd.types import Batch
from tests.two_points import l2_optimum

pytestmark = pytest.mark.usefixtures("quick_compilation")
COSINE, FLOW = schedules.cosine(), schedules.rectified_flow()
draw_rows = jax.jit(objectives.draw_rows, static_argnums=1)
predict_pair = jax.jit(denoise_pair, static_argnums=0)
sample_times = jax.jit(TimeLaw.sample, static_argnums=(0, 2))

ENERGIES = tuple(itertools.product((0.5, 1.0, 1.75, 2.0), (0.0, 0.5, 1.0)))  # beta, lam
CHURNS = (0.0, 0.5, 1.0)


def mixture(schedule):
    model = GaussianMixture((0, 0, 1), schedule)
    means = jnp.asarray([[1.0, 0.2, 0.1], [-0.8, 0.9, 0.0], [0.1, -1.2, 0.4]])
    return model, model.params(means, jnp.asarray([0.1, 0.05, 0.15]))


def two_points(schedule, variance=0.0):
    model = GaussianMixture((0, 1), schedule)
    return model, model.params(jnp.asarray([[1.0, 0.0], [-1.0, 0.0]]), variance)


def at(s, t):
    """A law of times that is all but fixed at (s, t)."""
    return TimeLaw(s_min=s, delta=t - s - 1e-5, zeta=1.0 - t)


def constant(w):
    """An omega function that may be traced, unlike `guidance.constant`."""
    return lambda *, s, t, c: jnp.broadcast_to(w, t.shape)


def per_class(values):
    return lambda *, s, t, c: values[c]


def evaluate(objective, key, omega_fn, denoiser, params, batch):
    """One compiled call of an objective."""
    return jax.jit(lambda batch: objective(key, omega_fn, denoiser, params, batch))(batch)


class Particles(NamedTuple):
    """Everything that a group of particles is made of, in float64: (g, m, d) and (g,)."""

    x0: np.ndarray
    cond: np.ndarray
    uncond: np.ndarray
    eps: np.ndarray
    z: np.ndarray
    eps_target: np.ndarray
    alpha_s: np.ndarray
    sigma_s: np.ndarray
    alpha_t: np.ndarray
    sigma_t: np.ndarray

    def proposals(self, omega, churn):
        """DESIGN.md's kernel, from t to s; omega is (g, m)."""
        a_s, s_s, a_t, s_t = (v[:, None, None] for v in self[-4:])
        k = churn**2 * a_t * s_s / (a_s * s_t) + 1 - churn**2
        x_t = a_t * self.x0 + s_t * self.eps
        x0_hat = self.cond + omega[:, :, None] * (self.cond - self.uncond)
        spread = s_s * np.sqrt(1 - k**2)
        return a_s * x0_hat + s_s / s_t * k * (x_t - a_t * x0_hat) + spread * self.z

    def targets(self, coupling):
        noise = self.eps if coupling == "shared" else self.eps_target
        return self.alpha_s[:, None, None] * self.x0 + self.sigma_s[:, None, None] * noise

    def loss(self, omega, *, beta, lam, churn, coupling, pairs):
        """Algorithm 1, loops written out; (g,)."""
        x, y, m = self.proposals(omega, churn), self.targets(coupling), omega.shape[1]
        met = {
            "all": list(np.ndindex(m, m)),
            "matched": [(j, j) for j in range(m)],
            "off_diagonal": [(j, k) for j, k in np.ndindex(m, m) if j != k],
        }[pairs]
        cross = np.mean(
            [np.linalg.norm(x[:, j] - y[:, k], axis=-1) ** beta for j, k in met], axis=0
        )
        if lam == 0:
            return cross
        apart = [(j, k) for j, k in np.ndindex(m, m) if j != k]
        within = [np.linalg.norm(x[:, j] - x[:, k], axis=-1) ** beta for j, k in apart]
        return cross - lam / 2 * np.mean(within, axis=0)

    def gradient(self, omega, **settings):
        """Central differences of the sum over groups; (g, m)."""
        found, h = np.zeros_like(omega), 1e-6
        for j in range(omega.shape[1]):
            step = np.zeros_like(omega)
            step[:, j] = h
            ahead, behind = (self.loss(omega + d, **settings) for d in (step, -step))
            found[:, j] = (ahead - behind) / (2 * h)
        return found


def particles_of(rows, x0, denoiser, params, member_c, *, s, t):
    """Particles with the noises of the rows; the denoiser is called anew, on states built anew."""
    g, m, d = x0.shape
    x0, eps, z, eps_target = (np.asarray(a, np.float64) for a in (x0, rows.eps, rows.z, rows[5]))
    schedule = denoiser.schedule
    levels = [schedule.alpha(s), schedule.sigma(s), schedule.alpha(t), schedule.sigma(t)]
    levels = [np.asarray(level, np.float64) for level in levels]
    x_t = levels[2][:, None, None] * x0 + levels[3][:, None, None] * eps
    flat, member_t = jnp.asarray(x_t.reshape(g * m, d), jnp.float32), jnp.repeat(t, m)
    pair = predict_pair(denoiser, params, flat, t=member_t, c=member_c)
    cond, uncond = (np.asarray(a, np.float64).reshape(g, m, d) for a in pair)
    return Particles(x0, cond, uncond, eps, z, eps_target, *levels)


def gram_losses(coupling):
    """For each setting of beta and lam: losses (9,) and gradients (9, m), by churn x group."""

    def losses(omega, rows, s, t, beta, lam):
        step = {"s": s, "t": t, "schedule": FLOW, "coupling": coupling}
        each = [objectives.step_forms(rows, churn=churn, **step) for churn in CHURNS]
        forms = jax.tree.map(lambda *blocks: jnp.concatenate(blocks), *each)
        value = objectives.gram_loss(
            forms, omega[:, :, None], beta=beta, lam=lam, pairs=pairs(coupling, lam)
        )
        return jnp.sum(value), value

    def values_and_gradients(*arguments):
        differentiated = jax.value_and_grad(losses, has_aux=True)
        found = [differentiated(*arguments, beta, lam) for beta, lam in ENERGIES]
        return [(value, gradient) for (_, value), gradient in found]

    return jax.jit(values_and_gradients)


def pairs(coupling, lam):
    return SelfConsistency(coupling=coupling, lam=lam).pairs


@pytest.mark.parametrize(("m", "coupling"), [(2, "shared"), (4, "independent")])
def test_gram_loss_and_gradient_equal_those_of_explicit_particles(m, coupling):
    denoiser, params = mixture(FLOW)
    s, t = jnp.asarray([0.1, 0.4, 0.02]), jnp.asarray([0.3, 0.97, 0.75])
    c, x0 = jnp.repeat(jnp.asarray([0, 1, 0]), m), jax.random.normal(jax.random.key(0), (3, m, 3))
    rows = draw_rows(jax.random.key(1), denoiser, params, x0, c, t=t)
    omega = jax.random.uniform(jax.random.key(2), (9, m), minval=-0.5, maxval=2.0)
    found = gram_losses(coupling)(omega, rows, s, t)
    particles = particles_of(rows, x0, denoiser, params, c, s=s, t=t)
    weights = np.split(np.asarray(omega, np.float64), 3)
    for (beta, lam), (value, gradient) in zip(ENERGIES, found, strict=True):
        settings = {"beta": beta, "lam": lam, "coupling": coupling, "pairs": pairs(coupling, lam)}
        for i, churn in enumerate(CHURNS):
            group, settings["churn"] = slice(3 * i, 3 * i + 3), churn
            expected = particles.loss(weights[i], **settings)
            np.testing.assert_allclose(value[group], expected, rtol=2e-5, atol=2e-5)
            expected = particles.gradient(weights[i], **settings)
            np.testing.assert_allclose(gradient[group], expected, rtol=1e-4, atol=1e-5)


def one_step_particles(objective, key, denoiser, params, batch):
    """The particles behind one call of a one-step objective, with its own draws."""
    time_key, rows_key = jax.random.split(key)
    s, t = sample_times(objective.time_law, time_key, len(batch.x0))
    x0 = batch.x0
    if objective.group_size is None:
        x0 = jnp.repeat(x0[:, None], objective.num_particles, axis=1)
    member_c = objectives.repeat(batch.c, x0.shape[1])
    rows = draw_rows(rows_key, denoiser, params, x0, member_c, t=t)
    return particles_of(rows, x0, denoiser, params, member_c, s=s, t=t)


def settings_of(objective):
    names = ("beta", "lam", "churn", "coupling", "pairs")
    return {name: getattr(objective, name) for name in names}


@pytest.mark.parametrize(
    "objective",
    [
        SelfConsistency(),
        SelfConsistency(beta=1.0, lam=0.0, coupling="shared", churn=0.0),
        ConditionalMarginalConsistency(beta=1.0, group_size=4),
    ],
    ids=["self_consistency", "shared", "conditional_marginal"],
)
def test_one_step_objectives_equal_explicit_particles(objective):
    denoiser, params = mixture(FLOW)
    shape = (3, 3) if objective.group_size is None else (3, 4, 3)
    batch = Batch(jax.random.normal(jax.random.key(0), shape), jnp.asarray([0, 1, 1]))
    key, weights = jax.random.key(7), jnp.asarray([0.4, 1.5, -0.3])

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(values):
        return objective(key, lambda *, s, t, c: values, denoiser, params, batch)

    (value, info), gradient = loss(weights)
    particles = one_step_particles(objective, key, denoiser, params, batch)
    omega = np.repeat(np.asarray(weights, np.float64)[:, None], particles.x0.shape[1], axis=1)
    settings = settings_of(objective)
    np.testing.assert_allclose(value, particles.loss(omega, **settings).mean(), rtol=1e-5)
    expected = particles.gradient(omega, **settings).sum(axis=1) / 3
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(info["omega"], np.mean(weights), rtol=1e-6)
    assert info["distance"] == value


def test_marginal_consistency_of_one_condition_is_the_conditional_one():
    denoiser, params = mixture(FLOW)
    x0, c = jax.random.normal(jax.random.key(0), (2, 5, 3)), jnp.asarray([1, 0])
    settings, key = {"beta": 1.2, "lam": 0.8, "churn": 0.4}, jax.random.key(2)
    grouped = ConditionalMarginalConsistency(group_size=5, **settings)
    pooled = MarginalConsistency(num_particles=5, **settings)
    flat = Batch(x0.reshape(10, 3), jnp.repeat(c, 5))
    omega_fn = per_class(jnp.asarray([0.3, 1.1]))
    expected = evaluate(grouped, key, omega_fn, denoiser, params, Batch(x0, c))[0]
    np.testing.assert_array_equal(
        evaluate(pooled, key, omega_fn, denoiser, params, flat)[0], expected
    )


def test_marginal_consistency_gives_every_particle_its_own_condition():
    denoiser, params = mixture(FLOW)
    objective = MarginalConsistency(num_particles=4, beta=1.0)
    x0, c = jax.random.normal(jax.random.key(0), (8, 3)), jnp.asarray([0, 1, 1, 0, 1, 0, 0, 0])
    key, weights = jax.random.key(2), jnp.asarray([0.3, 1.4])
    loss = evaluate(objective, key, per_class(weights), denoiser, params, Batch(x0, c))[0]
    time_key, rows_key = jax.random.split(key)
    s, t = objective.time_law.sample(time_key, 2)
    groups = x0.reshape(2, 4, 3)
    rows = draw_rows(rows_key, denoiser, params, groups, c, t=t)
    particles = particles_of(rows, groups, denoiser, params, c, s=s, t=t)
    omega = np.asarray(weights, np.float64)[np.asarray(c).reshape(2, 4)]
    expected = particles.loss(omega, **settings_of(objective)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_l2_minimiser_equals_its_closed_form():
    denoiser, params = mixture(FLOW)
    objective = objectives.l2(churn=0.7)
    batch = Batch(jax.random.normal(jax.random.key(0), (3, 3)), jnp.asarray([0, 1, 1]))
    key = jax.random.key(3)
    loss = jax.jit(lambda w: objective(key, constant(w), denoiser, params, batch)[0])
    measured = parabola_minimum(*(np.float64(loss(w)) for w in (-4.0, 0.0, 4.0)), step=4.0)
    particles = one_step_particles(objective, key, denoiser, params, batch)
    still = particles.proposals(np.zeros((3, 4)), objective.churn)
    moved = particles.proposals(np.ones((3, 4)), objective.churn) - still  # a Delta
    error = still[:, :, None] - particles.targets("independent")[:, None]
    expected = -np.einsum("gjd,gjkd->", moved, error) / (4 * np.sum(moved**2))
    np.testing.assert_allclose(measured, expected, rtol=1e-3)


def parabola_minimum(behind, here, ahead, *, step):
    return -step * (ahead - behind) / (2 * (ahead + behind - 2 * here))


@pytest.mark.parametrize(
    ("coupling", "churn"), [("independent", 0.0), ("independent", 1.0), ("shared", 1.0)]
)
def test_l2_over_guides_with_independent_noise_as_its_closed_form_says(coupling, churn):
    """Two points at -1 and 1: ``omega = -sigma_s (k - [shared]) / a E[Delta eps] / E[Delta^2]``."""
    s, t = 0.3, 0.6
    denoiser, params = two_points(FLOW)
    batch = Batch(jnp.broadcast_to(params.means[0], (4096, 2)), jnp.zeros(4096, jnp.int32))
    settings = {"num_particles": 2, "churn": churn, "coupling": coupling, "time_law": at(s, t)}
    objective = objectives.l2(**settings)

    @jax.jit
    def losses(key):
        def loss(w):
            return objective(key, constant(w), denoiser, params, batch)[0]

        return jax.vmap(loss)(jnp.asarray([-1.0, 0.0, 1.0]))

    minima = [
        parabola_minimum(*np.asarray(losses(jax.random.key(i)), np.float64), step=1.0)
        for i in range(12)
    ]

    expected = l2_optimum(s, t, churn=churn, coupling=coupling)
    error = np.std(minima, ddof=1) / np.sqrt(len(minima))
    assert error < 0.02
    assert abs(np.mean(minima) - expected) < 4 * error + 1e-4
    if coupling == "independent":
        assert expected > 0.05
    else:
        assert expected < -0.1


def test_two_points_with_exact_denoisers_are_best_unguided():
    """The minimum of 4,096 x 4 particles, by a parabola through 3 constants: 0 within 0.03."""
    denoiser, params = two_points(FLOW)
    c = jnp.arange(4096) % 2
    batch = Batch(params.means[c], c)
    objective = SelfConsistency(beta=1.0, time_law=TimeLaw(s_min=0.2))
    grid = jnp.linspace(-0.5, 1.0, 6)

    @jax.jit
    def losses(key, params):
        def loss(w):
            return objective(key, constant(w), denoiser, params, batch)[0]

        return jax.lax.map(loss, grid)

    found = np.asarray(losses(jax.random.key(0), params))
    best = int(np.argmin(found))
    minimum = grid[best] + parabola_minimum(*found[best - 1 : best + 2], step=0.3)
    assert abs(minimum) < 0.03


def test_training_from_omega_2_gets_near_0():
    denoiser, params = two_points(FLOW)
    c = jnp.arange(128) % 2
    batch = Batch(params.means[c], c)
    objective = SelfConsistency(beta=1.0, time_law=TimeLaw(s_min=0.2))
    model = BinTable(support=objective.support, num_bins=2, init_omega=2.0)
    state = training.fit(
        jax.random.key(0),
        omega_loss(objective, model, denoiser),
        model.init(jax.random.key(1), c),
        frozen=params,
        batches=lambda step: batch,
        optimizer=training.Optimizer(num_steps=200, learning_rate=0.05, ema_decay=0.9),
        project=model.project,
        mesh=parallel.make_mesh(1),
    )
    assert np.all(state.ema["values"] >= 0.0)
    assert np.mean(state.ema["values"]) < 0.1


def test_one_step_trajectory_has_the_gradient_of_self_consistency():
    settings = {"beta": 1.75, "lam": 0.5, "churn": 0.6}
    denoiser, params = mixture(COSINE)
    m, g, key = 4, 3, jax.random.key(5)
    c, x0 = jnp.asarray([0, 1, 0]), jax.random.normal(jax.random.key(0), (3, 3))
    s, t = jnp.full(g, 0.3), jnp.full(g, 0.7)
    trajectory = Trajectory(
        times=(0.7, 0.3),
        start="data",
        num_particles=m,
        num_targets=m,
        marginal_weight=0.0,
        **settings,
    )
    batch = Batch(jnp.repeat(x0[:, None], 2 * m, axis=1), c)
    step = {"s": s, "t": t, "schedule": COSINE, "coupling": "independent"}
    energy = {"beta": settings["beta"], "lam": settings["lam"]}

    def unrolled(values):
        return trajectory(key, per_class(values), denoiser, params, batch)[0]

    def one_step(values):
        copies = batch.x0[:, :m]
        rows = objectives.draw_rows(key, denoiser, params, copies, jnp.repeat(c, m), t=t)
        omega = jnp.repeat(values[c][:, None], m, axis=1)
        forms = objectives.step_forms(rows, churn=settings["churn"], **step)
        loss = objectives.gram_loss(forms, omega[:, :, None], pairs="all", **energy)
        return jnp.mean(loss), rows

    values = jnp.asarray([0.6, 1.4])
    value, gradient = jax.jit(jax.value_and_grad(unrolled))(values)
    (other, rows), expected = jax.jit(jax.value_and_grad(one_step, has_aux=True))(values)
    assert np.abs(expected).min() > 1e-3
    np.testing.assert_allclose(gradient, expected, rtol=2e-4)
    targets = float(COSINE.sigma(s[0])) * np.asarray(rows.eps_target)
    apart = np.linalg.norm(targets[:, :, None] - targets[:, None], axis=-1) ** settings["beta"]
    real_real = settings["lam"] / 2 * apart.sum() / (g * m * (m - 1))
    np.testing.assert_allclose(value, other - real_real, rtol=1e-4, atol=1e-5)


def test_trajectory_of_an_exact_denoiser_is_best_unguided_and_compares_within_conditions():
    denoiser, params = mixture(FLOW)
    times = tuple(np.linspace(1.0, 0.0, 17).tolist())
    objective = Trajectory(times=times, num_particles=64, num_targets=64)
    c = jnp.arange(16) % 2
    drawn = denoiser.draw(jax.random.key(1), params, jnp.repeat(c, 64)).reshape(16, 64, 3)
    weights = (-0.5, 0.0, 0.6, 1.5)

    @jax.jit
    def loss(w, x0):
        key = jax.random.key(2)
        return objective(key, constant(w), denoiser, params, Batch(x0, c))[0]

    losses = [float(loss(w, drawn)) for w in weights]
    assert np.argmin(losses) == 1
    assert abs(losses[1]) < 0.03
    assert loss(0.0, jnp.flip(drawn, axis=0)) > 10 * losses[1] + 0.3


def still(schedule=FLOW):
    """A denoiser that returns its input: from t near 0, steps hardly move."""
    return from_function(lambda params, x, t, c: x, schedule=schedule, kind="x0", null=2)


def test_trajectory_from_data_starts_at_the_first_members_and_ends_at_the_last():
    near = Trajectory(
        times=(0.01, 0.005, 0.0),
        start="data",
        num_particles=3,
        num_targets=2,
        lam=0.0,
        marginal_weight=0.0,
        reward=lambda x, c: x[:, 0],
        reward_weight=0.5,
    )
    first, last = jnp.full((1, 3, 2), 4.0), jnp.full((1, 2, 2), 1.0)
    batch = Batch(jnp.concatenate([first, last], axis=1), jnp.zeros(1, jnp.int32))
    loss, info = evaluate(near, jax.random.key(0), constant(0.0), still(), (), batch)
    np.testing.assert_allclose(info["reward"], 4.0, atol=0.1)
    np.testing.assert_allclose(info["distance"], 3.0 * np.sqrt(2), atol=0.15)
    np.testing.assert_allclose(loss, info["distance"] - 0.5 * info["reward"], rtol=1e-6)


def test_trajectory_of_several_grids_draws_one_of_them():
    denoiser, params = mixture(FLOW)
    x0, c = jax.random.normal(jax.random.key(0), (2, 4, 3)), jnp.asarray([0, 1])
    settings = {"num_particles": 4, "num_targets": 4}
    grids = ((1.0, 0.5, 0.0), (1.0, 0.7, 0.4, 0.2, 0.0))
    several = Trajectory(times=grids[0], more_times=grids[1:], **settings)
    singles = [Trajectory(times=grid, **settings) for grid in grids]
    assert several.support == Support(0.0, 1.0, 0.2, 0.5)
    keys = jax.random.split(jax.random.key(1), 8)
    batch = Batch(x0, c)

    def losses(objective, keys):
        return jax.vmap(lambda key: objective(key, constant(0.5), denoiser, params, batch)[0])(keys)

    found = losses(several, keys)
    own_keys = jax.vmap(lambda key: jax.random.split(key)[1])(keys)
    alone = np.stack([losses(single, own_keys) for single in singles])
    near = np.isclose(found, alone, rtol=1e-5, atol=1e-6)
    assert (near.sum(axis=0) == 1).all()
    assert near.any(axis=1).all()  # both were drawn


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_marginal_term_pools_the_groups(weight):
    """Two groups whose particles lie where the other's targets are: far apart, equal when pooled.

    With k points of either group at 1 and at -1, the distance within a group is 2, and pooled
    1 - 2k / (2k - 1): the cross mean less the mean over different pairs.
    """
    k = 3
    near = Trajectory(
        times=(1e-3, 5e-4, 0.0),
        start="data",
        num_particles=k,
        num_targets=k,
        marginal_weight=weight,
    )
    particles = jnp.asarray([1.0, -1.0])[:, None, None] * jnp.ones((2, k, 1))
    batch = Batch(jnp.concatenate([particles, -particles], axis=1), jnp.arange(2))
    loss, info = evaluate(near, jax.random.key(0), constant(0.0), still(), (), batch)
    np.testing.assert_allclose(info["distance"], 2.0, atol=0.01)
    np.testing.assert_allclose(loss, 2.0 + weight * (1.0 - 2 * k / (2 * k - 1)), atol=0.01)


def test_trajectory_compares_in_the_space_of_features():
    denoiser, params = mixture(FLOW)
    x0, c = jax.random.normal(jax.random.key(0), (2, 4, 3)), jnp.asarray([0, 1])
    settings = {"times": (1.0, 0.5, 0.2), "num_particles": 4, "num_targets": 4}

    def loss_with(features):
        def loss(x0):
            objective, batch = Trajectory(features=features, **settings), Batch(x0, c)
            return objective(jax.random.key(1), constant(0.5), denoiser, params, batch)[0]

        return jax.jit(loss)

    plain, first_two = loss_with(None), loss_with(lambda x: x[:, :2])
    moved = x0.at[:, :, 2].add(5.0)
    assert first_two(moved) == first_two(x0)
    assert plain(moved) > plain(x0) + 1.0


def test_trajectory_takes_features_of_real_examples_as_they_are():
    denoiser, params = mixture(FLOW)
    x0, c = jax.random.normal(jax.random.key(0), (2, 4, 3)), jnp.asarray([0, 1])

    def phi(x):
        return jnp.square(x[:, :2])

    plain = Trajectory(times=(1.0, 0.5, 0.0), num_particles=4, num_targets=4, features=phi)
    given = dataclasses.replace(plain, example_shape=(3,))
    losses = [
        jax.jit(
            lambda x, each=objective: each(
                jax.random.key(1), constant(0.5), denoiser, params, Batch(x, c)
            )
        )(real)[0]
        for objective, real in ((plain, x0), (given, jnp.square(x0[..., :2])))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{"features": None}, {"start": "data"}, {"times": (1.0, 0.2)}],
)
def test_features_of_real_examples_are_not_enough_for_other_trajectories(settings):
    plain = {"times": (1.0, 0.0), "features": jnp.square} | settings
    assert not Trajectory(**plain).takes_features
    with pytest.raises(ValueError, match="expected no example_shape without features"):
        Trajectory(example_shape=(3,), **plain)


def reward(x0, c):
    return jnp.sum(x0, axis=-1) * (1.0 - 3.0 * c)


REWARDED = {
    "self_consistency": SelfConsistency(reward=reward, reward_weight=50.0),
    "trajectory": Trajectory(
        times=(1.0, 0.6, 0.2, 0.0),
        num_particles=2,
        num_targets=4,
        marginal_weight=0.0,
        reward=reward,
        reward_weight=50.0,
    ),
}


@pytest.mark.parametrize("name", REWARDED)
def test_descending_the_loss_raises_the_reward(name):
    objective, (denoiser, params) = REWARDED[name], mixture(FLOW)
    shape = (4, 3) if objective.group_size is None else (4, 4, 3)
    batch = Batch(jax.random.normal(jax.random.key(0), shape), jnp.asarray([0, 1, 1, 0]))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(values):
        return objective(jax.random.key(1), per_class(values), denoiser, params, batch)

    values = jnp.asarray([0.5, 0.5])
    (before, info), gradient = loss(values)
    np.testing.assert_allclose(before, info["distance"] - 50.0 * info["reward"], rtol=1e-5)
    after = loss(values - 1e-3 * gradient)[0][1]
    assert after["reward"] > info["reward"] + 1e-3


def test_one_step_reward_is_of_the_mixed_prediction_on_noised_real_data():
    denoiser, params = mixture(FLOW)
    objective, key = REWARDED["self_consistency"], jax.random.key(1)
    batch = Batch(jax.random.normal(jax.random.key(0), (3, 3)), jnp.asarray([0, 1, 1]))
    info = evaluate(objective, key, constant(0.8), denoiser, params, batch)[1]
    particles = one_step_particles(objective, key, denoiser, params, batch)
    x0_hat = particles.cond + 0.8 * (particles.cond - particles.uncond)
    expected = np.mean(x0_hat.sum(axis=-1) * (1 - 3 * np.asarray(batch.c)[:, None]))
    np.testing.assert_allclose(info["reward"], expected, rtol=1e-5)


def test_guided_score_matching_is_the_error_of_the_mixed_prediction():
    denoiser, params = mixture(FLOW)
    objective, key = GuidedScoreMatching(), jax.random.key(1)
    batch = Batch(jax.random.normal(jax.random.key(0), (3, 3)), jnp.asarray([0, 1, 1]))
    omega_fn = per_class(jnp.asarray([0.8, -0.4]))
    loss = evaluate(objective, key, omega_fn, denoiser, params, batch)[0]
    particles = one_step_particles(objective, key, denoiser, params, batch)
    omega = np.asarray([0.8, -0.4])[np.asarray(batch.c)][:, None, None]
    error = particles.cond + omega * (particles.cond - particles.uncond) - particles.x0
    np.testing.assert_allclose(loss, np.mean(np.sum(error**2, axis=-1)), rtol=1e-5)


def test_guided_score_matching_vanishes_for_an_exact_denoiser():
    denoiser, params = mixture(FLOW)
    objective = GuidedScoreMatching(num_particles=1, time_law=at(0.3, 0.7))
    c = jnp.arange(4096) % 2

    @jax.jit
    def losses(key):
        data_key, loss_key = jax.random.split(key)
        batch = Batch(denoiser.draw(data_key, params, c), c)

        def loss(w):
            return objective(loss_key, constant(w), denoiser, params, batch)[0]

        return jax.vmap(loss)(jnp.asarray([-1.0, 0.0, 1.0]))

    minima = [
        parabola_minimum(*np.asarray(losses(jax.random.key(i)), np.float64), step=1.0)
        for i in range(16)
    ]
    error = np.std(minima, ddof=1) / np.sqrt(len(minima))
    assert error < 0.02
    assert abs(np.mean(minima)) < 4 * error


def test_conditional_marginal_never_compares_a_proposal_with_its_own_target():
    """Two far points, hardly noised: every comparison is between them, at 20 sqrt(2)."""
    objective = ConditionalMarginalConsistency(
        beta=1.0, lam=0.0, group_size=2, time_law=at(0.01, 0.02)
    )
    x0 = jnp.asarray([[[10.0, 10.0], [-10.0, -10.0]]])
    batch = Batch(x0, jnp.zeros(1, jnp.int32))
    loss = evaluate(objective, jax.random.key(0), constant(0.0), still(), (), batch)[0]
    np.testing.assert_allclose(loss, 20 * np.sqrt(2), rtol=0.02)


@pytest.mark.parametrize(
    "objective", [SelfConsistency(), ConditionalMarginalConsistency(group_size=3)]
)
def test_one_step_objectives_send_no_gradient_to_the_denoiser(objective):
    denoiser, params = mixture(FLOW)
    shape = (2, 3) if objective.group_size is None else (2, 3, 3)
    batch = Batch(jnp.ones(shape), jnp.asarray([0, 1]))

    def loss(params):
        return objective(jax.random.key(0), constant(1.0), denoiser, params, batch)[0]

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params)):
        np.testing.assert_array_equal(leaf, 0.0)


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


GRID = {"times": (1.0, 0.5, 0.0)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelfConsistency(beta=0.0), "expected 0 < beta <= 2, got 0.0"),
        (lambda: SelfConsistency(beta=2.5), "expected 0 < beta <= 2, got 2.5"),
        (lambda: SelfConsistency(lam=1.5), "expected 0 <= lam <= 1, got 1.5"),
        (lambda: SelfConsistency(num_particles=1), "expected at least 2 particles, got 1"),
        (lambda: objectives.l2(num_particles=0), "expected at least 1 particles, got 0"),
        (lambda: SelfConsistency(churn=1.1), r"expected churn in \[0, 1\], got 1.1"),
        (lambda: ConditionalMarginalConsistency(group_size=1), "expected at least 2 .*, got 1"),
        (lambda: MarginalConsistency(num_particles=1, lam=0.0), "at least 2 particles, got 1"),
        (lambda: Trajectory(num_targets=1, **GRID), "expected at least 2 particles, got 1"),
        (lambda: Trajectory(churn=-0.5, **GRID), r"expected churn in \[0, 1\], got -0.5"),
        (
            lambda: Trajectory(more_times=((0.9, 0.0),), **GRID),
            r"expected grids from 1.0 to 0.0, got \(\(0.9, 0.0\),\)",
        ),
        (lambda: Trajectory(marginal_weight=-1.0, **GRID), "expected marginal_weight >= 0, got -1"),
    ],
)
def test_objectives_refuse_settings_outside_their_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_marginal_consistency_refuses_a_batch_that_it_cannot_divide():
    batch = Batch(jnp.zeros((6, 3)), jnp.zeros(6, jnp.int32))
    with pytest.raises(ValueError, match="expected a batch divisible by num_particles = 4, got 6"):
        MarginalConsistency(num_particles=4)(
            jax.random.key(0), constant(0.0), *mixture(FLOW), batch
        )


@pytest.mark.parametrize(("start", "expected"), [("noise", 5), ("data", 8)])
def test_trajectory_refuses_groups_of_another_size(start, expected):
    objective = Trajectory(start=start, num_particles=3, num_targets=5, **GRID)
    assert objective.group_size == expected
    batch = Batch(jnp.zeros((2, 6, 3)), jnp.zeros(2, jnp.int32))
    with pytest.raises(ValueError, match=f"expected groups of {expected}, got 6"):
        objective(jax.random.key(0), constant(0.0), *mixture(FLOW), batch)
