"""Weights chosen along the sampler's path: known remedies, and what does not fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd import discrepancy
from lgd.denoisers import GaussianMixture, from_function
from lgd.direct import PathSettings, curves, path_guidance
from lgd.machinery.failures import NonFiniteError

pytestmark = pytest.mark.usefixtures("quick_compilation")
FLOW = lgd.schedules.rectified_flow()
EXACT = GaussianMixture((0, 1), FLOW)
MIXTURE = EXACT.params(jnp.asarray([[1.0, 0.0], [-1.0, 0.0]]), 1.0)
RNG = np.random.default_rng(0)
LABELS = (np.arange(1200) % 2).astype(np.int32)
X0 = np.asarray(EXACT.draw(jax.random.key(0), MIXTURE, jnp.asarray(LABELS)))
NULL = EXACT.num_classes
TIMES = tuple(np.linspace(1.0, 0.0, 17).tolist())
EARLY = slice(0, 7)  # steps before those whose size the weights make up for


@functools.cache
def planted(*strength):
    """cond - strength (cond - uncond), by label: mixing by strength / (1 - strength) mends it."""
    of_label = np.asarray([*strength, 0.0], np.float32)

    def weak(params, x, t, c):
        cond, uncond = (
            EXACT.apply(params, x, t=t, c=label) for label in (c, jnp.full_like(c, NULL))
        )
        return cond - jnp.asarray(of_label)[c][:, None] * (cond - uncond)

    return from_function(weak, schedule=FLOW, kind="x0", null=NULL)


def quick(**changes):
    settings = {"times": TIMES, "num_particles": 400, "num_sweeps": 2}
    return PathSettings(**settings | {"progress": False, "check": False} | changes)


def found(denoiser, x0=X0, c=LABELS, *, stratum=None, key=0, **changes):
    return path_guidance(
        jax.random.key(key), denoiser, MIXTURE, x0, c, stratum=stratum, settings=quick(**changes)
    )


def test_a_planted_defect_is_mended_label_by_label():
    """omega = d / (1 - d) at every step: 1 where d = 1/2, and 0 where nothing is wrong.

    Later steps are too large: x0_hat in place of a draw of x0 loses variance, and so guide less.
    """
    guidance = found(planted(0.5, 0.0))
    values = np.asarray(guidance.params["values"])[:, EARLY]
    np.testing.assert_allclose(values[0], 1.0, atol=0.12)
    np.testing.assert_allclose(values[1], 0.0, atol=0.12)
    before, *_, after = guidance.history["distance"]
    assert after < before


@pytest.mark.slow
def test_weights_below_0_are_found_where_they_are_let():
    """A conditional half that goes too far: d = -1 asks for omega = -1/2."""
    values = found(planted(-1.0, -1.0), omega_min=-1.0).params["values"]
    np.testing.assert_allclose(values[:, EARLY], -0.5, atol=0.12)
    assert float(jnp.max(found(planted(-1.0, -1.0)).params["values"])) < 0.05


@pytest.mark.slow
def test_features_of_the_data_themselves_change_nothing_at_the_last_step():
    plain = found(planted(0.5, 0.0), times=(1.0, 0.0))
    featured = found(planted(0.5, 0.0), times=(1.0, 0.0), features=lambda x: x)
    np.testing.assert_allclose(featured.params["values"], plain.params["values"], atol=0.02)


@pytest.mark.slow
def test_features_of_estimates_find_the_remedy_too():
    values = found(planted(0.5, 0.5), features=lambda x: 2.0 * x).params["values"]
    np.testing.assert_allclose(values[:, EARLY], 1.0, atol=0.2)


@pytest.mark.slow
def test_other_conditions_share_a_weight_for_every_step():
    vectors = np.eye(2, dtype=np.float32)[LABELS]

    def of_vectors(params, x, t, c):
        is_null = jnp.sum(c, axis=-1) == 0.0
        label = jnp.where(is_null, NULL, jnp.argmax(c, axis=-1))
        return planted(0.5, 0.5).apply(params, x, t=t, c=label)

    denoiser = from_function(of_vectors, schedule=FLOW, kind="x0", null=jnp.zeros(2))
    guidance = found(denoiser, c=vectors, stratum=LABELS)
    assert guidance.params["values"].shape == (1, len(TIMES) - 1)
    np.testing.assert_allclose(guidance.params["values"][:, EARLY], 1.0, atol=0.12)
    alone = found(denoiser, c=vectors)  # all examples have one law
    assert alone.params["values"].shape == (1, len(TIMES) - 1)


@pytest.mark.slow
def test_strata_that_walk_one_after_another_find_the_same():
    apart = found(planted(0.5, 0.0), strata_at_once=1).params["values"]
    np.testing.assert_allclose(apart[:, 0], [1.0, 0.0], atol=0.12)


@pytest.mark.slow
def test_churn_is_taken():
    values = found(planted(0.5, 0.0), churn=1.0).params["values"]
    np.testing.assert_allclose(values[0, :4], 1.0, atol=0.4)


@pytest.mark.slow
def test_predictions_that_are_not_finite_are_named_with_their_time():
    failing = from_function(
        lambda params, x, t, c: jnp.where(t[:, None] < 0.6, jnp.nan, x), schedule=FLOW, kind="x0",
        null=NULL,
    )  # fmt: skip
    with pytest.raises(NonFiniteError, match=r"got NaN or inf at t = 0\.562"):
        found(failing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_particles": 1}, "num_particles: expected .* >= 2, got 1"),
        ({"beta": 0.0}, r"beta: expected a power in \(0, 2\], got 0"),
        ({"churn": 2.0}, "churn: expected"),
        ({"times": (0.0, 1.0)}, "times"),
        ({"omega_max": float("nan")}, "omega_max: expected"),
        ({"omega_min": -2.0}, "omega_min: expected"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        found(planted(0.0, 0.0), **changes)


def test_a_curve_is_the_distance_of_the_moved_points():
    fixed, direction, targets = (
        jnp.asarray(RNG.normal(size=(2, 7, 3)), jnp.float32) for _ in range(3)
    )
    for beta in (0.5, 1.0, 2.0):
        curve = curves.along(fixed, direction, targets, beta=beta)
        for w in (-0.7, 0.0, 2.5):
            weights = jnp.asarray([w, 0.5 * w])
            moved = fixed + weights[:, None, None] * direction
            expected = curves.between(moved, targets, beta=beta)
            np.testing.assert_allclose(curve(weights), expected, rtol=1e-4)
            for k in range(2):
                cross = discrepancy.squared_distances(moved[k], targets[k]) ** (0.5 * beta)
                within = discrepancy.squared_distances(moved[k], moved[k]) ** (0.5 * beta)
                means = [float(discrepancy.off_diagonal_mean(a)) for a in (cross, within)]
                assert float(expected[k]) == pytest.approx(means[0] - 0.5 * means[1], rel=1e-4)


@pytest.mark.parametrize(("at", "least"), [(0.37, 0.37), (-3.0, -1.0), (9.0, 4.0), (4.0, 4.0)])
def test_the_least_value_of_a_parabola_is_found_within_the_range(at, least):
    weights = jnp.asarray([-1.0, 0.0, 0.5, 2.0, 4.0])
    got = curves.least(lambda w: (w - at) ** 2, weights, 3)
    np.testing.assert_allclose(got, least, atol=1e-5)


@pytest.mark.slow
def test_what_is_found_is_printed_saved_and_learned_on_from(tmp_path):
    guidance = found(planted(0.5, 0.0))
    assert "path" in str(guidance)
    lgd.save(guidance, tmp_path / "path.safetensors")
    again = lgd.load(tmp_path / "path.safetensors")
    assert again.description == guidance.description
    learned = lgd.learn_guidance(
        jax.random.key(0), planted(0.5, 0.0), MIXTURE, X0, LABELS, start=again,
        objective=lgd.objectives.Trajectory(times=TIMES, num_particles=4, num_targets=4),
        trainer=lgd.training.Trainer(
            optimizer=lgd.training.Optimizer(num_steps=1, learning_rate=1e-6), progress=False,
            check=False),
    )  # fmt: skip
    np.testing.assert_allclose(learned.params["values"], guidance.params["values"], atol=1e-4)
