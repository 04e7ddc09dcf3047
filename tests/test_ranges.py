"""Examples and images of another dtype or range are refused at every door, in words."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import lgd
from lgd import conditions, evaluation
from lgd.data import FileImages, Split, labelled
from lgd.data.dataset import checked_split, scaled
from lgd.data.ranges import checked_examples, checked_images
from lgd.exchange.diffusers.codec import channels_first
from lgd.metrics import inception
from lgd.metrics.classifier import ConvClassifier, FeatureClassifier, LeNetClassifier
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.features import extract
from lgd.metrics.tilt import TiltedLaws
from lgd.plots import sample_grid

LEVELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3))
IMAGES = scaled(LEVELS.astype(np.uint8))
PIXELS = {
    "uint8": LEVELS.astype(np.uint8),
    "int64": LEVELS,
    "jax uint8": jnp.asarray(LEVELS, jnp.uint8),
    "float32": LEVELS.astype(np.float32),
    "float64": LEVELS.astype(np.float64),
    "resized": LEVELS / 255.0 * 250.5,
    "channels first": LEVELS.astype(np.float32).transpose(0, 3, 1, 2),
    "jax float32": jnp.asarray(LEVELS, jnp.float32),
    "bfloat16": jnp.asarray(LEVELS, jnp.bfloat16),
    "levels of 4 bits": (LEVELS // 16).astype(np.float32),
    "levels of 16 bits": 257.0 * LEVELS,
}
LABELS = np.arange(6, dtype=np.int32) % 2
REAL = labelled(IMAGES, LABELS)
GROUPS = IMAGES.reshape(2, 3, 8, 8, 3)
CLASSIFIER = FeatureClassifier(2, width=3, num_features=2)


@pytest.fixture(scope="module")
def params():
    return jax.jit(CLASSIFIER.init)(jax.random.key(0), IMAGES[:1])


@pytest.mark.parametrize("kind", PIXELS)
@pytest.mark.parametrize("check", [checked_examples, checked_images])
def test_pixels_are_refused_with_what_makes_images_of_them(check, kind):
    words = r"^x: expected (floats|images).*, got .*x / 127.5 - 1"
    with pytest.raises(ValueError, match=words) as refused:
        check("x", PIXELS[kind])
    assert len(str(refused.value)) < 250
    images = IMAGES if kind != "channels first" else IMAGES.transpose(0, 3, 1, 2)
    assert check("x", images) is images


def test_the_words_name_range_and_dtype():
    got = r"got an array uint8 \(6, 8, 8, 3\) of 0 to 255; images / 127.5 - 1 makes such images"
    words = rf"^images: expected images as floats in \[-1, 1\], {got}"
    with pytest.raises(ValueError, match=words):
        checked_images("images", PIXELS["uint8"])


@pytest.mark.parametrize("factor", [1.5, 4.0, 12.0])
def test_samples_that_overshoot_are_images_and_real_images_are_not(factor):
    """A sampler guided too strongly leaves [-1, 1], and is measured all the same."""
    assert checked_images("x", factor * IMAGES) is not None
    with pytest.raises(ValueError, match=r"x: expected images .*, got -.* to "):
        checked_images("x", 1.01 * factor * IMAGES, sampled=False)


@pytest.mark.parametrize("images", [127.5 * IMAGES, 100.0 + 0.0 * IMAGES, IMAGES + 1.0])
def test_what_no_sampler_makes_is_no_image(images):
    with pytest.raises(ValueError, match="expected images as floats in"):
        checked_images("x", images)


def test_images_of_0_to_1_are_warned_of():
    with pytest.warns(UserWarning, match=r"got 0 to 1; 2 \* x - 1 makes such images"):
        checked_images("x", LEVELS / 255.0)
    for images in (IMAGES, 0.0 * IMAGES, 0.0 * IMAGES + 1.0):
        checked_images("x", images)  # also all grey, all white


def test_numbers_that_are_not_finite_are_counted():
    bad = IMAGES.copy()
    bad[1, 0, 0, 0], bad[4, 1, 1, 1] = np.nan, np.inf
    for check in (checked_examples, checked_images):
        for x in (bad, jnp.asarray(bad)):
            with pytest.raises(ValueError, match=r"x: expected finite .* NaN and inf in 2 of 6"):
                check("x", x)


@pytest.mark.parametrize(
    "x",
    [
        np.full((4, 2), 200.0),
        255.0 * np.random.default_rng(0).random((4, 8, 8)),
        8.0 * IMAGES,  # latents, or other data with 3 channels
        np.abs(8.0 * IMAGES),
        np.zeros((4, 8, 8, 1)),
        np.full((4, 1, 8, 8), 2.0),
        np.full((4, 8, 8, 4), 99.0),
        np.zeros((0, 8, 8, 3)),
    ],
)
def test_examples_that_are_no_pixels_may_have_any_range(x):
    assert checked_examples("x", x) is x


def test_what_is_traced_is_checked_by_its_dtype():
    traced = jax.jit(lambda x: checked_images("x", checked_examples("x", x)))
    np.testing.assert_array_equal(traced(255.0 * IMAGES), 255.0 * IMAGES)
    for check in (checked_images, checked_examples):
        with pytest.raises(ValueError, match=r"got .*uint8"):
            jax.eval_shape(lambda x, check=check: check("x", x), PIXELS["uint8"])


def by_measure(make):
    return lambda params, x: make(params)(jnp.asarray(x).reshape(2, 3, *x.shape[1:]))


DOORS = {
    "Split": lambda params, x: Split(x, LABELS),
    "labelled": lambda params, x: labelled(x, LABELS),
    "learn_guidance": lambda params, x: checked_split(x, LABELS, None),
    "extract": lambda params, x: extract(lambda x: x[:, 0, 0], x),
    "FeatureClassifier": lambda params, x: CLASSIFIER.apply(params, x),
    "Inception": lambda params, x: inception.features({}, x),
    "feature_network": lambda params, x: inception.feature_network({"a": IMAGES}).apply(x),
    "autoencoder": lambda params, x: channels_first(x),
    "figure": lambda params, x: sample_grid({"a": x.reshape(2, 3, *x.shape[1:])}, ["0", "1"]),
    "ClassEnergyDistance": by_measure(lambda params: ClassEnergyDistance(REAL)),
    "EnergyMeasure": by_measure(lambda params: evaluation.EnergyMeasure(REAL, seed=0)),
    "ClassifierMeasure": by_measure(
        lambda params: evaluation.ClassifierMeasure(CLASSIFIER, params, REAL, seed=0)
    ),
    "TiltedLaws": by_measure(lambda params: TiltedLaws(GROUPS, jnp.zeros((2, 3)), (0.0,)).distance),
}


@pytest.fixture
def _untyped():
    """As for users, whose arguments no type checker sees."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.sampled(3)
@pytest.mark.usefixtures("_untyped")
@pytest.mark.filterwarnings("ignore:covariance of 2 features")
@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("door", DOORS)
def test_no_door_takes_pixels_for_images(params, door, kind):
    x = PIXELS[kind]
    with pytest.raises(ValueError, match=r"127.5 - 1"):
        DOORS[door](params, x)
    if door not in ("Inception", "feature_network"):  # whose parameters are not at hand
        DOORS[door](params, IMAGES)


@pytest.mark.usefixtures("_untyped")
@pytest.mark.parametrize("network", [FeatureClassifier, ConvClassifier, LeNetClassifier])
def test_no_classifier_takes_integers(network):
    images = np.zeros((2, 16, 16, 1), np.uint8)
    with pytest.raises(ValueError, match=r"x: expected floats, got uint8 .*127.5 - 1"):
        jax.eval_shape(network(2).init, jax.random.key(0), images)


def test_images_in_files_are_scaled_and_not_read_to_be_checked():
    def read(number):
        raise AssertionError

    files = FileImages((6, 8, 8, 3), read, "mine")
    assert Split(files, LABELS).x is files


# Integers that would wrap


def sampled(c):
    flow = lgd.schedules.rectified_flow()
    denoiser = lgd.denoisers.from_function(
        lambda params, x, t, c: 0.0 * x, kind="x0", schedule=flow, null=2
    )
    key = jax.random.key(0)
    return lgd.sample(key, denoiser, {}, c, guidance=0.0, shape=(2,), num_steps=1)


@pytest.mark.usefixtures("_untyped")
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64])
def test_strata_are_int32_whatever_they_were(dtype):
    """The largest of uint8 and 1 are 256 strata, and not none."""
    stratum = np.tile(np.arange(256), 2)
    x = np.random.default_rng(0).normal(size=(512, 2)).astype(np.float32)
    split = labelled(x, stratum.astype(dtype))
    assert split.stratum.dtype == np.int32
    assert split.stratum is split.c
    samples = jnp.asarray(x).reshape(2, 256, 2).swapaxes(0, 1)
    measured = evaluation.EnergyMeasure(split, seed=0)(samples)
    assert np.isfinite(measured["resampled"]["energy_distance"]).all()


@pytest.mark.usefixtures("_untyped")
@pytest.mark.parametrize("stratum", [np.array([0.0, 1.0]), np.array([-1, 0]), np.array([0, 2**40])])
def test_strata_that_are_no_small_integers_are_refused(stratum):
    with pytest.raises(ValueError, match="stratum: expected integers"):
        Split(np.zeros((2, 2), np.float32), np.arange(2), stratum)


def test_labels_that_jax_would_cut_are_refused_at_every_door():
    wide = np.array([1, 2**32 + 1])  # 1, 1
    for act in (
        lambda: Split(np.zeros((2, 2), np.float32), {"label": wide}),
        lambda: checked_split(np.zeros((2, 2)), wide, None),
        lambda: conditions.arrays({"label": wide}),
        lambda: conditions.arrays(wide.tolist()),
        lambda: sampled(wide),
    ):
        with pytest.raises(ValueError, match="integers that int32 holds, got 4294967297"):
            act()
