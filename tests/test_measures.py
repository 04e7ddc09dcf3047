"""Measures of samples, distances to validation data, and how strongly guidance guides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import guidance, schedules
from lgd.data import labelled
from lgd.data.dataset import Split
from lgd.denoisers import Directions, from_function
from lgd.evaluation import (
    ClassifierMeasure,
    EnergyMeasure,
    Generator,
    InceptionMeasure,
    JointMeasure,
    PlaneMeasure,
    ValidationFrechet,
    ValidationInception,
    guided_weight,
    measures,
    squared_gap,
    weights_on_grid,
)
from lgd.metrics.classifier import FeatureClassifier
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.frechet import class_frechet_distances, frechet_distance, moments
from lgd.metrics.kid import kid, mean_within
from lgd.metrics.moments import ClassMoments
from lgd.metrics.reference import FeatureNetwork

FLOW = schedules.rectified_flow()
COUNTS = (9, 14)


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def real_examples(dims=(2, 2)):
    stratum = np.repeat(np.arange(2, dtype=np.int32), COUNTS)[::-1].copy()
    x = normal((len(stratum), *dims), 1)
    return labelled(x + stratum.reshape(-1, *[1] * len(dims)).astype(np.float32), stratum)


REAL = real_examples()
X = jnp.asarray(1.3 * normal((2, 12, 2, 2), 2))
POOLED = X.reshape(1, 24, 2, 2)
FLAT = np.asarray(X).reshape(24, 4)
NEAR = 1e-6 * float(np.square(FLAT).sum(axis=1).max())  # by the size of what distances are made of


def without_strata(real):
    return real._replace(stratum=None)


# Resamples


def test_resamples_are_drawn_within_strata():
    drawn = measures.resamples(REAL.strata, seed=3)
    assert len(drawn) == measures.NUM_RESAMPLES
    for index in drawn[:5]:
        np.testing.assert_array_equal(np.bincount(REAL.strata[index]), COUNTS)
    assert len(np.unique(drawn[0])) < len(drawn[0])
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], measures.resamples(REAL.strata, seed=4)[0])


def energy_by_loops(x, real, index, own):
    """Mean over strata of cross - (within samples + within real) / 2; real-real of all examples."""

    def mean(a, b, skip):
        pairs = [(u, v) for i, u in enumerate(a) for j, v in enumerate(b) if not skip or i != j]
        return np.mean([np.linalg.norm(u - v) for u, v in pairs])

    values = []
    for k, samples in enumerate(np.asarray(x, np.float64).reshape(len(x), -1, 4)):
        y = real.x.reshape(-1, 4)
        drawn, members = y[index][real.strata[index] == k], y[own][real.strata[own] == k]
        values.append(
            mean(samples, drawn, False)
            - 0.5 * (mean(samples, samples, True) + mean(members, members, True))
        )
    return np.mean(values)


def test_energy_distance_and_its_resamples_by_loops():
    measured = EnergyMeasure(REAL, seed=3)(X)
    everything = np.arange(len(REAL.x))
    expected = energy_by_loops(X, REAL, everything, everything)
    assert measured["metrics"] == {"energy_distance": pytest.approx(expected, abs=1e-5)}
    values = measured["resampled"]["energy_distance"]
    for value, index in list(zip(values, measures.resamples(REAL.strata, seed=3), strict=True))[:3]:
        assert value == pytest.approx(energy_by_loops(X, REAL, index, everything), abs=1e-5)


def test_without_strata_all_examples_are_one():
    one = REAL._replace(stratum=np.zeros(len(REAL.x), np.int32))
    pooled = EnergyMeasure(without_strata(REAL), seed=3)(POOLED)
    assert pooled == EnergyMeasure(one, seed=3)(POOLED)
    with pytest.raises(ValueError, match="expected 1 strata of >= 2 samples, got"):
        EnergyMeasure(without_strata(REAL), seed=3)(X)


def test_joined_measures_have_the_metrics_of_all():
    def one(x):
        return {"metrics": {"a": 1.0}, "resampled": {}}

    def other(x):
        return {"metrics": {"b": 2.0}, "resampled": {"b": [0.0, 1.0]}}

    joined = JointMeasure((one, other))(X)
    assert joined == {"metrics": {"a": 1.0, "b": 2.0}, "resampled": {"b": [0.0, 1.0]}}


# Features


@pytest.fixture(scope="module")
def classifier():
    network = FeatureClassifier(2, width=4, num_features=3)
    return network, jax.jit(network.init)(jax.random.key(0), X[0])


@pytest.mark.slow
def test_a_classifier_measures_by_its_features_and_labels(classifier, monkeypatch):
    network, params = classifier
    monkeypatch.setattr(measures, "BATCH", 10)
    measured = ClassifierMeasure(network, params, REAL, seed=3)(X)
    logits, features = map(np.asarray, network.apply(params, jnp.asarray(FLAT)))
    real = np.asarray(network.apply(params, jnp.asarray(REAL.x))[1])
    metrics = measured["metrics"]
    expected = frechet_distance(moments(features), moments(real))
    near = 1e-5 * float(np.square(real).sum(axis=1).max())  # of features in float32
    assert metrics["frechet_distance"] == pytest.approx(expected, abs=near)
    assert metrics["kid"] == pytest.approx(kid(features, real), abs=1e-5 * mean_within(real))
    right = logits.argmax(axis=1) == np.repeat([0, 1], 12)
    assert metrics["accuracy"] == pytest.approx(right.mean())
    assert [*metrics] == [
        *("frechet_distance", "class_frechet_distance", "kid", "precision", "recall"),
        *("inception_score", "accuracy"),
    ]
    (resampled,) = measured["resampled"].values()
    index = measures.resamples(REAL.strata, seed=3)[0]
    first = frechet_distance(moments(features), moments(real[index]))
    assert resampled[0] == pytest.approx(first, abs=near)


def test_a_classifier_says_less_where_there_are_no_strata(classifier):
    measured = ClassifierMeasure(*classifier, without_strata(REAL), seed=3)(POOLED)
    by_strata = ClassifierMeasure(*classifier, REAL, seed=3)(X)["metrics"]
    assert set(by_strata) - set(measured["metrics"]) == {"class_frechet_distance", "accuracy"}
    for name, value in measured["metrics"].items():
        assert value == pytest.approx(by_strata[name], abs=1e-6)


def test_statistics_of_a_classifier_are_kept_in_a_file(classifier, tmp_path):
    file = tmp_path / "real.safetensors"
    once, again = (ClassifierMeasure(*classifier, REAL, seed=3, file=file)(X) for _ in range(2))
    assert file.exists()
    assert once == again


def test_points_are_measured_by_themselves_and_by_their_posterior():
    real = real_examples(dims=(2,))
    x = jnp.asarray(normal((2, 12, 2), 5))
    flat = np.asarray(x).reshape(24, 2)
    measured = PlaneMeasure(lambda x: jnp.stack([0.0 * x[:, 0], x[:, 0]], axis=1), real, seed=3)(x)
    right = (flat[:, 0] > 0.0) == np.repeat([False, True], 12)
    expected = [
        frechet_distance(moments(samples), moments(real.x[real.strata == k]))
        for k, samples in enumerate(np.asarray(x))
    ]
    assert measured["metrics"] == {
        "frechet_distance": pytest.approx(np.mean(expected)),
        "accuracy": pytest.approx(right.mean()),
    }
    index = measures.resamples(real.strata, seed=3)[0]
    drawn = Split(real.x[index], real.c[index], real.strata[index])
    first = [
        frechet_distance(moments(samples), moments(drawn.x[drawn.strata == k]))
        for k, samples in enumerate(np.asarray(x))
    ]
    assert measured["resampled"]["frechet_distance"][0] == pytest.approx(np.mean(first))


def pixels(x):
    return jnp.asarray(x).reshape(len(x), -1)[:, :3]


NETWORK = FeatureNetwork(pixels, {"network": "three pixels"})


def test_inception_measures_all_strata_at_once():
    measure = InceptionMeasure(NETWORK, lambda x: (pixels(x), 3.0 * pixels(x)), REAL)
    measured = measure(X)
    expected = frechet_distance(moments(FLAT[:, :3]), moments(REAL.x.reshape(-1, 4)[:, :3]))
    assert measured["metrics"]["frechet_distance"] == pytest.approx(expected, abs=NEAR)
    assert [*measured["metrics"]] == [
        *("frechet_distance", "kid", "precision", "recall", "inception_score")
    ]
    assert measured["resampled"] == {}
    for name, value in measure(POOLED)["metrics"].items():
        assert value == pytest.approx(measured["metrics"][name], abs=NEAR)


# Distances to validation data


def test_frechet_distances_begin_with_the_pooled_one():
    distances = ValidationFrechet(pixels, REAL)(X)
    stratum = np.repeat([0, 1], 12)
    features = REAL.x.reshape(-1, 4)[:, :3]
    pair = [
        ClassMoments.empty(2, 3).update(*each)
        for each in ((FLAT[:, :3], stratum), (features, REAL.strata))
    ]
    pooled = frechet_distance(moments(FLAT[:, :3]), moments(features))
    expected = [pooled, *class_frechet_distances(*pair)]
    np.testing.assert_allclose(distances, expected, rtol=0.0, atol=NEAR)
    one = ValidationFrechet(pixels, without_strata(REAL))(POOLED)
    np.testing.assert_allclose(one, [pooled, pooled], rtol=0.0, atol=NEAR)


def test_inception_tells_strata_apart_by_their_energy_distances():
    distances = ValidationInception(NETWORK, REAL)(X)
    pooled = frechet_distance(moments(FLAT[:, :3]), moments(REAL.x.reshape(-1, 4)[:, :3]))
    assert distances[0] == pytest.approx(pooled, abs=NEAR)
    np.testing.assert_array_equal(distances[1:], ClassEnergyDistance(REAL, 2)(X))


# Weights


def pulled(params, x_t, t, c):
    """x0_hat = x_t / 2 + 2 for label 0, + 4 for label 1 and + 0 without one."""
    return 0.5 * x_t + jnp.asarray([2.0, 4.0, 0.0])[c][:, None, None]


PULLED = from_function(pulled, schedule=FLOW, kind="x0", null=2)
TIMES = jnp.asarray([1.0, 0.6, 0.0])
C = jnp.asarray(REAL.c)


def generator(denoiser=PULLED, params=()):
    return Generator(
        denoiser=denoiser,
        params=params,
        shape=(2, 2),
        conditions=np.arange(2, dtype=np.int32),
        times=TIMES,
    )


def test_gap_is_the_squared_distance_of_the_two_predictions():
    gap = squared_gap(generator(), REAL)
    expected = 4 * np.where(REAL.strata == 0, 2.0, 4.0) ** 2  # of four numbers each
    np.testing.assert_allclose(gap, np.stack([expected] * 2), rtol=1e-5)


def test_mean_weight_is_weighed_by_the_gap():
    per_label = guidance.limited_interval_per_class((1.0, -3.0), (0.0, 0.0), (1.0, 0.7))
    found = guided_weight(per_label, generator(), C, squared_gap(generator(), REAL))
    share = np.bincount(REAL.strata) / len(REAL.strata)
    mean = np.mean([share @ [1.0, 0.0], share @ [1.0, 3.0]])
    by_gap = share * np.asarray([4.0, 16.0])
    weighed = np.mean([by_gap @ [1.0, 0.0], by_gap @ [1.0, 3.0]]) / by_gap.sum()
    assert found == {"mean": pytest.approx(mean), "mean_by_delta": pytest.approx(weighed)}


@pytest.mark.parametrize("rule", [0.5, guidance.Clipped(0.5), guidance.Cfg(guidance.constant(0.5))])
def test_whatever_has_weights_before_sampling_shows_them(rule):
    gap = squared_gap(generator(), REAL)
    np.testing.assert_array_equal(weights_on_grid(rule, generator(), C), np.full((2, len(C)), 0.5))
    assert guided_weight(rule, generator(), C, gap) == {"mean": 0.5, "mean_by_delta": 0.5}


def looking(*, s, t, c, features):
    return features[:, 0]


def test_weights_that_are_not_known_before_are_none():
    gap = jnp.ones((2, len(C)))
    for unknown in (looking, np.full((2, 5), 0.5)):
        assert weights_on_grid(unknown, generator(), C) is None
        assert guided_weight(unknown, generator(), C, gap) is None


def test_every_direction_has_its_gap():
    def weak(params, x_t, t, c):
        return 0.5 * x_t + 1.0

    both = Directions(PULLED, {"weak": from_function(weak, schedule=FLOW, kind="x0", null=2)})
    two = generator(both, ((), {"weak": ()}))
    gap = squared_gap(two, REAL)
    assert gap.shape == (2, len(C), 2)
    expected = 4 * np.square([1.0, 3.0])[REAL.strata]
    np.testing.assert_allclose(gap[..., 1], [expected] * 2, rtol=1e-5)
    found = guided_weight(guidance.constant_directions(1.0, 0.0), two, C, gap)
    share = float(jnp.sum(gap[..., 0]) / jnp.sum(gap))
    assert found == {"mean": 0.5, "mean_by_delta": pytest.approx(share)}
    assert guided_weight(0.25, two, C, gap)["mean"] == 0.25
