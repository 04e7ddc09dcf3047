"""Metrics on features: closed forms, plain loops, and independence of order, batches and shards."""

import itertools
import logging

import jax.numpy as jnp
import numpy as np
import pytest

from lgd.data import labelled
from lgd.metrics import kid as kid_module
from lgd.metrics import precision_recall as neighbours
from lgd.metrics import reference as references
from lgd.metrics.checks import checked_pair
from lgd.metrics.features import FeatureSet, extract
from lgd.metrics.frechet import class_frechet_distances, frechet_distance, moments
from lgd.metrics.kid import kid, kid_of_subsets, mean_within
from lgd.metrics.moments import ClassMoments, FeatureMoments
from lgd.metrics.precision_recall import precision_recall, squared_radii
from lgd.metrics.predictions import Predictions
from lgd.metrics.reference import FeatureNetwork, Reference, network_identity, reference


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def shuffled_parts(x, labels, seed=0):
    order = np.random.default_rng(seed).permutation(len(x))
    cuts = [0, 1, 7, 7, len(x) // 2, len(x)]  # one of them is empty
    pieces = [order[a:b] for a, b in itertools.pairwise(cuts)]
    return [(x[piece], labels[piece]) for piece in pieces]


# Moments


def test_moments_in_a_stream_are_those_of_one_batch_in_any_order_and_from_shards():
    x = normal((60, 5)) + 1e6  # sums of squares would have lost all digits
    labels = np.arange(60) % 3
    whole = ClassMoments.empty(3, 5).update(x, labels)
    streamed, shards = ClassMoments.empty(3, 5), [ClassMoments.empty(3, 5)] * 2
    for i, (part, own) in enumerate(shuffled_parts(x, labels)):
        streamed = streamed.update(part, own)
        shards[i % 2] = shards[i % 2].update(part, own)
    exact = np.cov(x - x.mean(axis=0), rowvar=False)
    for found in (whole, streamed, shards[0].merge(shards[1])):
        np.testing.assert_allclose(found.pooled().moments().mean, x.mean(axis=0), rtol=1e-15)
        np.testing.assert_allclose(found.pooled().moments().covariance, exact, atol=1e-9)
        for k, each in enumerate(found.classes):
            alone = moments(x[labels == k])
            assert each.num_samples == 20
            np.testing.assert_allclose(each.moments().covariance, alone.covariance, atol=1e-9)


def test_moments_refuse_other_sizes_values_and_strata():
    empty = ClassMoments.empty(2, 3)
    with pytest.raises(ValueError, match=r"features: expected \(n, 3\), got \(4, 2\)"):
        FeatureMoments.empty(3).update(np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"features: expected finite .*, got NaN in 1 of 1 rows"):
        empty.update(np.full((1, 3), np.nan), np.zeros(1, int))
    with pytest.raises(ValueError, match="expected strata from 0 to 1, got 0 to 2"):
        empty.update(np.zeros((2, 3)), np.array([0, 2]))
    with pytest.raises(ValueError, match="n >= 2, got"):
        FeatureMoments.empty(3).update(np.zeros((1, 3))).moments()


def test_too_few_features_for_a_covariance_are_warned_of():
    with pytest.warns(UserWarning, match="covariance of 4 features from 4"):
        FeatureMoments.empty(4).update(normal((4, 4))).moments()


def test_frechet_distance_of_large_samples_is_that_of_their_gaussians():
    """|m|^2 + sum (a - b)^2 for diagonal covariances diag(a^2), diag(b^2)."""
    a, b, mean = np.array([1.0, 2.0, 0.5]), np.array([1.5, 1.0, 0.5]), np.array([0.3, 0.0, -0.4])
    exact, n, values = float(mean @ mean + np.sum((a - b) ** 2)), 4000, []
    for seed in range(12):
        draws = normal((2, n, 3), seed)
        pair = (FeatureMoments.empty(3).update(x) for x in (draws[0] * a, draws[1] * b + mean))
        values.append(frechet_distance(*(each.moments() for each in pair)))
    error = np.std(values, ddof=1) / len(values) ** 0.5
    bias = 3 * (a @ a + b @ b) / n  # of order f / n
    assert abs(np.mean(values) - exact) < 4 * error + bias
    assert error < 0.02 * exact


def test_class_frechet_distances_are_those_of_each_class():
    labels = np.repeat([0, 1], 30)
    sets = [normal((60, 3), seed) + labels[:, None] * seed for seed in (1, 2)]
    pair = [ClassMoments.empty(2, 3).update(x, labels) for x in sets]
    found = class_frechet_distances(*pair)
    for k in (0, 1):
        alone = frechet_distance(*(moments(x[labels == k]) for x in sets))
        assert found[k] == pytest.approx(alone, abs=1e-12)
    np.testing.assert_allclose(class_frechet_distances(pair[0], pair[0]), 0.0, atol=1e-9)


# Features


def test_features_are_extracted_in_padded_batches():
    sizes = []

    def feature_fn(x):
        sizes.append(len(x))
        return x.reshape(len(x), -1) ** 2

    x = normal((10, 2, 3)).astype(np.float32)
    found = extract(feature_fn, x, batch_size=4)
    assert sizes == [4, 4, 4]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, x.reshape(10, -1) ** 2)
    with pytest.raises(ValueError, match=r"examples: expected finite .* in 10 of 10 rows"):
        extract(lambda x: x / 0.0, x.reshape(10, -1))
    directions = extract(
        lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True), x.reshape(10, -1), batch_size=4
    )
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, rtol=1e-5)


def test_a_feature_set_has_one_order_whatever_came_first():
    x = normal((40, 3)).astype(np.float32)
    x[5] = x[6]
    x[7, 0], x[8] = -0.0, [0.0, *x[7, 1:]]
    whole = FeatureSet().update(x).rows()
    sets = [FeatureSet(), FeatureSet()]
    for i, (part, _) in enumerate(shuffled_parts(x, x)):
        sets[i % 2] = sets[i % 2].update(part)
    np.testing.assert_array_equal(sets[0].merge(sets[1]).rows(), whole)
    np.testing.assert_array_equal(np.sort(whole, axis=0), np.sort(x, axis=0))
    with pytest.raises(ValueError, match="expected features, got none"):
        FeatureSet().rows()


# Kernel distance


def kid_by_loops(x, y):
    def mean(a, b, skip):
        pairs = [(u, v) for i, u in enumerate(a) for j, v in enumerate(b) if not skip or i != j]
        return np.mean([(u @ v / len(u) + 1.0) ** 3 for u, v in pairs])

    return mean(x, x, True) + mean(y, y, True) - 2.0 * mean(x, y, False)


@pytest.mark.parametrize("block", [3, 2048])
def test_kid_is_the_double_sum_over_pairs(monkeypatch, block):
    monkeypatch.setattr(kid_module, "BLOCK", block)
    x, y = normal((10, 4), 1), 0.7 * normal((7, 4), 2) + 0.2
    near = 1e-13 * (mean_within(x) + mean_within(y))
    assert kid(x, y) == pytest.approx(kid_by_loops(x, y), abs=near)
    assert kid(x, y, within_y=mean_within(y)) == kid(x, y)
    order = np.random.default_rng(0).permutation(10)
    assert kid(x[order], y) == pytest.approx(kid(x, y), abs=near)


def test_kid_of_equal_laws_has_mean_zero_and_of_others_does_not():
    """The closed form: E k for x ~ N(m, 1), one feature, is a sum of moments."""
    values = [kid(normal((50, 1), 2 * seed), normal((50, 1), 2 * seed + 1)) for seed in range(60)]
    assert abs(np.mean(values)) < 4 * np.std(values, ddof=1) / 60**0.5
    shift = 0.5
    others = [
        kid(normal((50, 1), 2 * seed), normal((50, 1), 2 * seed + 1) + shift) for seed in range(60)
    ]
    first, second = np.array([0, 1, 0]), np.array([shift, 1 + shift**2, shift**3 + 3 * shift])
    exact = np.sum(np.array([3, 3, 1]) * (first - second) ** 2)  # (ab + 1)^3 = 1 + 3ab + 3a2b2 + ..
    assert abs(np.mean(others) - exact) < 4 * np.std(others, ddof=1) / 60**0.5


def test_kid_of_subsets_is_about_kid_and_refuses_what_it_cannot_draw():
    x, y = normal((80, 3), 1), normal((60, 3), 2) + 0.5
    found = kid_of_subsets(x, y, num_subsets=60, size=30)
    assert abs(found.mean - kid(x, y)) < 4 * found.std / 60**0.5
    assert kid_of_subsets(x, y, num_subsets=2, size=60) != found
    assert kid_of_subsets(x, x, num_subsets=1, size=80).std == 0.0
    with pytest.raises(ValueError, match=r"expected size in \[2, 60\], got 61"):
        kid_of_subsets(x, y, size=61)
    with pytest.raises(ValueError, match=r"n >= 2, got \(1, 3\)"):
        kid(x[:1], y)


@pytest.mark.parametrize("metric", [kid, precision_recall])
def test_sets_that_are_not_finite_or_too_small_are_refused(metric):
    x, y = normal((9, 3), 1), normal((8, 3), 2)
    for other, message in [
        (np.where(y > 1.0, np.nan, y), "real examples: expected finite numbers, got NaN in 1 of 8"),
        (y[:1], r"real examples: expected \(n, 3\) with n >= 2, got \(1, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric(x, other)


def test_pairs_of_sets_have_one_width():
    x, y = checked_pair(normal((2, 3), 1), normal((5, 3), 2))
    assert (x.shape, y.shape) == ((2, 3), (5, 3))
    for other in (normal((5, 2)), normal((3,))):
        with pytest.raises(ValueError, match=r"real examples: expected \(n, 3\) with n >= 2, got"):
            checked_pair(x, other)


# Precision and recall


def test_precision_and_recall_of_points_on_a_line():
    """k = 1: real balls [-1, 1], [0, 2], [1, 3]; sample balls [-3, 4], [-2.5, 9.5], [3.5, 15.5]."""
    real = np.array([[0.0], [1.0], [2.0]])
    samples = np.array([[0.5], [3.5], [9.5]])
    np.testing.assert_array_equal(squared_radii(real, k=1), [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(squared_radii(samples, k=1), [9.0, 9.0, 36.0])
    found = precision_recall(samples, real, k=1)
    assert found.precision == pytest.approx(1 / 3)
    assert found.recall == 1.0
    turned = precision_recall(real, samples, k=1)
    assert (turned.precision, turned.recall) == (1.0, pytest.approx(1 / 3))


def test_precision_sees_outliers_and_recall_lost_modes():
    one, two = normal((40, 2), 1), normal((40, 2), 2)
    both = np.concatenate([one, two + 100.0])
    lost = precision_recall(one[::-1], both)
    assert (lost.precision, lost.recall) == (1.0, 0.5)
    spread = precision_recall(both, one)
    assert spread.precision == 0.5
    assert spread.recall == 1.0
    same = precision_recall(both, both)
    assert (same.precision, same.recall) == (1.0, 1.0)


def test_precision_and_recall_by_loops_in_any_blocks(monkeypatch):
    samples, real = normal((23, 3), 1).astype(np.float32), 1.5 * normal((17, 3), 2)
    distance = np.linalg.norm

    def radius(x, i):
        return sorted(distance(x[i] - other) for j, other in enumerate(x) if j != i)[2]

    def share(x, manifold):
        radii = [radius(manifold, i) for i in range(len(manifold))]
        inside = [
            any(distance(u - v) <= r for v, r in zip(manifold, radii, strict=True)) for u in x
        ]
        return np.mean(inside)

    expected = (share(samples, real), share(real, samples))
    assert 0.0 < min(expected) < 1.0
    for numbers in (1, 100, 4_000_000):
        monkeypatch.setattr(neighbours, "BLOCK_NUMBERS", numbers)
        assert precision_recall(samples, real) == pytest.approx(expected)
    with pytest.raises(ValueError, match="expected more than k = 3 >= 1 features, got 3"):
        precision_recall(samples[:3], real)


# Predictions


def test_inception_score_closed_forms():
    uniform = Predictions.empty(4).update(np.zeros((12, 4)), np.zeros(12, int))
    assert uniform.inception_score() == pytest.approx(1.0, abs=1e-12)
    assert uniform.accuracy() == 1.0  # the first of equal logits
    labels = np.arange(12) % 4
    sure = Predictions.empty(4).update(1e4 * np.eye(4)[labels], labels)
    assert sure.inception_score() == pytest.approx(4.0, rel=1e-12)
    assert sure.accuracy() == 1.0
    collapsed = Predictions.empty(4).update(1e4 * np.eye(4)[0 * labels], labels)
    assert collapsed.inception_score() == pytest.approx(1.0, abs=1e-12)
    assert collapsed.accuracy() == 0.25
    p = np.array([[0.8, 0.2], [0.4, 0.6]])
    two = Predictions.empty(2).update(np.log(p), np.array([0, 0]))
    exact = np.exp(np.mean(np.sum(p * np.log(p / p.mean(axis=0)), axis=1)))
    assert two.inception_score() == pytest.approx(exact, rel=1e-12)


def test_predictions_in_a_stream_are_those_of_one_batch():
    logits, labels = normal((60, 5)), np.arange(60) % 5
    whole = Predictions.empty(5).update(logits, labels)
    shards = [Predictions.empty(5)] * 2
    for i, (part, own) in enumerate(shuffled_parts(logits, labels)):
        shards[i % 2] = shards[i % 2].update(part, own)
    merged = shards[0].merge(shards[1])
    assert merged.accuracy() == whole.accuracy()
    assert merged.inception_score() == pytest.approx(whole.inception_score(), rel=1e-13)
    with pytest.raises(ValueError, match="expected predictions, got none"):
        Predictions.empty(2).accuracy()
    with pytest.raises(ValueError, match="logits: expected finite numbers, got inf in 1 of 1 rows"):
        Predictions.empty(2).update(np.full((1, 2), np.inf), np.zeros(1, int))


# Reference statistics on disk


WEIGHTS = jnp.asarray(normal((6, 4)), jnp.float32)
REAL = labelled(normal((30, 2, 3)).astype(np.float32), np.arange(30, dtype=np.int32) % 2)


def network(weights=WEIGHTS, preprocessing="none"):
    def apply(x):
        return x.reshape(len(x), -1) @ weights

    identity = network_identity("linear", {"w": weights}, preprocessing=preprocessing)
    return FeatureNetwork(apply, identity)


def assert_same(one: Reference, other: Reference):
    for mine, theirs in zip(one.moments.classes, other.moments.classes, strict=True):
        assert mine.num_samples == theirs.num_samples
        np.testing.assert_array_equal(mine.scatter, theirs.scatter)
    for name in ("features", "radii", "within"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.fixture
def counted(monkeypatch):
    """How often statistics were computed."""
    calls = []

    def computed(*arguments):
        calls.append(1)
        return compute(*arguments)

    compute = references._computed
    monkeypatch.setattr(references, "_computed", computed)
    return calls


def test_reference_is_read_back_as_it_was_computed(tmp_path, counted):
    file = tmp_path / "real.safetensors"
    made = reference(file, network(), REAL, 2)
    assert_same(reference(file, network(), REAL, 2), made)
    assert len(counted) == 1
    assert_same(reference(None, network(), REAL, 2), made)
    features = extract(network().apply, REAL.x)
    np.testing.assert_allclose(made.moments.pooled().moments().mean, features.mean(axis=0), 1e-5)
    own = ClassMoments.empty(2, 4).update(features, REAL.stratum)
    zero = made.distances(own, FeatureSet().update(features))
    near = 1e-6 * made.within  # of features in float32, extracted twice
    assert zero.pop("kid") == pytest.approx(kid_by_loops(features, features), abs=near)
    assert (zero.pop("precision"), zero.pop("recall")) == (1.0, 1.0)
    np.testing.assert_allclose(list(zero.values()), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        (network(WEIGHTS.at[0, 0].add(1e-3)), REAL),
        (network(preprocessing="scaled to [0, 1]"), REAL),
        (network(), REAL._replace(x=REAL.x + np.float32(1e-3))),
        (network(), REAL._replace(stratum=REAL.stratum[::-1].copy())),
    ],
)
def test_a_reference_of_something_else_is_computed_again(tmp_path, counted, caplog, other):
    file = tmp_path / "real.safetensors"
    reference(file, network(), REAL, 2)
    with caplog.at_level(logging.WARNING):
        found = reference(file, *other, 2)
    assert len(counted) == 2
    assert f"{file}: made of other data or with another feature network" in caplog.text
    assert_same(reference(file, *other, 2), found)
    assert len(counted) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "pickle", "fewer"])
def test_a_damaged_reference_is_named_and_computed_again(tmp_path, counted, caplog, damage):
    file = tmp_path / "real.safetensors"
    made = reference(file, network(), REAL, 2)
    raw = bytearray(file.read_bytes())
    if damage == "flip":
        raw[-9] ^= 1
    elif damage == "pickle":
        raw = bytearray(b"\x80\x04K\x01.")
    elif damage == "cut":
        raw = raw[:-4]
    else:
        reference(file, network(), labelled(REAL.x[:20], REAL.stratum[:20]), 2)
        raw = file.read_bytes()
    file.write_bytes(raw)
    counted.clear()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert_same(reference(file, network(), REAL, 2), made)
    assert len(counted) == 1
    assert str(file) in caplog.text
    assert "computed again" in caplog.text
    assert_same(reference(file, network(), REAL, 2), made)
    assert len(counted) == 1


@pytest.mark.filterwarnings("ignore:covariance of 64 features")
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_frechet_distance_of_few_rows_to_themselves_is_not_negative(scale):
    for seed in range(8):
        features = scale * np.random.default_rng(seed).normal(size=(10, 64))
        one = moments(features)
        assert 0.0 <= frechet_distance(one, one) < 1e-12 * np.trace(one.covariance)


@pytest.mark.parametrize("value", [1e46, 1e100, -1e160])
def test_features_beyond_what_distances_hold_are_refused(value):
    x = np.zeros((6, 2))
    x[1, 0] = value
    for distance in (kid, precision_recall, lambda a, b: moments(b)):
        with pytest.raises(ValueError, match="expected numbers of at most 1e"):
            distance(np.eye(6, 2), x)
    largest = np.where(x != 0.0, 1e45, np.eye(6, 2))
    assert np.isfinite(kid(largest, np.eye(6, 2)))
    near = precision_recall(largest, np.eye(6, 2))
    assert near.precision < 1.0


def test_statistics_that_are_given_are_checked():
    x = np.random.default_rng(0).normal(size=(8, 2))
    with pytest.raises(ValueError, match="within_y: expected a finite number, got nan"):
        kid(x, x, within_y=float("nan"))
    for radii in (np.full(8, np.nan), -np.ones(8)):
        with pytest.raises(ValueError, match="real_radii: expected 8 finite numbers"):
            precision_recall(x, x, real_radii=radii)
