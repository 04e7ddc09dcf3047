import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from lgd import discrepancy, training
from lgd.data import Split, labelled, pipeline
from lgd.machinery import parallel
from lgd.metrics import energy
from lgd.metrics.classifier import FeatureClassifier, LeNetClassifier, classification_loss
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.frechet import (
    Moments,
    class_frechet_distances,
    frechet_distance,
    frechet_distances,
    moments,
)
from lgd.metrics.moments import ClassMoments

RNG = np.random.default_rng(0)


def covariance(size, rank=None, *, seed=0):
    factor = np.random.default_rng(seed).normal(size=(size, size if rank is None else rank))
    return factor @ factor.T


# Frechet distance


def test_moments_are_numpys():
    features = RNG.normal(size=(20, 3)).astype(np.float32) + 1000.0
    got = moments(features)
    exact = features.astype(np.float64)
    centred = exact - exact.mean(axis=0)
    np.testing.assert_allclose(got.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(got.covariance, centred.T @ centred / 19, rtol=1e-8)
    assert moments(features[:, :1]).covariance.shape == (1, 1)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    features = RNG.normal(size=(50, 6))
    features[:, 5] = features[:, 0]  # a singular covariance
    got = moments(features)
    assert abs(frechet_distance(got, got)) < 1e-13 * np.trace(got.covariance)


def test_frechet_distance_of_commuting_gaussians():
    """|m - m'|^2 + sum (sqrt(a) - sqrt(b))^2, for C = Q diag(a) Q', C' = Q diag(b) Q'."""
    a, b = np.array([4.0, 1.0, 0.25, 0.0]), np.array([1.0, 9.0, 0.25, 2.0])
    q = ortho_group.rvs(4, random_state=0)
    x, y = (Moments(m, q * v @ q.T) for m, v in ((np.zeros(4), a), (np.array([3.0, 0, 0, 4]), b)))
    expected = 25.0 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("rank", "other"), [(5, 40), (40, 5), (5, 7), (40, 40)])
def test_frechet_distance_is_exact_to_rounding_where_covariances_are_singular(rank, other):
    """sum (sqrt(a) - sqrt(b))^2, where all but the first eigenvalues are 0."""
    q, rng = ortho_group.rvs(40, random_state=0), np.random.default_rng(rank)
    a, b = (np.where(np.arange(40) < r, rng.uniform(1.0, 9.0, 40), 0.0) for r in (rank, other))
    x, y = (Moments(np.zeros(40), q * values @ q.T) for values in (a, b))
    expected = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)
    assert frechet_distances(y, Moments(*(np.stack([z, z]) for z in x))) == pytest.approx(
        [expected] * 2, rel=1e-12
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": np.full(3, np.nan)}, "mean of the features of the .*: .*, got NaN in"),
        ({"mean": np.zeros(2)}, r"expected mean \(.*\) and covariance \(.*\), got \("),
        (
            {"covariance": np.diag([1.0, np.inf, 1.0])},
            "covariance of the features .*, got inf",
        ),
        ({"covariance": np.ones(3)}, r"expected mean \(3,\) and covariance \(3, 3\), got \(3,\)"),
    ],
)
def test_moments_that_are_not_finite_or_of_other_shapes_have_no_distance(change, message):
    good = Moments(np.zeros(3), np.eye(3))
    for pair in ((good, good._replace(**change)), (good._replace(**change), good)):
        with pytest.raises(ValueError, match=message):
            frechet_distance(*pair)


def test_frechet_distances_by_class_have_equal_numbers_of_classes():
    two, three = (ClassMoments.empty(k, 3) for k in (2, 3))
    with pytest.raises(ValueError, match="samples: expected 3 strata, got 2"):
        class_frechet_distances(two, three)


@pytest.mark.parametrize("size", [1, 3, 12])
def test_frechet_distance_by_scipys_matrix_root(size):
    x = Moments(RNG.normal(size=size), covariance(size, seed=1))
    y = Moments(RNG.normal(size=size), covariance(size, seed=2))
    root = sqrtm(x.covariance @ y.covariance)
    expected = np.sum((x.mean - y.mean) ** 2)
    expected += np.trace(x.covariance + y.covariance - 2.0 * np.real(root))
    near = 1e-8 * np.trace(x.covariance + y.covariance)  # of the root
    assert frechet_distance(x, y) == pytest.approx(expected, abs=near)
    assert frechet_distance(y, x) == pytest.approx(expected, abs=near)


def test_frechet_distances_to_several_sets_are_those_to_each():
    sets = [moments(RNG.normal(size=(30, 4)) * scale) for scale in (1.0, 2.0, 0.5)]
    several = Moments(*(np.stack(values) for values in zip(*sets, strict=True)))
    expected = [frechet_distance(sets[0], each) for each in sets]
    np.testing.assert_allclose(frechet_distances(sets[0], several), expected, rtol=0.0, atol=1e-12)


def test_frechet_distance_does_not_see_rotations_and_shifts():
    x, y = RNG.normal(size=(40, 5)), 0.5 * RNG.normal(size=(60, 5)) + 0.3
    q = ortho_group.rvs(5, random_state=1)
    turned = frechet_distance(moments(x @ q + 2.0), moments(y @ q + 2.0))
    assert turned == pytest.approx(frechet_distance(moments(x), moments(y)), abs=1e-12)


@pytest.mark.parametrize(("samples", "warns"), [(4, True), (5, True), (6, False)])
def test_moments_warn_of_too_few_samples(samples, warns, recwarn):
    moments(RNG.normal(size=(samples, 5)))
    assert [str(w.message) for w in recwarn] == [
        f"covariance of 5 features from {samples}" for _ in range(warns)
    ]


@pytest.mark.parametrize("shape", [(5,), (1, 3), (0, 3), (4, 3, 2)])
def test_moments_refuse_other_shapes(shape):
    with pytest.raises(ValueError, match=r"features: expected \(n, f\) .*, got \("):
        moments(np.zeros(shape))


# Energy distance


def unequal_classes(counts, shape=(2, 3)):
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    order = np.random.default_rng(1).permutation(len(labels))
    x = np.random.default_rng(2).normal(size=(len(labels), *shape)).astype(np.float32)
    return labelled((x + labels[:, None, None]).astype(np.float32)[order], labels[order])


@pytest.fixture(scope="module")
def measured():
    """Real examples, samples, and their distance."""
    real = unequal_classes((2, 7, 4))
    samples = jnp.asarray(RNG.normal(size=(3, 5, 2, 3)) * 1.5, jnp.float32)
    return real, samples, ClassEnergyDistance(real, 3)(samples)


def test_class_energy_distance_by_loops(measured):
    real, samples, got = measured

    def mean_distance(pairs):
        return np.mean([np.linalg.norm((a - b).ravel()) for a, b in pairs])

    for label, x in enumerate(np.asarray(samples, np.float64)):
        y = real.x[real.stratum == label].astype(np.float64)
        cross = mean_distance([(a, b) for a in x for b in y])
        own = [[(a, b) for a in z for b in z if a is not b] for z in (list(x), list(y))]
        expected = cross - 0.5 * (mean_distance(own[0]) + mean_distance(own[1]))
        assert float(got[label]) == pytest.approx(expected, abs=2e-6)


def test_mean_distances_are_in_the_order_of_the_real_examples(measured):
    real, samples, _ = measured
    _, got = ClassEnergyDistance(real, 3).with_mean_distances(samples)
    x = np.asarray(samples, np.float64).reshape(*samples.shape[:2], -1)
    for y, label, distance in zip(real.x, real.stratum, got, strict=True):
        expected = np.linalg.norm(x[label] - y.reshape(-1), axis=-1).mean()
        assert float(distance) == pytest.approx(expected, rel=1e-5)


def test_class_energy_distance_is_that_of_discrepancy(measured):
    real, samples, got = measured
    distance = jax.jit(discrepancy.energy_distance)
    for label, x in enumerate(np.asarray(samples)):
        y = real.x[real.stratum == label]
        expected = distance(x.reshape(len(x), -1), y.reshape(len(y), -1))
        assert float(got[label]) == pytest.approx(float(expected), abs=1e-6)


def test_class_energy_distance_of_far_sets_is_near_their_gap(measured):
    real, samples, _ = measured
    far = ClassEnergyDistance(real, 3)(samples + 1000.0)
    np.testing.assert_allclose(np.asarray(far), 1000.0 * 6**0.5, rtol=5e-3)


def split_of(counts, scale=1.0, dim=3):
    rng = np.random.default_rng(0)
    stratum = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    x = (scale * rng.normal(size=(len(stratum), dim))).astype(np.float32)
    return Split(x, stratum, stratum), jnp.asarray(scale * rng.normal(size=(len(counts), 5, dim)))


@pytest.mark.slow
def test_strata_of_very_different_size_are_compared_as_by_themselves():
    real, samples = split_of([2, 70, 5000, 9, 64, 3])
    distances, means = ClassEnergyDistance(real).with_mean_distances(samples)
    for k in range(len(samples)):
        here = real.stratum == k
        alone = Split(real.x[here], real.c[here], np.zeros(here.sum(), np.int32))
        distance, of_real = ClassEnergyDistance(alone).with_mean_distances(samples[k : k + 1])
        np.testing.assert_allclose(distances[k], distance[0], atol=2e-6)
        np.testing.assert_allclose(means[here], of_real, atol=2e-6)


def test_memory_grows_with_the_examples_and_not_with_strata_times_the_largest():
    real, _ = split_of([2] * 500 + [6_000], dim=1)
    held = sum(leaf.size for leaf in jax.tree.leaves(ClassEnergyDistance(real)._buckets))
    assert held < 4 * len(real.x)


@pytest.mark.slow
def test_large_strata_and_many_samples_are_compared_in_blocks(monkeypatch):
    monkeypatch.setattr(energy, "ROWS", 8)  # 64 distances at once
    monkeypatch.setattr(energy, "_BLOCK", 7)
    real, _ = split_of([3, 20, 9, 31], dim=2)
    samples = jnp.asarray(np.random.default_rng(1).normal(size=(4, 13, 2)), jnp.float32)
    distances, means = ClassEnergyDistance(real).with_mean_distances(samples)
    whole = jax.jit(discrepancy.energy_distance)
    for k, x in enumerate(samples):
        y = real.x[real.stratum == k]
        np.testing.assert_allclose(distances[k], whole(x, jnp.asarray(y)), atol=2e-6)
        gaps = np.linalg.norm(np.asarray(x)[:, None] - y[None], axis=-1)
        np.testing.assert_allclose(means[real.stratum == k], gaps.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-10, 1e19])
def test_class_energy_distance_scales_with_the_numbers(scale):
    whole, scaled = (
        ClassEnergyDistance(real)(samples)
        for real, samples in (split_of([20, 30]), split_of([20, 30], scale))
    )
    np.testing.assert_allclose(scaled / scale, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("counts", "num_classes"), [((5, 1, 5), 3), ((5, 5), 3), ((5, 5, 5), 2), ((5, 0, 5), 3)]
)
def test_class_energy_distance_refuses_small_and_unknown_strata(counts, num_classes):
    with pytest.raises(ValueError, match=f"expected >= 2 examples of {num_classes} strata, got"):
        ClassEnergyDistance(unequal_classes(counts), num_classes)


@pytest.mark.parametrize("shape", [(2, 5, 2, 3), (3, 1, 2, 3)])
def test_class_energy_distance_refuses_other_groups(measured, shape):
    distance = ClassEnergyDistance(measured[0], 3)
    with pytest.raises(ValueError, match="expected 3 strata of >= 2 samples, got"):
        distance(jnp.zeros(shape))


def test_class_energy_distance_refuses_samples_of_another_size_and_far_away(measured):
    distance = ClassEnergyDistance(measured[0], 3)
    with pytest.raises(ValueError, match="expected samples of 6 numbers, got 4"):
        distance(jnp.zeros((3, 5, 2, 2)))
    for value, got in ((np.nan, "NaN"), (np.inf, "inf")):
        samples = jnp.zeros((3, 5, 2, 3)).at[1, 2:4].set(value)
        with pytest.raises(ValueError, match=rf"samples: expected finite .* {got} in 2 of 15 rows"):
            distance(samples)
    with pytest.raises(ValueError, match="expected samples at finite distances"):
        distance(jnp.full((3, 5, 2, 3), 1e30))


def test_examples_without_strata_are_one(measured):
    real, samples, _ = measured
    joined = samples.reshape(1, -1, *samples.shape[2:])
    one = real._replace(stratum=np.zeros(len(real.x), np.int32))
    got = ClassEnergyDistance(real._replace(stratum=None))(joined)
    np.testing.assert_array_equal(got, ClassEnergyDistance(one, 1)(joined))


def test_class_energy_distance_holds_no_array_of_differences():
    """One number for each pair and pixel would be 63 GB for 2,000 and 10,000 images of 28x28."""
    x, y = jnp.zeros((100, 784)), jnp.zeros((200, 784))
    compiled = jax.jit(discrepancy.squared_distances).lower(x, y).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < len(x) * len(y) * 784


# Classifier


def test_lenet_has_the_parameters_of_its_layers_on_its_smallest_images():
    classifier = LeNetClassifier(3, width=4, num_features=5)
    shapes = jax.eval_shape(lambda: classifier.init(jax.random.key(0), jnp.zeros((2, 16, 16, 1))))
    convolutions = (25 * 1 + 1) * 4 + (25 * 4 + 1) * 8
    dense = (8 + 1) * 5 + (5 + 1) * 3  # one position of 8 channels is left
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == convolutions + dense


@pytest.mark.slow
def test_classifier_learns_separable_blobs():
    labels = np.arange(240, dtype=np.int32) % 3
    centres = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]], np.float32)
    x = (centres[labels] + 0.4 * RNG.normal(size=(240, 2))).astype(np.float32)
    classifier = FeatureClassifier(3, width=16, num_features=4)

    def loss(params, frozen, batch, key):
        return classification_loss(classifier, params, batch.x0, batch.c, key), {}

    losses: list[float] = []
    state = training.fit(
        jax.random.key(1),
        loss,
        jax.jit(classifier.init)(jax.random.key(0), jnp.asarray(x[:1])),
        batches=pipeline.examples(labelled(x[:160], labels[:160]), 32, seed=0),
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=80, learning_rate=0.02, ema_decay=0.9),
            mesh=parallel.make_mesh(1),
            log_every=1,
            on_log=lambda step, info: losses.append(info["loss"]),
        ),
    )
    logits, features = jax.jit(classifier.apply)(state.ema, jnp.asarray(x[160:]))
    assert (logits.shape, features.shape) == ((80, 3), (80, 4))
    assert np.mean(np.asarray(logits).argmax(axis=-1) == labels[160:]) > 0.97
    smoothed = 0.1 * 2 / 3  # of every label, spread over the other classes: no loss is below ...
    entropy = -(1 - smoothed) * np.log(1 - smoothed) - smoothed * np.log(smoothed / 2)
    assert min(losses) >= entropy
    assert losses[-1] < entropy + 0.1 < losses[0]
