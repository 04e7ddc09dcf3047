"""How a denoiser is trained: its loss in every kind and on every schedule, augmentations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from lgd import schedules
from lgd.denoisers import DenoisingLoss, NetworkDenoiser
from lgd.denoisers.denoising import augmented, flipped, scaled_target, shifted
from lgd.denoisers.network import output_scale
from lgd.diffusion import KINDS, denoise_pair, expand, noised, to_x0

pytestmark = pytest.mark.usefixtures("quick_compilation")
FLOW = schedules.rectified_flow()
KEY = jax.random.key(0)


class Condition(nn.Module):
    """Returns the conditions it is given, or the mean of each if they are vectors."""

    @nn.compact
    def __call__(self, x, logsnr, c):
        values = jnp.mean(c.astype(x.dtype).reshape(len(c), -1), axis=-1)
        return jnp.broadcast_to(expand(values, x), x.shape)


class LogSNR(nn.Module):
    """Returns the logsnr it is given."""

    @nn.compact
    def __call__(self, x, logsnr, c):
        return jnp.broadcast_to(logsnr[:, None], x.shape)


class Tanh(nn.Module):
    """Returns tanh of what it is given."""

    @nn.compact
    def __call__(self, x, logsnr, c):
        return jnp.tanh(x)


class Learned(nn.Module):
    """Returns its parameter."""

    @nn.compact
    def __call__(self, x, logsnr, c):
        value = self.param("value", nn.initializers.zeros, x.shape[1:])
        return jnp.broadcast_to(value[None], x.shape)


def denoising_loss(module, x0, c, *, kind="x0", schedule=FLOW, params=None, **settings):
    num_classes = 3 if jnp.issubdtype(c.dtype, jnp.integer) else None
    denoiser = NetworkDenoiser(module, schedule, num_classes, kind)
    return DenoisingLoss(**settings)(KEY, denoiser, params or {}, x0, c)


# Targets

TIMES = np.float32([0.0, 0.02, 0.3, 0.7, 0.98, 1.0])


@pytest.fixture(params=schedules.BY_NAME, scope="module")
def targets(request):
    """Of x0 and eps of unit size, for every kind, one row a time; and the x0 each means."""
    schedule = schedules.BY_NAME[request.param]()
    x0, eps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4000)), jnp.float32)
    t = jnp.asarray(TIMES)

    @jax.jit
    def evaluate(x0, eps):
        x_t = noised(x0, eps, t=t, schedule=schedule)

        def of(kind):
            target = scaled_target(x0, eps, t=t, schedule=schedule, kind=kind)
            scale = output_scale(t, schedule=schedule, kind=kind)
            prediction = expand(scale, x0) * target
            return target, to_x0(prediction, x_t, t=t, schedule=schedule, kind=kind)

        return {kind: of(kind) for kind in KINDS}

    return np.asarray(x0), jax.tree.map(np.asarray, evaluate(x0, eps))


@pytest.mark.parametrize("kind", KINDS)
def test_targets_mean_their_x0(targets, kind):
    x0, (_, meant) = targets[0], targets[1][kind]
    tolerance = {"eps": 2e-2, "score": 2e-2}.get(kind, 2e-3)
    np.testing.assert_allclose(meant[1:-1], x0[1:-1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_targets_have_unit_size_at_every_time(targets, kind):
    """A velocity's is 2: that of rectified flow, whose outputs are velocities unscaled."""
    target, _ = targets[1][kind]
    expected = 2.0 if kind == "velocity" else 1.0
    mean_square = np.mean(np.float64(target) ** 2, axis=1)
    standard_error = expected * np.sqrt(2.0 / target.shape[1])
    assert (np.abs(mean_square - expected) < 5.0 * standard_error).all()


def test_on_edm_a_network_of_v_has_the_preconditioning_of_karras():
    """Karras et al. (2022), Table 1, with sigma_data = 1; F is minus the network."""
    edm = schedules.edm()
    x_t = 3.0 * jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
    t = jnp.linspace(0.0, 1.0, 5)
    denoiser, c = NetworkDenoiser(Tanh(), edm, 2, "v"), jnp.zeros(5, jnp.int32)
    found = jax.jit(lambda: denoiser.apply({}, x_t, t=t, c=c))()
    sigma = np.float64(edm.sigma(t))[:, None]
    skip, out, inside = 1 / (sigma**2 + 1), sigma / np.sqrt(sigma**2 + 1), (sigma**2 + 1) ** -0.5
    expected = skip * x_t - out * np.tanh(inside * x_t)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


# The loss


COMBINATIONS = [
    *(("rectified_flow", kind) for kind in ("x0", "eps", "score")),
    *((name, kind) for name in schedules.BY_NAME for kind in ("v", "velocity")),
]
WIDE = {"times": "logit_normal", "times_scale": 10.0}


@pytest.fixture(scope="module")
def losses():
    """The loss and its gradient, for data that are 1.5, of networks that return (0.5, 2)."""
    x0, c = jnp.full((256, 2), 1.5), jnp.zeros(256, jnp.int32)

    @jax.jit
    def evaluate(value):
        def of(name, kind):
            def loss(value):
                return denoising_loss(
                    Learned(),
                    x0,
                    c,
                    kind=kind,
                    schedule=schedules.BY_NAME[name](),
                    params={"params": {"value": value}},
                    **WIDE,
                )

            return jax.value_and_grad(loss)(value)

        return {combination: of(*combination) for combination in COMBINATIONS}

    return evaluate(jnp.array([0.5, 2.0]))


def test_loss_and_gradient_are_finite_at_both_ends_of_time(losses):
    t = DenoisingLoss(**WIDE).draw_times(jax.random.split(KEY, 4)[0], 256)
    assert np.min(t) < 1e-7
    assert np.max(t) == 1.0
    assert len(losses) == 11
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(losses))


def test_loss_is_the_squared_error(losses):
    loss, gradient = losses["rectified_flow", "x0"]
    np.testing.assert_allclose(loss, (1.0 + 0.25) / 2, rtol=1e-5)
    np.testing.assert_allclose(gradient, [-1.0, 0.5], rtol=1e-5)


@pytest.mark.parametrize(
    ("vectors", "kept", "null"), [(False, 1.0, 9.0), (True, 4.0, 0.0)], ids=["labels", "vectors"]
)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_loss_drops_conditions_at_its_rate(rate, vectors, kept, null):
    """With x0 = 0 the loss is the mean square of what the network is told."""
    n = 10_000
    c = jnp.full((n, 2), 2.0) if vectors else jnp.ones(n, jnp.int32)
    loss = jax.jit(lambda: denoising_loss(Condition(), jnp.zeros((n, 1)), c, label_dropout=rate))()
    share = (loss - kept) / (null - kept)
    assert abs(share - rate) <= 4.0 * np.sqrt(rate * (1.0 - rate) / n) + 1e-6


@pytest.mark.parametrize(
    ("settings", "mean", "second_moment", "kurtosis"),
    [
        ({"times": "uniform"}, 0.0, np.pi**2 * 4 / 3, 4.2),
        ({"times": "logit_normal"}, 0.0, 4.0, 3.0),
        ({"times": "logit_normal", "times_location": 1.0, "times_scale": 0.5}, -2.0, 5.0, 3.0),
    ],
)
def test_loss_draws_times_from_its_law(settings, mean, second_moment, kurtosis):
    """On rectified flow logsnr is -2 logit(t): twice a logistic, or a normal, variable."""
    n = 20_000
    c = jnp.zeros(n, jnp.int32)
    about = jax.jit(lambda x0: denoising_loss(LogSNR(), x0, c, **settings))
    second, shifted = about(jnp.zeros((n, 1))), about(jnp.ones((n, 1)))
    variance = second_moment - mean**2
    error = 4.0 * np.sqrt((kurtosis - 1.0) * variance**2 + 4.0 * mean**2 * variance)
    assert abs(second - second_moment) < error / np.sqrt(n)
    found_mean = (second - shifted + 1.0) / 2.0  # E (l - 1)^2 = E l^2 - 2 E l + 1
    assert abs(found_mean - mean) < 4.0 * np.sqrt(variance / n)


def test_vectors_are_guided_like_labels():
    denoiser = NetworkDenoiser(Condition(), FLOW, None, "x0")
    c = jnp.asarray([[1.0, 3.0], [0.0, -1.0]])
    pair = jax.jit(lambda: denoise_pair(denoiser, {}, jnp.ones((2, 3)), t=jnp.full(2, 0.5), c=c))
    cond, uncond = pair()
    np.testing.assert_array_equal(cond, [[2.0] * 3, [-0.5] * 3])
    np.testing.assert_array_equal(uncond, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"expected c, a vector \(1, e\) .*, got None"):
        denoiser.init(KEY, (3,))
    assert denoiser.init(KEY, (3,), c[:1]) == {}


# Augmentations

IMAGES = jnp.asarray(np.random.default_rng(2).normal(size=(5, 6, 4, 2)), jnp.float32)


def test_flipping_twice_is_nothing_and_once_is_a_mirror():
    which = jnp.arange(5) % 2 == 0
    once = flipped(IMAGES, which)
    np.testing.assert_array_equal(flipped(once, which), IMAGES)
    np.testing.assert_array_equal(once[::2], np.flip(IMAGES[::2], axis=2))
    np.testing.assert_array_equal(once[1::2], IMAGES[1::2])


def test_shift_is_a_crop_of_the_padded_image():
    by = jnp.array([[0, 0], [1, -2], [-3, 2], [3, 3], [-1, 0]])
    padded = np.pad(IMAGES, [(0, 0), (3, 3), (3, 3), (0, 0)], mode="edge")
    expected = [
        image[3 - down : 9 - down, 3 - right : 7 - right]
        for image, (down, right) in zip(padded, by.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(shifted(IMAGES, by), expected)


def test_augmentations_are_of_the_key_and_cover_every_flip_and_shift():
    x = jnp.tile(jnp.arange(16.0).reshape(1, 4, 4, 1), (400, 1, 1, 1))
    augment = jax.jit(lambda key: augmented(key, x, flip=True, shift=1))
    found = augment(KEY)
    np.testing.assert_array_equal(found, augment(KEY))
    assert (np.asarray(found) != augment(jax.random.key(1))).any()
    kinds, counts = np.unique(np.asarray(found).reshape(400, -1), axis=0, return_counts=True)
    assert len(kinds) == 18
    assert np.abs(counts - 400 / 18).max() < 5.0 * np.sqrt(400 / 18)
    assert augmented(KEY, x, flip=False, shift=0) is x


@pytest.mark.parametrize("settings", [{"flip": True}, {"shift": 1}])
def test_loss_sees_augmented_images(settings):
    """Of a network that returns the one image there is."""
    x0, c = jnp.tile(IMAGES[:1], (64, 1, 1, 1)), jnp.zeros(64, jnp.int32)
    params = {"params": {"value": IMAGES[0]}}

    @jax.jit
    def losses():
        still, moved = ({}, settings)
        return [denoising_loss(Learned(), x0, c, params=params, **each) for each in (still, moved)]

    assert losses()[0] == 0.0
    assert losses()[1] > 0.1
    with pytest.raises(ValueError, match=r"expected images \(b, h, w, channels\), got .*\(4, 2\)"):
        denoising_loss(Learned(), jnp.zeros((4, 2)), c[:4], **settings)


@pytest.fixture
def unchecked():
    """jaxtyping's own check of arguments is off, as it is outside these tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    "settings",
    [
        *({"label_dropout": 1.0}, {"label_dropout": -0.1}, {"times": "cosine"}),
        *({"times_scale": 0.0}, {"shift": -1}),
    ],
)
def test_bad_settings_raise(unchecked, settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"expected {name} .*, got"):
        DenoisingLoss(**settings)
