import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from lgd import gram, objectives, schedules, training
from lgd.denoisers import GaussianMixture, from_function
from lgd.diffusion import denoise_pair, noised
from lgd.learn import omega_loss
from lgd.objectives import (
    ConditionalMarginalConsistency,
    GuidedScoreMatching,
    SelfConsistency,
    TimeLaw,
    Trajectory,
)
from lgd.omega import BinTable
from lgd.types import Batch

COSINE, FLOW = schedules.cosine(), schedules.rectified_flow()
BETAS, LAMS, CHURNS = (0.5, 1.0, 1.75, 2.0), (0.0, 0.5, 1.0), (0.0, 0.5, 1.0)


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
    pair = denoise_pair(denoiser, params, flat, t=member_t, c=member_c)
    cond, uncond = (np.asarray(a, np.float64).reshape(g, m, d) for a in pair)
    return Particles(x0, cond, uncond, eps, z, eps_target, *levels)


def gram_losses(m, coupling):
    """For each setting of beta and lam: losses (9,) and gradients (9, m), by churn x group."""

    def losses(omega, matrix, s, t, beta, lam):
        step = {"s": s, "t": t, "schedule": COSINE, "coupling": coupling}
        blocks = [
            objectives.particle_coefficients(weights, churn=churn, **step)
            for weights, churn in zip(jnp.split(omega, 3), CHURNS, strict=True)
        ]
        proposal, target = (jnp.concatenate(b) for b in zip(*blocks, strict=True))
        matrix = jnp.concatenate([matrix] * 3)
        value = objectives.gram_loss(
            matrix, proposal, target, beta=beta, lam=lam, pairs=pairs(coupling, lam)
        )
        return jnp.sum(value), value

    def values_and_gradients(*arguments):
        differentiated = jax.value_and_grad(losses, has_aux=True)
        found = [differentiated(*arguments, beta, lam) for beta, lam in settings_for(m)]
        return [(value, gradient) for (_, value), gradient in found]

    return jax.jit(values_and_gradients)


def settings_for(m):
    return [(beta, lam) for beta in BETAS for lam in LAMS if m > 1 or lam == 0.0]


def pairs(coupling, lam):
    return SelfConsistency(coupling=coupling, lam=lam).pairs


@pytest.mark.parametrize(
    ("m", "coupling"), [(1, "shared"), (2, "shared"), (2, "independent"), (4, "independent")]
)
def test_gram_loss_and_gradient_equal_those_of_explicit_particles(m, coupling):
    denoiser, params = mixture(COSINE)
    s, t = jnp.asarray([0.1, 0.4, 0.02]), jnp.asarray([0.3, 0.97, 0.75])
    c, x0 = jnp.repeat(jnp.asarray([0, 1, 0]), m), jax.random.normal(jax.random.key(0), (3, m, 3))
    rows = objectives.draw_rows(jax.random.key(1), denoiser, params, x0, c, t=t)
    matrix = gram.gram_matrix(jnp.concatenate(rows, axis=1))
    omega = jax.random.uniform(jax.random.key(2), (9, m), minval=-0.5, maxval=2.0)
    found = gram_losses(m, coupling)(omega, matrix, s, t)
    particles = particles_of(rows, x0, denoiser, params, c, s=s, t=t)
    weights = np.split(np.asarray(omega, np.float64), 3)
    for (beta, lam), (value, gradient) in zip(settings_for(m), found, strict=True):
        settings = {"beta": beta, "lam": lam, "coupling": coupling, "pairs": pairs(coupling, lam)}
        for i, churn in enumerate(CHURNS):
            group, settings["churn"] = slice(3 * i, 3 * i + 3), churn
            expected = particles.loss(weights[i], **settings)
            np.testing.assert_allclose(value[group], expected, rtol=2e-5, atol=2e-5)
            expected = particles.gradient(weights[i], **settings)
            np.testing.assert_allclose(gradient[group], expected, rtol=1e-4, atol=1e-5)
