"""Exact laws of guided Gaussians: what a rule and its sampler must end in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import sampling, schedules
from tests.rule_answers import gaussians

pytestmark = pytest.mark.usefixtures("quick_compilation")
FLOW = schedules.rectified_flow()
EXPLODING = schedules.EDM(sigma_min=0.0005, sigma_max=200.0)
LABEL = jnp.zeros(1, jnp.int32)


def signed(*, s, t, c):
    """Weights of both signs, at the middle of a step, which keep the variance below."""
    u = 1.0 - 0.5 * (s + t)
    return 0.9 - 1.7 * u + 0.4 * jnp.sin(7.0 * u)


def final_variance(weight, cond, uncond, num_steps):
    """Of a deterministic walk of rectified flow from variance 1, which is linear in its start."""
    walk = {"guidance": weight, "times": schedules.uniform_times(num_steps), "solver": "heun"}
    denoiser = gaussians(FLOW, [cond], [uncond])
    end = sampling.unroll(jax.random.key(0), denoiser, None, LABEL, jnp.ones((1, 1)), **walk)
    return float(end[0, 0]) ** 2


@pytest.mark.parametrize(
    ("weight", "cond", "uncond", "expected"),
    [(signed, 0.6, 1.7, 0.59998), (1.5, 0.6, 1.7, 0.6 * (0.6 / 1.7) ** 1.5)],
    ids=["signed", "constant"],
)
def test_the_variance_of_a_guided_gaussian(weight, cond, uncond, expected):
    """``c exp(2 int omega [c / (c + tau^2) - v / (v + tau^2)] dtau / tau)``; c (c / v)^omega."""
    np.testing.assert_allclose(final_variance(weight, cond, uncond, 400), expected, rtol=1e-3)


@functools.cache
def ends(num_steps, churn, count):
    """Samples of N(0, 1) against N(0, 2) at a CFG scale of 3, from sigma 200 to 0.001."""
    times = EXPLODING.t_from_logsnr(-2.0 * jnp.log(jnp.geomspace(200.0, 1e-3, num_steps + 1)))
    walk = {"guidance": 2.0, "times": times.at[0].set(1.0), "churn": churn}
    c = jnp.zeros(count, jnp.int32)
    key, start = jax.random.split(jax.random.key(0))
    x_t = 200.0 * (jax.random.normal(start, (count, 1)) if churn else jnp.ones((count, 1)))
    return sampling.unroll(key, gaussians(EXPLODING, [1.0], [2.0]), None, c, x_t, **walk)


@pytest.mark.parametrize(("num_steps", "expected"), [(100, 0.2283), (400, 0.2444), (1600, 0.2486)])
def test_deterministic_guidance_narrows_to_2_to_the_1_minus_w(num_steps, expected):
    """To 0.25 for small steps, where the tilted law has 0.5 (arXiv 2408.09000)."""
    found = ends(num_steps, 0.0, 1)[0, 0] ** 2  # of a start of one deviation
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(
    ("num_steps", "expected"), [(100, 0.3352), pytest.param(400, 0.3736, marks=pytest.mark.slow)]
)
def test_guidance_of_churn_1_narrows_less(num_steps, expected):
    """To (2 - 2^(2 - 2 w)) / (2 w - 1) = 0.3875 for small steps (arXiv 2408.09000)."""
    found = np.var(ends(num_steps, 1.0, 20_000))
    np.testing.assert_allclose(found, expected, rtol=0.03)
