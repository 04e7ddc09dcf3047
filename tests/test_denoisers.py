import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy.stats import norm

from lgd import schedules
from lgd.denoisers import GaussianMixture, NetworkDenoiser, ResidualMLP, from_function
from lgd.denoisers.network import output_scale
from lgd.diffusion import KINDS, expand, from_x0, noised, to_x0
from lgd.types import Denoiser, Schedule

pytestmark = pytest.mark.usefixtures("quick_compilation")
LABELS = (0, 0, 1, 2)  # of the mixture's components
NULL = 3
MEANS = np.array([[-2.0, 1.0], [0.5, -1.0], [1.5, 2.0], [3.0, 0.0]], np.float32)
VARIANCES = np.array([[0.3, 0.1], [0.2, 0.5], [0.4, 0.05], [1.0, 0.8]], np.float32)
WEIGHTS = np.array([0.1, 0.3, 0.4, 0.2], np.float32)
FLOW = schedules.rectified_flow()

posterior_mean = jax.jit(GaussianMixture.apply, static_argnums=0)
log_density = jax.jit(GaussianMixture.log_density, static_argnums=0)
draw = jax.jit(GaussianMixture.draw, static_argnums=0)


@pytest.fixture(params=schedules.BY_NAME, scope="module")
def schedule(request):
    return schedules.BY_NAME[request.param]()


@pytest.fixture
def unchecked():
    """jaxtyping's own check of arguments is off, as it is outside these tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def mixture(schedule, labels=LABELS, components=slice(None), axes=slice(None)):
    exact = GaussianMixture(labels=labels, schedule=schedule)
    means, variances = (jnp.asarray(v[components, axes]) for v in (MEANS, VARIANCES))
    return exact, exact.params(means, variances, jnp.asarray(WEIGHTS[components]))


def members(c):
    """Indices of the components of class c."""
    return [i for i, label in enumerate(LABELS) if c in (label, NULL)]


def prior_density(x, c, axis):
    """p(x0 | c) along one axis, in float64."""
    inside = members(c)
    deviations = np.sqrt(np.float64(VARIANCES[inside, axis]))
    each = norm.pdf(x[..., None], MEANS[inside, axis], deviations)
    return each @ np.float64(WEIGHTS[inside]) / np.float64(WEIGHTS[inside]).sum()


@pytest.fixture(scope="module")
def exact_predictions(schedule):
    """Posterior means in 2-D for every class at random points, and Tweedie's of the density."""
    rng = np.random.default_rng(0)
    c = np.tile(np.arange(NULL + 1, dtype=np.int32), 8)
    t = rng.uniform(0.1, 0.9, size=len(c)).astype(np.float32)
    x = rng.normal(size=(len(c), 2)).astype(np.float32)
    exact, params = mixture(schedule)

    @jax.jit
    def evaluate(x, t, c):
        alpha, sigma = (f(t)[:, None] for f in (schedule.alpha, schedule.sigma))
        x_t = 2.0 * alpha * x + sigma * x[::-1]
        score = jax.grad(lambda x: jnp.sum(exact.log_density(params, x, t=t, c=c)))(x_t)
        mean = exact.apply(params, x_t, t=t, c=c)
        return mean, (x_t + sigma**2 * score) / alpha

    return jax.tree.map(np.asarray, evaluate(x, t, c))


def test_posterior_mean_is_tweedies(exact_predictions):
    mean, tweedie = exact_predictions
    np.testing.assert_allclose(mean, tweedie, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("c", range(NULL + 1))
def test_posterior_mean_and_density_are_the_integrals_over_x0(c):
    exact, params = mixture(FLOW, axes=slice(1))
    x_t, t = (v.ravel() for v in np.meshgrid(np.linspace(-2.5, 3.0, 7), [0.1, 0.4, 0.8]))
    x0 = np.linspace(-12.0, 14.0, 26_001)
    alpha, sigma = (1.0 - t)[:, None], t[:, None]
    joint = prior_density(x0, c, 0) * norm.pdf(x_t[:, None], alpha * x0, sigma)
    density = joint.sum(-1) * (x0[1] - x0[0])
    mean = (joint * x0).sum(-1) / joint.sum(-1)

    arguments = {"t": jnp.float32(t), "c": jnp.full(len(t), c)}
    x_t = jnp.float32(x_t)[:, None]
    found_mean = posterior_mean(exact, params, x_t, **arguments)[:, 0]
    found_density = log_density(exact, params, x_t, **arguments)
    np.testing.assert_allclose(found_mean, mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found_density, np.log(density), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("c", range(NULL + 1))
def test_density_is_normalised(c):
    exact, params = mixture(FLOW, axes=slice(1))
    x = jnp.linspace(-10.0, 12.0, 4001)[:, None]
    found = log_density(exact, params, x, t=jnp.full(len(x), 0.3), c=jnp.full(len(x), c))
    integral = np.exp(np.float64(found)).sum() * 22.0 / 4000
    assert integral == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("c", range(NULL))
def test_a_class_is_the_mixture_of_its_components_alone(c):
    inside = members(c)
    whole, params = mixture(FLOW)
    alone, own_params = mixture(FLOW, labels=(0,) * len(inside), components=inside)
    x_t = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)), jnp.float32)
    t = jnp.linspace(0.0, 1.0, 5)
    for function in (posterior_mean, log_density):
        found = function(whole, params, x_t, t=t, c=jnp.full(5, c))
        expected = function(alone, own_params, x_t, t=t, c=jnp.zeros(5, jnp.int32))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_at_the_ends_the_posterior_mean_is_the_data_and_the_mean_of_the_class():
    exact, params = mixture(FLOW)
    x_t = np.random.default_rng(2).normal(size=(8, 2)).astype(np.float32)
    c, t = np.tile(np.arange(NULL + 1), 2), np.repeat(np.float32([0.0, 1.0]), NULL + 1)
    found = posterior_mean(exact, params, x_t, t=t, c=c)
    means = [np.average(MEANS[members(k)], axis=0, weights=WEIGHTS[members(k)]) for k in c]
    np.testing.assert_allclose(found, np.where(t[:, None] == 0.0, x_t, means), rtol=1e-5)


@pytest.mark.parametrize("c", range(NULL + 1))
def test_draws_have_the_moments_of_their_class(c):
    exact, params = mixture(FLOW)
    x0 = np.float64(draw(exact, jax.random.key(c), params, jnp.full(20_000, c)))
    inside = members(c)
    share = WEIGHTS[inside] / WEIGHTS[inside].sum()
    mean = share @ MEANS[inside]
    variance = share @ (VARIANCES[inside] + MEANS[inside] ** 2) - mean**2
    assert (np.abs(x0.mean(0) - mean) < 4.0 * np.sqrt(variance / len(x0))).all()
    squares = (x0 - mean) ** 2
    standard_error = squares.std(0) / np.sqrt(len(x0))
    assert (np.abs(squares.mean(0) - variance) < 4.0 * standard_error).all()


@pytest.mark.parametrize("variances", [0.5, [0.5] * 4, [[0.5, 0.5]] * 4])
def test_mixture_params_broadcast_variances_and_normalise_weights(variances):
    exact = GaussianMixture(labels=LABELS, schedule=FLOW)
    spread = variances if isinstance(variances, float) else jnp.asarray(variances)
    params = exact.params(jnp.asarray(MEANS), spread)
    np.testing.assert_array_equal(params.variances, np.full((4, 2), 0.5))
    np.testing.assert_allclose(np.exp(params.log_weights), 0.25, rtol=1e-6)
    weighted = exact.params(jnp.asarray(MEANS), spread, 10.0 * WEIGHTS * jnp.ones(4))
    np.testing.assert_allclose(np.exp(weighted.log_weights), WEIGHTS, rtol=1e-6)


class PointMassOracle(nn.Module):
    """Predicts in its kind, from what a network is given, for data that are all mu."""

    mu: float
    schedule: Schedule
    kind: str

    @nn.compact
    def __call__(self, x, logsnr, labels):
        t = self.schedule.t_from_logsnr(logsnr)
        size = jnp.sqrt(self.schedule.alpha(t) ** 2 + self.schedule.sigma(t) ** 2)
        x_t = x * size[:, None]
        mu = jnp.full_like(x, self.mu)
        prediction = from_x0(mu, x_t, t=t, schedule=self.schedule, kind=self.kind)
        return prediction / expand(output_scale(t, schedule=self.schedule, kind=self.kind), x)


@pytest.fixture(scope="module")
def read_by_kind(schedule):
    """x0_hat of networks of every kind that know the data to be 1.5."""
    eps = np.random.default_rng(3).normal(size=(6, 2)).astype(np.float32)

    @jax.jit
    def evaluate(eps, t, c):
        x_t = noised(jnp.full(eps.shape, 1.5), eps, t=t, schedule=schedule)

        def read(kind):
            oracle = PointMassOracle(mu=1.5, schedule=schedule, kind=kind)
            denoiser = NetworkDenoiser(module=oracle, schedule=schedule, num_classes=2, kind=kind)
            return denoiser.apply({}, x_t, t=t, c=c)

        return {kind: read(kind) for kind in KINDS}

    return evaluate(eps, jnp.linspace(0.05, 0.95, 6), jnp.zeros(6, jnp.int32))


@pytest.mark.parametrize("kind", KINDS)
def test_network_of_any_kind_is_read_as_x0(read_by_kind, kind):
    tolerance = 2e-2 if kind in ("eps", "score") else 2e-3
    np.testing.assert_allclose(read_by_kind[kind], 1.5, rtol=tolerance)


@pytest.fixture(scope="module")
def small_mlp():
    """A residual MLP with its first params, and with random ones."""
    module = ResidualMLP(num_classes=2, width=8, depth=1)
    denoiser = NetworkDenoiser(module=module, schedule=FLOW, num_classes=2, kind="x0")
    params = jax.jit(denoiser.init, static_argnums=1)(jax.random.key(0), (2, 3))
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(4)
    noise = [jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    apply = jax.jit(lambda params, x, t, c: denoiser.apply(params, x, t=t, c=c))
    return apply, params, jax.tree.unflatten(structure, noise)


def test_mlp_starts_at_zero(small_mlp):
    apply, params, _ = small_mlp
    out = apply(params, x=jnp.ones((3, 2, 3)), t=jnp.full(3, 0.4), c=jnp.arange(3))
    np.testing.assert_array_equal(out, jnp.zeros((3, 2, 3)))


@pytest.mark.parametrize("varied", ["x", "t", "c"])
def test_mlp_depends_on_all_it_is_given(small_mlp, varied):
    apply, _, params = small_mlp
    x = jnp.ones((3, 2, 3))
    inputs = {"x": x, "t": jnp.full(3, 0.4), "c": jnp.zeros(3, jnp.int32)}
    changes = {"x": x.at[1:].add(0.5), "t": jnp.array([0.4, 0.5, 0.6]), "c": jnp.arange(3)}
    out = apply(params, **(inputs | {varied: changes[varied]}))
    assert not np.allclose(out[0], out[1])
    assert not np.allclose(out[0], out[2])


def test_gain_of_an_mlp_scales_every_entry_by_a_function_of_t():
    module = ResidualMLP(num_classes=2, width=1, depth=0, gain=True)
    x, logsnr = jnp.arange(1.0, 9.0).reshape(2, 2, 2), jnp.array([-1.0, 2.0])
    params = module.init(jax.random.key(0), x, logsnr, jnp.zeros(2, jnp.int32))
    gain = params["params"]["gain"] | {"bias": jnp.array([1.0, 2.0, 3.0, 0.0])}
    params = {"params": params["params"] | {"gain": gain}}
    out = module.apply(params, x, logsnr, jnp.zeros(2, jnp.int32))
    np.testing.assert_allclose(out, x * jnp.array([[[1.0, 2.0], [3.0, 0.0]]]), rtol=1e-6)
    gain["kernel"] = jnp.ones((64, 4))
    out = module.apply(params, x, logsnr, jnp.zeros(2, jnp.int32)) / x
    assert not np.allclose(out[0], out[1])


@pytest.mark.parametrize("kind", KINDS)
def test_function_is_read_in_its_kind(kind):
    schedule = schedules.cosine()
    t = jnp.linspace(0.2, 0.8, 4)
    x_t, raw = jnp.asarray(np.random.default_rng(5).normal(size=(2, 4, 2)), jnp.float32)

    def function(params, x_t, t, c):
        return params * raw + c[:, None]

    denoiser = from_function(function, schedule=schedule, kind=kind, null=7)
    c = jnp.arange(4)
    found = denoiser.apply(2.0, x_t, t=t, c=c)
    prediction = 2.0 * raw + c[:, None]
    expected = to_x0(prediction, x_t, t=t, schedule=schedule, kind=kind)
    np.testing.assert_array_equal(found, expected)


def test_function_of_another_shape_raises():
    denoiser = from_function(lambda p, x, t, c: x[:, :1], schedule=FLOW, kind="x0", null=7)
    with pytest.raises(ValueError, match=r"expected a prediction of shape \(3, 2\), got \(3, 1\)"):
        denoiser.apply({}, jnp.ones((3, 2)), t=jnp.ones(3), c=jnp.arange(3))


def test_null_of_a_function_may_be_a_function():
    denoiser = from_function(
        lambda p, x, t, c: x,
        schedule=FLOW,
        kind="x0",
        null=lambda c: jax.tree.map(jnp.zeros_like, c),
    )
    null = denoiser.null({"text": jnp.ones((3, 5)), "mask": jnp.ones(3, bool)})
    np.testing.assert_array_equal(null["text"], jnp.zeros((3, 5)))
    np.testing.assert_array_equal(null["mask"], jnp.zeros(3, bool))


@pytest.mark.parametrize(
    ("make", "label"),
    [
        (lambda: GaussianMixture(labels=LABELS, schedule=FLOW), NULL),
        (
            lambda: NetworkDenoiser(
                module=ResidualMLP(num_classes=10), schedule=FLOW, num_classes=10
            ),
            10,
        ),
        (lambda: from_function(np.add, schedule=FLOW, kind="eps", null=1000), 1000),
    ],
)
def test_denoisers_are_contracts_equal_by_value_with_a_null_like_their_labels(make, label):
    denoiser = make()
    assert isinstance(denoiser, Denoiser)
    assert (make(), hash(make())) == (denoiser, hash(denoiser))
    null = denoiser.null(jnp.arange(3, dtype=jnp.int16))
    assert null.dtype == jnp.int16
    np.testing.assert_array_equal(null, [label] * 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: GaussianMixture(labels=(0, 2), schedule=FLOW),
        lambda: GaussianMixture(labels=(1, 2), schedule=FLOW),
        lambda: GaussianMixture(labels=(0, 1), schedule=FLOW).params(jnp.zeros((3, 2)), 1.0),
        lambda: NetworkDenoiser(ResidualMLP(num_classes=2), FLOW, 2, kind="noise"),
        lambda: from_function(np.add, schedule=FLOW, kind="noise", null=7),
        lambda: from_function(np.add, schedule=FLOW, kind="noise", pair=np.add),
    ],
)
def test_bad_arguments_raise(unchecked, call):
    with pytest.raises(ValueError, match=r"expected .*, got"):
        call()
