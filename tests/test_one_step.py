"""One-step objectives: a matrix against explicit particles in float64, optima, refusals."""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import objectives, training
from lgd.data.dataset import labelled
from lgd.denoisers import Directions, from_function
from lgd.diffusion import predictions
from lgd.learn import omega_loss
from lgd.machinery import parallel
from lgd.objectives import (
    ConditionalMarginalConsistency,
    GuidedScoreMatching,
    MarginalConsistency,
    SelfConsistency,
    TimeLaw,
)
from lgd.omega import BinTable
from lgd.types import Batch
from tests.objective_cases import (
    FLOW,
    at,
    constant,
    evaluate,
    mixture,
    per_class,
    still,
    two_points,
)
from tests.two_points import l2_optimum

pytestmark = pytest.mark.usefixtures("quick_compilation")
draw_rows = jax.jit(objectives.draw_rows, static_argnums=1)
predict = jax.jit(predictions, static_argnums=0)
sample_times = jax.jit(TimeLaw.sample, static_argnums=(0, 2))

ENERGIES = tuple(itertools.product((0.5, 1.0, 1.75, 2.0), (0.0, 0.5, 1.0)))  # beta, lam
CHURNS = (0.0, 0.5, 1.0)


class Particles(NamedTuple):
    """Everything that a group of particles is made of, in float64: (g, m, d) and (g,)."""

    x0: np.ndarray
    cond: np.ndarray
    others: np.ndarray  # (k, g, m, d): what each direction leads away from
    eps: np.ndarray
    z: np.ndarray
    eps_target: np.ndarray
    alpha_s: np.ndarray
    sigma_s: np.ndarray
    alpha_t: np.ndarray
    sigma_t: np.ndarray

    def x0_hat(self, omega):
        """The guided predictions at weights (g, m, k)."""
        deltas = self.cond - self.others
        return self.cond + np.einsum("gmk,kgmd->gmd", omega, deltas)

    def proposals(self, omega, churn):
        """The kernel of the paper's Eq. 23, from t to s."""
        a_s, s_s, a_t, s_t = (v[:, None, None] for v in self[-4:])
        k = churn**2 * a_t * s_s / (a_s * s_t) + 1 - churn**2
        x_t = a_t * self.x0 + s_t * self.eps
        x0_hat, spread = self.x0_hat(omega), s_s * np.sqrt(1 - k**2)
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
        """Central differences of the sum over groups, of one direction; (g, m)."""
        slopes, h = np.zeros(omega.shape[:2]), 1e-6
        for j in range(omega.shape[1]):
            step = np.zeros_like(omega)
            step[:, j] = h
            ahead, behind = (self.loss(omega + d, **settings) for d in (step, -step))
            slopes[:, j] = (ahead - behind) / (2 * h)
        return slopes


def particles_of(rows, x0, denoiser, params, member_c, *, s, t):
    """Particles with the noises of the rows; the denoiser is called anew, on states built anew."""
    g, m, d = x0.shape
    x0, eps, z, eps_target = (np.asarray(a, np.float64) for a in (x0, rows.eps, rows.z, rows[5]))
    schedule = denoiser.schedule
    levels = [schedule.alpha(s), schedule.sigma(s), schedule.alpha(t), schedule.sigma(t)]
    levels = [np.asarray(level, np.float64) for level in levels]
    x_t = levels[2][:, None, None] * x0 + levels[3][:, None, None] * eps
    flat, member_t = jnp.asarray(x_t.reshape(g * m, d), jnp.float32), jnp.repeat(t, m)
    cond, others = predict(denoiser, params, flat, t=member_t, c=member_c)
    cond, *others = (np.asarray(a, np.float64).reshape(g, m, d) for a in (cond, *others))
    return Particles(x0, cond, np.stack(others), eps, z, eps_target, *levels)


def grouped(objective, batch):
    """x0 (g, m, d), and the condition of every member, leaves (g m, ...)."""
    m, members = objective.num_members, objective.members[0]
    if members == "copies":
        x0 = jnp.repeat(batch.x0[:, None], m, axis=1)
        return x0, jax.tree.map(lambda leaf: jnp.repeat(leaf, m, axis=0), batch.c)
    if members == "mixed":
        return batch.x0.reshape(-1, m, batch.x0.shape[-1]), batch.c
    return batch.x0, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch.c)


def one_step_particles(objective, key, denoiser, params, batch):
    """The particles behind one call of a one-step objective, with its own draws."""
    x0, member_c = grouped(objective, batch)
    time_key, rows_key = jax.random.split(key)
    s, t = sample_times(objective.time_law, time_key, len(x0))
    rows, _ = draw_rows(rows_key, denoiser, params, x0, member_c, t=t)
    return particles_of(rows, x0, denoiser, params, member_c, s=s, t=t), member_c, s, t


# The Gram form


def pairs(coupling, lam):
    return SelfConsistency(coupling=coupling, lam=lam).pairs


@pytest.mark.slow
@pytest.mark.parametrize(("m", "coupling"), [(2, "shared"), (4, "independent")])
def test_gram_loss_and_gradient_equal_those_of_explicit_particles(m, coupling):
    """All beta and lam, which are traced, so that one program serves them."""
    denoiser, params = mixture(FLOW)
    s, t = jnp.asarray([0.1, 0.4, 0.02]), jnp.asarray([0.3, 0.97, 0.75])
    c, x0 = jnp.repeat(jnp.asarray([0, 1, 0]), m), jax.random.normal(jax.random.key(0), (3, m, 3))
    rows, _ = draw_rows(jax.random.key(1), denoiser, params, x0, c, t=t)
    omega = jax.random.uniform(jax.random.key(2), (9, m), minval=-0.5, maxval=2.0)

    @functools.partial(jax.jit, static_argnums=3)
    @functools.partial(jax.vmap, in_axes=(None, 0, 0, None))
    @functools.partial(jax.grad, has_aux=True)
    def of_setting(omega, beta, lam, met):
        step = {"s": s, "t": t, "schedule": FLOW, "coupling": coupling}
        each = [objectives.step_forms(rows, churn=churn, **step) for churn in CHURNS]
        forms = jax.tree.map(lambda *blocks: jnp.concatenate(blocks), *each)
        value = objectives.gram_loss(forms, omega[:, :, None], beta=beta, lam=lam, pairs=met)
        return jnp.sum(value), value

    particles = particles_of(rows, x0, denoiser, params, c, s=s, t=t)
    weights = np.split(np.asarray(omega, np.float64)[:, :, None], 3)
    for met in {pairs(coupling, lam) for _, lam in ENERGIES}:
        energies = [(beta, lam) for beta, lam in ENERGIES if pairs(coupling, lam) == met]
        found = of_setting(omega, *jnp.asarray(energies).T, met)
        for (beta, lam), gradient, value in zip(energies, *found, strict=True):
            settings = {"beta": beta, "lam": lam, "coupling": coupling, "pairs": met}
            for i, churn in enumerate(CHURNS):
                group, settings["churn"] = slice(3 * i, 3 * i + 3), churn
                expected = particles.loss(weights[i], **settings)
                np.testing.assert_allclose(value[group], expected, rtol=2e-5, atol=2e-5)
                expected = particles.gradient(weights[i], **settings)
                near = 1e-4 * np.abs(gradient).max()
                np.testing.assert_allclose(gradient[group], expected, rtol=0.0, atol=near)


# The matrix of objectives


def energy_loss(objective, particles, omega):
    names = ("beta", "lam", "churn", "coupling", "pairs")
    settings = {name: getattr(objective, name) for name in names}
    return particles.loss(omega, **settings).mean()


def squared_error(objective, particles, omega):
    return np.mean(np.sum((particles.x0_hat(omega) - particles.x0) ** 2, axis=-1))


MATRIX = {
    "self_consistency": (SelfConsistency(), energy_loss),
    "shared": (SelfConsistency(beta=1.0, lam=0.0, coupling="shared", churn=0.0), energy_loss),
    "l2": (objectives.l2(churn=0.7, num_particles=2), energy_loss),
    "conditional_marginal": (ConditionalMarginalConsistency(beta=1.0, group_size=4), energy_loss),
    "marginal": (MarginalConsistency(beta=1.2, lam=0.8, num_particles=4), energy_loss),
    "guided_score_matching": (GuidedScoreMatching(num_particles=2), squared_error),
}
LABELS = np.asarray([0, 1, 1, 0, 1, 0, 0, 0])


def labelled_batch(objective):
    """8 examples of two classes, in two groups of 4 where the objective takes groups."""
    x0, c = jax.random.normal(jax.random.key(0), (8, 3)), jnp.asarray(LABELS)
    if objective.group_size is None:
        return Batch(x0, c)
    return Batch(x0.reshape(2, 4, 3), c.reshape(2, 4))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", MATRIX)
def test_objectives_and_gradients_equal_those_of_explicit_particles(name):
    """A weight for each class; slopes by central differences of the particles' loss.

    The denoiser gets no gradient.
    """
    objective, reference = MATRIX[name]
    denoiser, params = mixture(FLOW)
    batch, key, values = labelled_batch(objective), jax.random.key(7), jnp.asarray([0.4, 1.5])

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True, argnums=(0, 1))
    def loss(values, params):
        return objective(key, per_class(values), denoiser, params, batch)

    (value, info), (gradient, denoiser_gradient) = loss(values, params)
    particles, member_c, *_ = one_step_particles(objective, key, denoiser, params, batch)

    def expected(values):
        omega = values[np.asarray(member_c)].reshape(*particles.x0.shape[:2], 1)
        return reference(objective, particles, omega)

    exact = np.asarray(values, np.float64)
    steps = 1e-6 * np.eye(2)
    slopes = [(expected(exact + step) - expected(exact - step)) / 2e-6 for step in steps]
    size = 1e-5 * np.linalg.norm(particles.x0, axis=-1).max()  # of the distances subtracted
    np.testing.assert_allclose(value, expected(exact), rtol=0.0, atol=size)
    near = 1e-4 * np.abs(slopes).max()
    np.testing.assert_allclose(gradient, slopes, rtol=0.0, atol=near)
    np.testing.assert_allclose(info["omega"], exact[np.asarray(member_c)].mean(), rtol=1e-6)
    assert info["distance"] == value
    for leaf in jax.tree.leaves(denoiser_gradient):
        np.testing.assert_array_equal(leaf, 0.0)


MIXTURE, PARAMS = mixture(FLOW)
BLURRED = MIXTURE.params(0.5 * PARAMS.means, jnp.asarray([0.8, 0.8, 0.8]))


def shifted(params, x, t, c):
    """The mixture's prediction for conditions that are a dict of labels and vectors."""
    return MIXTURE.apply(params, x, t=t, c=c["label"]) + c["shift"]


def no_condition(c):
    return {"label": jnp.full_like(c["label"], 2), "shift": jnp.zeros_like(c["shift"])}


SHIFTED = from_function(shifted, schedule=FLOW, kind="x0", null=no_condition)


def curious(theta):
    """Weights of two directions that look at the times, the condition and the predictions."""

    def omega(*, s, t, c, features):
        first = theta[0] + 0.3 * c["label"] + c["shift"][:, 0] + theta[1] * features[:, 2]
        return jnp.stack([first, theta[2] * t - s], axis=-1)

    return omega


def sum_and_label(x0, c):
    """A reward."""
    return jnp.sum(x0, axis=-1) * (1.0 - 3.0 * c["label"])


@pytest.mark.slow
@pytest.mark.parametrize("name", MATRIX)
def test_trees_of_conditions_features_several_directions_and_rewards_go_together(name):
    """Value, gradient and reward with all of them at once, against explicit particles."""
    plain, reference = MATRIX[name]
    objective = dataclasses.replace(plain, reward=sum_and_label, reward_weight=0.4)
    denoiser = Directions(SHIFTED, {"blurred": SHIFTED})
    params, key = (PARAMS, {"blurred": BLURRED}), jax.random.key(3)
    batch = labelled_batch(objective)
    shift = 0.2 * jax.random.normal(jax.random.key(1), (*batch.c.shape, 3))
    batch = Batch(batch.x0, {"label": batch.c, "shift": shift})

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(theta):
        return objective(key, curious(theta), denoiser, params, batch)

    theta = np.asarray([0.4, 0.1, 0.7])
    (value, info), gradient = loss(jnp.asarray(theta, jnp.float32))
    particles, member_c, s, t = one_step_particles(objective, key, denoiser, params, batch)
    shape = particles.x0.shape[:2]
    label = np.asarray(member_c["label"]).reshape(shape)
    first_shift = np.asarray(member_c["shift"], np.float64)[:, 0].reshape(shape)
    size = np.log(np.sqrt(np.mean((particles.cond - particles.others[0]) ** 2, axis=-1)))
    s, t = (np.broadcast_to(np.asarray(v, np.float64)[:, None], shape) for v in (s, t))

    def expected(theta):
        first = theta[0] + 0.3 * label + first_shift + theta[1] * size
        omega = np.stack([first, theta[2] * t - s], axis=-1)
        reward = np.mean(particles.x0_hat(omega).sum(axis=-1) * (1 - 3 * label))
        return reference(objective, particles, omega) - 0.4 * reward, reward, omega

    total, reward, omega = expected(theta)
    steps = 1e-6 * np.eye(3)
    slopes = [(expected(theta + d)[0] - expected(theta - d)[0]) / 2e-6 for d in steps]
    near = 2e-5 * (np.linalg.norm(particles.x0, axis=-1).max() + np.abs(reward))
    np.testing.assert_allclose(value, total, rtol=0.0, atol=near)
    np.testing.assert_allclose(info["reward"], reward, rtol=2e-5, atol=1e-6)
    near = 2e-4 * np.abs(slopes).max()
    np.testing.assert_allclose(gradient, slopes, rtol=0.0, atol=near)
    means = [info["omega"], info["omega blurred"]]
    np.testing.assert_allclose(means, omega.mean(axis=(0, 1)), rtol=1e-5)


@pytest.mark.parametrize("name", MATRIX)
def test_objectives_answer_for_themselves(name):
    objective, _ = MATRIX[name]
    law = objective.time_law
    assert isinstance(objective, objectives.Objective)
    assert objective.support == law.support
    assert objective.times == ()
    assert objective.num_members > 1
    assert set(objective.members) <= {"copies", "condition", "mixed"}
    assert objective.members
    split = labelled(np.zeros((4, 3), np.float32), np.zeros(4, np.int32))
    assert objective.prepared(split, 100) == (objective, split)
    model = objective.default_model(FLOW, jnp.asarray([0, 1]))
    assert model.support == law.support
    params = model.init(jax.random.key(0), jnp.asarray([0]))
    assert model.apply(
        params,
        s=law.sample_s(jax.random.key(0), jnp.full(2, 0.5)),
        t=jnp.full(2, 0.5),
        c=jnp.asarray([0, 1]),
    ).shape == (2,)
    vectors = objective.default_model(FLOW, jnp.zeros((2, 5)))
    assert vectors.init(jax.random.key(0), jnp.zeros((1, 5)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", MATRIX)
def test_settings_of_an_energy_are_no_part_of_the_frame(name):
    """Losses of the frame at given settings are those of the objective that has them."""
    objective, _ = MATRIX[name]
    denoiser, params = mixture(FLOW)
    x0, member_c = grouped(objective, labelled_batch(objective))
    t, s = jnp.full(len(x0), 0.6), jnp.full(len(x0), 0.2)
    rows, _ = draw_rows(jax.random.key(0), denoiser, params, x0, member_c, t=t)

    @functools.partial(jax.jit, static_argnums=0)
    def losses(objective, beta, lam, churn):
        forms = objective.forms(rows, s=s, t=t, schedule=FLOW, churn=churn)
        omega = jnp.full((*x0.shape[:2], 1), 0.7)
        return objective.losses(forms, omega, beta=beta, lam=lam)

    ours, framed = (losses(each, *objective.energy) for each in (objective, objective.frame))
    np.testing.assert_array_equal(ours, framed)
    assert objective.frame.frame == objective.frame


def test_objectives_of_one_program_have_one_frame():
    frames = {
        SelfConsistency(coupling=coupling, beta=beta, lam=lam, churn=churn).frame
        for beta, churn in ((1.0, 0.0), (2.0, 0.5))
        for coupling, lam in (("independent", 0.0), ("independent", 1.0), ("shared", 1.0))
    }
    assert len(frames) == 2  # one of either coupling
    assert SelfConsistency(coupling="shared", lam=0.0).frame not in frames
    assert objectives.l2().frame in frames


# Relations


@pytest.mark.slow
def test_marginal_consistency_of_one_condition_is_the_conditional_one():
    denoiser, params = mixture(FLOW)
    x0, c = jax.random.normal(jax.random.key(0), (2, 5, 3)), jnp.repeat(jnp.asarray([1, 0]), 5)
    settings, key = {"beta": 1.2, "lam": 0.8, "churn": 0.4}, jax.random.key(2)
    conditional = ConditionalMarginalConsistency(group_size=5, **settings)
    pooled = MarginalConsistency(num_particles=5, **settings)
    batches = (Batch(x0, c.reshape(2, 5)), Batch(x0.reshape(10, 3), c))
    omega_fn = per_class(jnp.asarray([0.3, 1.1]))
    losses = [
        evaluate(objective, key, omega_fn, denoiser, params, batch)[0]
        for objective, batch in zip((conditional, pooled), batches, strict=True)
    ]
    np.testing.assert_array_equal(*losses)


@pytest.mark.slow
def test_omega_of_one_direction_guides_along_the_first_of_several():
    """As the denoiser alone, whatever the weaker one is."""
    params = (PARAMS, {"blurred": BLURRED})
    objective, key = SelfConsistency(), jax.random.key(2)
    batch, omega_fn = labelled_batch(objective), per_class(jnp.asarray([0.3, 1.1]))
    alone, _ = evaluate(objective, key, omega_fn, MIXTURE, PARAMS, batch)
    denoiser = Directions(MIXTURE, {"blurred": MIXTURE})
    several, info = evaluate(objective, key, omega_fn, denoiser, params, batch)
    near = 1e-5 * np.abs(batch.x0).max()
    np.testing.assert_allclose(several, alone, rtol=0.0, atol=near)
    assert info["omega blurred"] == 0.0
    with pytest.raises(ValueError, match=r"directions: expected 1 or 1 values of omega, got 2"):
        evaluate(objective, key, lambda *, s, t, c: jnp.zeros((len(t), 2)), MIXTURE, PARAMS, batch)


# Optima


def parabola_minimum(behind, here, ahead, *, step):
    return -step * (ahead - behind) / (2 * (ahead + behind - 2 * here))


def test_l2_minimiser_equals_its_closed_form():
    denoiser, params = mixture(FLOW)
    objective = objectives.l2(churn=0.7)
    batch = Batch(jax.random.normal(jax.random.key(0), (3, 3)), jnp.asarray([0, 1, 1]))
    key = jax.random.key(3)
    loss = jax.jit(lambda w: objective(key, constant(w), denoiser, params, batch)[0])
    measured = parabola_minimum(*(np.float64(loss(w)) for w in (-4.0, 0.0, 4.0)), step=4.0)
    particles, *_ = one_step_particles(objective, key, denoiser, params, batch)
    still = particles.proposals(np.zeros((3, 4, 1)), objective.churn)
    moved = particles.proposals(np.ones((3, 4, 1)), objective.churn) - still  # a Delta
    error = still[:, :, None] - particles.targets("independent")[:, None]
    expected = -np.einsum("gjd,gjkd->", moved, error) / (4 * np.sum(moved**2))
    np.testing.assert_allclose(measured, expected, rtol=0.0, atol=1e-4)  # of steps of 4


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("coupling", "churn"), [("independent", 0.0), ("independent", 1.0), ("shared", 1.0)]
)
def test_l2_over_guides_with_independent_noise_as_its_closed_form_says(coupling, churn):
    """Two points at -1 and 1: ``omega = -sigma_s (k - [shared]) / a E[Delta eps] / E[Delta^2]``."""
    s, t = 0.3, 0.6
    denoiser, params = two_points(FLOW)
    batch = Batch(jnp.broadcast_to(params.means[0], (4096, 2)), jnp.zeros(4096, jnp.int32))
    objective = objectives.l2(num_particles=2, churn=churn, coupling=coupling, time_law=at(s, t))

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


@pytest.mark.slow
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
        batches=lambda step: batch,
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=200, learning_rate=0.05, ema_decay=0.9),
            mesh=parallel.make_mesh(1),
        ),
        frozen=params,
        project=model.project,
    )
    assert np.all(state.ema["values"] >= 0.0)
    assert np.mean(state.ema["values"]) < 0.1


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
    batch = Batch(x0, jnp.zeros((1, 2), jnp.int32))
    loss = evaluate(objective, jax.random.key(0), constant(0.0), still(), (), batch)[0]
    np.testing.assert_allclose(loss, 20 * np.sqrt(2), rtol=0.02)


def test_descending_the_loss_raises_the_reward():
    denoiser, params = mixture(FLOW)
    objective = SelfConsistency(
        reward=lambda x0, c: jnp.sum(x0, axis=-1) * (1.0 - 3.0 * c), reward_weight=50.0
    )
    batch = labelled_batch(objective)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(values):
        return objective(jax.random.key(1), per_class(values), denoiser, params, batch)

    values = jnp.asarray([0.5, 0.5])
    (_, info), gradient = loss(values)
    after = loss(values - 1e-3 * gradient)[0][1]
    assert after["reward"] > info["reward"] + 1e-3


# Refusals


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
    ],
)
def test_objectives_refuse_settings_outside_their_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("objective", "batch", "message"),
    [
        (
            MarginalConsistency(num_particles=4),
            Batch(jnp.zeros((6, 3)), jnp.zeros(6, jnp.int32)),
            "expected a batch divisible by num_particles = 4, got 6",
        ),
        (
            ConditionalMarginalConsistency(group_size=4),
            Batch(jnp.zeros((2, 6, 3)), jnp.zeros((2, 6), jnp.int32)),
            "expected groups of 4, got 6",
        ),
    ],
)
def test_objectives_refuse_batches_that_they_cannot_divide(objective, batch, message):
    with pytest.raises(ValueError, match=message):
        objective(jax.random.key(0), constant(0.0), *mixture(FLOW), batch)
