"""Denoisers with a planted defect: where it is, and which objectives find its repair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd.denoisers import GaussianMixture, Planted
from lgd.diffusion import denoise_pair
from lgd.direct import PathSettings
from lgd.guidance.mixing import mix

pytestmark = pytest.mark.usefixtures("quick_compilation")
FLOW = lgd.schedules.rectified_flow()
EXACT = GaussianMixture((0, 0, 1, 1), FLOW)
PARAMS = EXACT.params(
    jnp.array([[1.5, 0.5, 0.0], [0.3, 1.4, 0.0], [-1.0, -0.2, 0.0], [0.2, -1.3, 0.0]]),
    jnp.array([[0.15, 0.15, 0.001], [0.3, 0.3, 0.001], [0.2, 0.2, 0.001], [0.1, 0.1, 0.001]]),
)
LABELS = np.arange(1200) % 2
X0 = np.asarray(EXACT.draw(jax.random.key(0), PARAMS, jnp.asarray(LABELS)))
TIMES = tuple(np.linspace(1.0, 0.0, 26).tolist())


def halves(planted, t):
    x = jax.random.normal(jax.random.key(1), (64, 3))
    c, at = jnp.arange(64) % 2, jnp.full(64, t)
    exact = denoise_pair(EXACT, PARAMS, x, t=at, c=c)
    return x, exact, denoise_pair(planted, PARAMS, x, t=at, c=c)


@pytest.mark.parametrize("delta", [0.25])
def test_the_best_weight_repairs_a_defect_along_delta_exactly(delta):
    planted = Planted(denoiser=EXACT, delta=delta)
    _, (exact, uncond), (cond, kept) = halves(planted, 0.6)
    np.testing.assert_array_equal(kept, uncond)
    mended = mix(cond, kept, jnp.full(64, planted.best_omega(0.6)))
    np.testing.assert_allclose(mended, exact, atol=1e-5)


def test_a_defect_across_delta_is_orthogonal_to_it_and_leaves_it():
    _, (exact, uncond), (cond, other) = halves(
        Planted(denoiser=EXACT, delta=0.5, kind="across"), 0.6
    )
    np.testing.assert_allclose(cond - other, exact - uncond, atol=1e-5)
    error, delta = np.asarray(cond - exact), np.asarray(exact - uncond)
    np.testing.assert_allclose(np.sum(error * delta, axis=1), 0.0, atol=1e-5)
    lengths = [np.linalg.norm(each[:, :2], axis=1) for each in (error, delta)]
    np.testing.assert_allclose(lengths[0], 0.5 * lengths[1], atol=1e-5)


def share_changed(planted, x_t, t):
    """The share of points at which the conditional half is not that of the exact model."""
    at, c = jnp.full(len(x_t), t), jnp.asarray(LABELS)
    exact, cond = (each.apply(PARAMS, x_t, t=at, c=c) for each in (EXACT, planted))
    return float(np.mean(np.abs(np.asarray(exact - cond)).max(axis=1) > 1e-6))


@pytest.mark.slow
def test_real_data_do_not_show_a_defect_of_the_path_and_the_sampler_does():
    planted = Planted(denoiser=EXACT, delta=0.5, kind="path")
    noise = jax.random.normal(jax.random.key(2), X0.shape)
    for t in (0.1, 0.3, 0.45):
        assert share_changed(planted, (1.0 - t) * X0 + t * noise, t) < 0.01
    key, c = jax.random.key(2), jnp.asarray(LABELS)
    x_t = lgd.sampling.unroll(key, planted, PARAMS, c, noise, guidance=0.0, times=TIMES[:16])
    assert share_changed(planted, x_t, TIMES[15]) > 0.9
    assert (planted.best_omega(0.7), planted.best_omega(0.3)) == (0.0, 1.0)


def found(planted, **changes):
    """Weights of the steps from 1 to .4, mean over labels and neighbours."""
    settings = {"times": TIMES, "num_particles": 400, "num_sweeps": 3, "residuals": True}
    settings |= {"omega_min": -0.95, "omega_max": 4.0, "progress": False, "check": False}
    learned = lgd.path_guidance(
        jax.random.key(3), planted, PARAMS, X0, LABELS, settings=PathSettings(**settings | changes)
    )
    weights = np.asarray(learned.params["values"]).mean(axis=0)[:15]
    return weights.reshape(5, 3).mean(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("delta", [0.5, 0.0])
def test_the_path_finds_the_repair(delta):
    """Within .05 at every time from 1 to .4: on the path of the sampler, without gradients."""
    planted = Planted(denoiser=EXACT, delta=delta)
    np.testing.assert_allclose(found(planted), planted.best_omega(1.0), atol=0.05)


@pytest.mark.slow
def test_the_path_leaves_what_no_weight_mends():
    np.testing.assert_allclose(
        found(Planted(denoiser=EXACT, delta=0.5, kind="across")), 0.0, atol=0.1
    )


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["own", "data"])
def test_moments_find_the_repair_on_the_path_and_on_data(policy):
    weights = found(Planted(denoiser=EXACT, delta=0.5), match="moments", policy=policy)
    np.testing.assert_allclose(weights, 1.0, atol=0.1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"delta": 1.0}, "delta: expected a number in"),
        ({"until": 0.0}, "until: expected a time in"),
    ],
)
def test_defects_out_of_range_are_named(changes, expected):
    with pytest.raises(ValueError, match=expected):
        Planted(**{"denoiser": EXACT, "delta": 0.5} | changes)
