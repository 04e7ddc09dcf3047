"""Shared by the tests of objectives: mixtures, laws of times, omega functions, a compiled call."""

import jax
import jax.numpy as jnp

from lgd import schedules
from lgd.denoisers import GaussianMixture, from_function
from lgd.objectives import TimeLaw

COSINE, FLOW = schedules.cosine(), schedules.rectified_flow()


def mixture(schedule):
    """Two classes of three points in the space, and the parameters of an exact denoiser."""
    model = GaussianMixture((0, 0, 1), schedule)
    means = jnp.asarray([[1.0, 0.2, 0.1], [-0.8, 0.9, 0.0], [0.1, -1.2, 0.4]])
    return model, model.params(means, jnp.asarray([0.1, 0.05, 0.15]))


def two_points(schedule, variance=0.0):
    """A class at 1 and one at -1."""
    model = GaussianMixture((0, 1), schedule)
    return model, model.params(jnp.asarray([[1.0, 0.0], [-1.0, 0.0]]), variance)


def identity(params, x, t, c):
    return x


def still(schedule=FLOW):
    """A denoiser that returns its input: from t near 0, steps hardly move."""
    return from_function(identity, schedule=schedule, kind="x0", null=2)


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
