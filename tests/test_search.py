"""Weights found by samples and a distance alone, where the best ones are known."""

import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd import guidance, omega
from lgd.direct import SearchSettings, search_guidance
from lgd.machinery.failures import NonFiniteError

STRATA, STEPS = 3, 8
TIMES = tuple(np.linspace(1.0, 0.0, STEPS + 1).tolist())
BEST = np.stack([np.linspace(0.0, 2.0, STEPS), np.full(STEPS, 0.7), np.linspace(3.0, 1.0, STEPS)])
NOISE = 0.02


class Sampler:
    """Samples whose coordinates are the weights of the steps, and noise; it counts its runs."""

    def __init__(self):
        self.seeds = []

    def __call__(self, learned, n, *, seed):
        self.seeds.append(seed)
        weights = np.asarray(learned.params["values"])  # (strata, steps)
        noise = np.random.default_rng(seed).normal(size=(STRATA, n, STEPS))
        return weights[:, None] + NOISE * noise


def squared(x, best=BEST):
    return ((x.mean(axis=1) - best) ** 2).mean(axis=1)


def quick(**changes):
    settings = {"times": TIMES, "num_samples": 4, "num_knots": 3, "num_sweeps": 5}
    return SearchSettings(**settings | {"progress": False} | changes)


def found(draw=None, distance=squared, *, num_strata=STRATA, accept=None, start=None, **changes):
    return search_guidance(
        draw or Sampler(), distance, num_strata=num_strata, accept=accept, start=start,
        settings=quick(**changes),
    )  # fmt: skip


def values(learned):
    return np.asarray(learned.params["values"])


def test_every_stratum_finds_its_own_weights():
    """All best weights are lines over the step, which hats between knots can draw."""
    learned = found(start={"one": guidance.constant(1.0)})
    np.testing.assert_allclose(values(learned), BEST, atol=0.1)
    distances = learned.history["distance"]
    assert distances[-1] < 0.1 * distances[0]
    assert learned.start == "search"


def test_one_knot_moves_all_steps_alike():
    learned = found(start={"zero": guidance.constant(0.0)}, num_knots=1)
    np.testing.assert_allclose(np.ptp(values(learned), axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(values(learned)[:, 0], BEST.mean(axis=1), atol=0.05)


def test_every_stratum_starts_from_its_best_schedule():
    """Without a move that is accepted the start stays."""
    start = {f"{w}": guidance.constant(w) for w in (0.5, 1.0, 2.0)}
    learned = found(start=start, accept=lambda x: np.zeros(STRATA), num_sweeps=1)
    np.testing.assert_allclose(values(learned)[:, 0], [1.0, 0.5, 2.0])


def test_a_move_that_new_noise_does_not_confirm_is_not_kept():
    """What decides sees another best weight, of which only the direction of the move agrees."""
    start = found(start={"one": guidance.constant(1.0)}, accept=lambda x: -squared(x), num_sweeps=1)
    np.testing.assert_allclose(values(start), 1.0)
    half = found(
        start={"zero": guidance.constant(0.0)}, num_knots=1, num_sweeps=1,
        accept=lambda x: squared(x, 0.45 * BEST.mean(axis=1)[:, None]),
    )  # fmt: skip
    np.testing.assert_allclose(values(half)[:, 0], 0.5 * BEST.mean(axis=1), atol=0.1)


def test_noise_is_that_of_the_sweep_and_new_for_decisions():
    sampler = Sampler()
    learned = found(sampler, start={"one": guidance.constant(1.0)}, num_sweeps=2)
    first, second, third = 1, 2, 3
    assert sampler.seeds[0] == first
    assert sampler.seeds[1:10] == [first] * 9  # three knots, three runs each
    assert set(sampler.seeds[10:]) == {second, third}
    assert len(sampler.seeds) == learned.history["runs"] <= 1 + 2 * (3 * 3 + 3)


@pytest.mark.slow
def test_learned_guidance_can_be_improved_and_weights_stay_in_range():
    begun = found(start={"one": guidance.constant(1.0)}, num_sweeps=1)
    again = found(start=begun, omega_max=1.5)
    np.testing.assert_allclose(values(again), np.minimum(BEST, 1.5), atol=0.2)
    signed = found(distance=lambda x: squared(x, -0.4), omega_min=-1.0)
    np.testing.assert_allclose(values(signed), -0.4, atol=0.05)


@pytest.mark.slow
def test_the_sampler_of_the_library_draws():
    """One step of a model whose conditional mean is half of the data's: omega = 1."""
    denoiser = lgd.denoisers.from_function(
        lambda params, x, t, c: params[c][:, None] + 0.0 * x,
        kind="x0", schedule=lgd.schedules.rectified_flow(), null=2,
    )  # fmt: skip
    generator = lgd.evaluation.Generator(
        denoiser=denoiser, params=jnp.array([0.5, -0.5, 0.0]), shape=(1,),
        conditions=jnp.arange(2), times=jnp.array([1.0, 0.0]),
    )  # fmt: skip
    learned = search_guidance(
        generator, lambda x: (x.mean(axis=(1, 2)) - jnp.array([1.0, -1.0])) ** 2, num_strata=2,
        settings=quick(times=(1.0, 0.0)),
    )  # fmt: skip
    np.testing.assert_allclose(values(learned), 1.0, atol=1e-3)
    assert isinstance(learned, omega.Guidance)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"distance": lambda x: np.zeros(2)}, r"distance: expected a function .* \(3,\), got"),
        ({"accept": lambda x: 0.0}, r"accept: expected a function .* \(3,\), got \(\)"),
        ({"num_strata": 0}, "num_strata: expected"),
        ({"start": {}}, "start: expected guidance, or omega functions by name"),
        ({"num_knots": 0}, "num_knots: expected"),
        ({"step": 0.0}, "step: expected a number above 0"),
        ({"omega_min": 0.0, "omega_max": 0.0}, "omega_max: expected a number above omega_min"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_arguments_that_do_not_fit_are_named(changes, expected):
    with pytest.raises(ValueError, match=expected):
        found(**changes)


def test_distances_that_are_never_finite_are_an_error():
    with pytest.raises(NonFiniteError, match="NaN or inf from every start"):
        found(distance=lambda x: np.full(STRATA, np.nan))
    with pytest.raises(NonFiniteError, match="at the start"):
        found(distance=lambda x: np.full(STRATA, np.nan), start={"one": guidance.constant(1.0)})


def test_a_weight_whose_distance_is_not_finite_is_left():
    def breaks(x):
        return np.where(x.mean(axis=(1, 2)) > 1.2, np.nan, squared(x))

    learned = found(distance=breaks, start={"half": guidance.constant(0.5)})
    assert (values(learned).mean(axis=1) <= 1.2).all()
    np.testing.assert_allclose(values(learned)[1], BEST[1], atol=0.1)
