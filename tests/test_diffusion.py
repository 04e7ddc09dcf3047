import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import lgd
from lgd import denoisers, diffusion, schedules
from lgd.machinery import parallel

CHURNS = np.array([0.0, 0.05, 0.5, 1.0], np.float32)
ENDS = np.array([(1.0, 0.0), (1.0, 0.5), (0.5, 0.0), (1.0, 0.99), (0.01, 0.0)])
RANDOM = np.random.default_rng(0).uniform(0.0, 0.9, size=(20, 1)) + np.array([[0.07, 0.02]])
PAIRS = np.concatenate([ENDS, RANDOM]).astype(np.float32)  # (t, s)
MU = 1.7
FLOW = schedules.rectified_flow()


@pytest.fixture(params=schedules.BY_NAME, scope="module")
def schedule(request):
    return schedules.BY_NAME[request.param]()


@pytest.fixture
def unchecked():
    """jaxtyping's own check of arguments is off, as it is outside these tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def converted(schedule):
    """The truth by definition, and what every ordered pair of kinds makes of it."""
    rng = np.random.default_rng(1)
    x0, eps = rng.normal(size=(2, 6, 2, 3)).astype(np.float32)
    t = rng.uniform(0.05, 0.95, size=6).astype(np.float32)

    def convert(source, target, prediction, x_t, t):
        estimate = diffusion.to_x0(prediction, x_t, t=t, schedule=schedule, kind=source)
        return diffusion.from_x0(estimate, x_t, t=t, schedule=schedule, kind=target)

    @jax.jit
    def evaluate(x0, eps, t):
        def path(u):
            return diffusion.noised(x0, eps, t=u, schedule=schedule)

        def log_density(x):
            scale = jnp.broadcast_to(sigma, x.shape)
            return jnp.sum(jax.scipy.stats.norm.logpdf(x, alpha * x0, scale))

        alpha, sigma = (f(t)[:, None, None] for f in (schedule.alpha, schedule.sigma))
        x_t = path(t)
        truth = {
            "x0": x0,
            "eps": eps,
            "v": alpha * eps - sigma * x0,
            "velocity": jax.jvp(path, (t,), (jnp.ones_like(t),))[1],
            "score": jax.grad(log_density)(x_t),
        }
        pairs = {
            (source, target): convert(source, target, truth[source], x_t, t)
            for source in truth
            for target in truth
        }
        return truth, pairs

    return jax.tree.map(np.asarray, evaluate(x0, eps, t))


@pytest.fixture(scope="module")
def kernel(schedule):
    """Coefficients for every churn and pair of times, (churns, pairs), and their slope in churn."""

    @jax.jit
    def evaluate(t, s):
        def coefficients(churn):
            return diffusion.bridge_coefficients(t, s, schedule=schedule, churn=churn)

        parts = [f(u) for u in (t, s) for f in (schedule.alpha, schedule.sigma)]
        return parts, jax.vmap(coefficients)(CHURNS), jax.vmap(jax.jacfwd(coefficients))(CHURNS)

    parts, values, slopes = jax.tree.map(np.float64, evaluate(*PAIRS.T))
    names = ("alpha_t", "sigma_t", "alpha_s", "sigma_s")
    parts = dict(zip(names, parts, strict=True))
    churn = CHURNS[:, None].astype(np.float64)
    r = parts["alpha_t"] * parts["sigma_s"] / (parts["alpha_s"] * parts["sigma_t"])
    k = churn**2 * r + 1.0 - churn**2
    return SimpleNamespace(**parts, **values._asdict(), slopes=slopes, r=r, k=k)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("target", diffusion.KINDS)
@pytest.mark.parametrize("source", diffusion.KINDS)
def test_every_kind_converts_to_every_other(converted, source, target):
    truth, pairs = converted
    scale = np.abs(truth[target]).max()
    np.testing.assert_allclose(pairs[source, target], truth[target], atol=2e-4 * scale)


def test_conversions_are_right_at_the_ends_and_nan_where_the_kind_says_nothing_of_x0(schedule):
    t = jnp.array([0.0, 1.0])
    x0, eps = np.random.default_rng(2).normal(size=(2, 2, 4)).astype(np.float32)

    @jax.jit
    def there_and_back(x0, eps, t):
        x_t = diffusion.noised(x0, eps, t=t, schedule=schedule)

        def both(kind):
            prediction = diffusion.from_x0(x0, x_t, t=t, schedule=schedule, kind=kind)
            return prediction, diffusion.to_x0(prediction, x_t, t=t, schedule=schedule, kind=kind)

        return {kind: both(kind) for kind in diffusion.KINDS}, schedule.alpha(t)

    results, alpha = jax.tree.map(np.asarray, there_and_back(x0, eps, t))
    for kind, (prediction, again) in results.items():
        assert np.isfinite(prediction).all(), kind
        known = alpha > (0.0 if kind in ("eps", "score") else -1.0)
        assert np.isnan(again[~known]).all(), kind
        np.testing.assert_allclose(again[known], x0[known], rtol=1e-3, atol=1e-3, err_msg=kind)


@pytest.mark.parametrize("convert", [diffusion.to_x0, diffusion.from_x0])
def test_unknown_kind_raises(unchecked, convert):
    x = jnp.zeros((1, 2))
    with pytest.raises(ValueError, match=r"expected kind in .*, got 'noise'"):
        convert(x, x, t=jnp.ones(1), schedule=schedules.cosine(), kind="noise")


def test_point_mass_is_carried_exactly(kernel):
    """N(alpha_t mu, sigma_t^2) goes to N(alpha_s mu, sigma_s^2)."""
    mean = kernel.x0 * MU + kernel.x_t * kernel.alpha_t * MU
    variance = kernel.x_t**2 * kernel.sigma_t**2 + kernel.noise**2
    np.testing.assert_allclose(mean, np.broadcast_to(kernel.alpha_s * MU, mean.shape), rtol=1e-5)
    expected = np.broadcast_to(kernel.sigma_s**2, variance.shape)
    np.testing.assert_allclose(variance, expected, rtol=1e-5)


def test_kernel_with_posterior_samples_preserves_gaussian_marginals(kernel):
    """Data N(m, v); x0 | x_t is normal, its mean linear in x_t. The mean alone is too narrow."""
    m, v = 0.8, 0.6
    x_t_variance = kernel.alpha_t**2 * v + kernel.sigma_t**2
    slope = kernel.alpha_t * v / x_t_variance
    intercept = m - slope * kernel.alpha_t * m
    posterior_variance = v * kernel.sigma_t**2 / x_t_variance

    from_mean = (kernel.x0 * slope + kernel.x_t) ** 2 * x_t_variance + kernel.noise**2
    variance = from_mean + kernel.x0**2 * posterior_variance
    mean = kernel.x0 * intercept + (kernel.x0 * slope + kernel.x_t) * kernel.alpha_t * m
    np.testing.assert_allclose(
        mean, np.broadcast_to(kernel.alpha_s * m, mean.shape), rtol=1e-4, atol=1e-5
    )
    expected = np.broadcast_to(kernel.alpha_s**2 * v + kernel.sigma_s**2, variance.shape)
    np.testing.assert_allclose(variance, expected, rtol=1e-4)
    assert (from_mean < expected).all()


def test_without_churn_it_is_ddim(kernel):
    eps_from_x_t = kernel.sigma_s / kernel.sigma_t
    np.testing.assert_allclose(kernel.x_t[0], eps_from_x_t, rtol=1e-5)
    np.testing.assert_allclose(
        kernel.x0[0], kernel.alpha_s - eps_from_x_t * kernel.alpha_t, rtol=1e-4, atol=1e-6
    )
    assert (kernel.noise[0] == 0.0).all()


def test_with_full_churn_it_is_the_ddpm_posterior(kernel):
    """x_s ~ N(alpha_s x0, sigma_s^2), x_t = a x_s + noise, conditioned on x_t."""
    a = kernel.alpha_t / kernel.alpha_s
    q = kernel.sigma_t**2 - a**2 * kernel.sigma_s**2
    gain = a * kernel.sigma_s**2 / (a**2 * kernel.sigma_s**2 + q)
    np.testing.assert_allclose(kernel.x_t[-1], gain, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(kernel.x0[-1], kernel.alpha_s * (1.0 - gain * a), rtol=1e-4)
    np.testing.assert_allclose(
        kernel.noise[-1] ** 2, kernel.sigma_s**2 * (1.0 - gain * a), rtol=1e-4
    )


@pytest.mark.parametrize("schedule", ["cosine", "linear_vp"], indirect=True)
def test_churn_is_an_eta_of_diffusers(kernel):
    """Song et al. (2021), Eq. 12 and 16, with eta^2 = (1 - k^2) / (1 - r^2)."""
    eta = np.sqrt((1.0 - kernel.k**2) / (1.0 - kernel.r**2))
    before, after = kernel.alpha_t**2, kernel.alpha_s**2
    std = eta * np.sqrt((1.0 - after) / (1.0 - before) * (1.0 - before / after))
    direction = np.sqrt(1.0 - after - std**2)
    tolerance = {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(kernel.noise, std, **tolerance)
    np.testing.assert_allclose(kernel.x_t, direction / kernel.sigma_t, **tolerance)
    np.testing.assert_allclose(
        kernel.x0, kernel.alpha_s - direction * kernel.alpha_t / kernel.sigma_t, **tolerance
    )
    np.testing.assert_allclose(eta[[0, -1]] - CHURNS[[0, -1], None], 0.0, atol=1e-9)
    assert (eta[2] > CHURNS[2]).all()


def test_derivative_in_churn_is_finite_and_right_at_zero(kernel):
    assert all(np.isfinite(slope).all() for slope in kernel.slopes)
    np.testing.assert_allclose(
        kernel.slopes.noise[0], kernel.sigma_s * np.sqrt(2.0 * (1.0 - kernel.r)), rtol=1e-4
    )
    assert not kernel.slopes.x0[0].any()
    assert not kernel.slopes.x_t[0].any()


def test_small_steps_keep_their_digits(schedule):
    t = np.linspace(0.01, 0.999, 40, dtype=np.float32)
    s = t - np.float32(1e-3)
    churns = CHURNS[1:]

    @jax.jit
    def evaluate(t, s):
        return jax.vmap(
            lambda churn: diffusion.bridge_coefficients(t, s, schedule=schedule, churn=churn)
        )(churns)

    found = evaluate(t, s)
    with jax.enable_x64(True):
        double = [jnp.asarray(u, jnp.float64) for u in (t, s)]
        alpha_t, alpha_s = (np.asarray(schedule.alpha(u)) for u in double)
        sigma_t, sigma_s = (np.asarray(schedule.sigma(u)) for u in double)
    assert sigma_s.dtype == np.float64
    k = churns[:, None].astype(np.float64) ** 2 * (alpha_t * sigma_s) / (alpha_s * sigma_t)
    k = k + 1.0 - churns[:, None].astype(np.float64) ** 2
    kappa = sigma_s / sigma_t * k
    np.testing.assert_allclose(found.x_t, kappa, rtol=1e-5)
    np.testing.assert_allclose(found.x0, alpha_s - kappa * alpha_t, rtol=1e-3)
    np.testing.assert_allclose(found.noise, sigma_s * np.sqrt(1.0 - k**2), rtol=1e-3)


@pytest.fixture(scope="module")
def cloud():
    """Point-mass data, 4,096 examples with times of their own."""
    rng = np.random.default_rng(3)
    t, s = PAIRS[rng.integers(len(PAIRS), size=4096)].T
    return jnp.full((4096, 2), MU), jnp.asarray(t), jnp.asarray(np.maximum(s, 0.01))


def assert_standard_normal(z):
    """Mean and variance within 4 standard errors."""
    n = z.size
    assert abs(np.mean(z)) < 4.0 / np.sqrt(n)
    assert abs(np.var(z) - 1.0) < 4.0 * np.sqrt(2.0 / n)


@jax.jit
def standardised_draws(mu, t, s, churn):
    """x_t and x_s of point-mass data, less their mean and over their deviation."""
    cosine, (noise_key, step_key) = schedules.cosine(), jax.random.split(jax.random.key(0))
    x_t = diffusion.add_noise(noise_key, mu, t=t, schedule=cosine)
    x_s = diffusion.bridge_step(step_key, x_t, mu, t=t, s=s, schedule=cosine, churn=churn)
    return [
        (x - cosine.alpha(u)[:, None] * mu) / cosine.sigma(u)[:, None]
        for x, u in ((x_t, t), (x_s, s))
    ]


@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0])
def test_draws_follow_the_marginals_of_a_point_mass(cloud, churn):
    for z in standardised_draws(*cloud, churn):
        assert_standard_normal(z)


def test_for_rectified_flow_a_step_without_churn_is_eulers(cloud):
    mu, t, s = cloud
    flow = schedules.rectified_flow()
    key = jax.random.key(0)

    @jax.jit
    def both():
        x_t = diffusion.add_noise(key, mu, t=t, schedule=flow)
        x0_hat = jnp.sin(x_t)
        step = diffusion.bridge_step(key, x_t, x0_hat, t=t, s=s, schedule=flow, churn=0.0)
        velocity = diffusion.from_x0(x0_hat, x_t, t=t, schedule=flow, kind="velocity")
        return step, x_t + (s - t)[:, None] * velocity

    np.testing.assert_allclose(*both(), rtol=1e-5, atol=1e-5)


def test_denoise_pair_is_two_calls_in_one_batch():
    batches = []

    class Recorder:
        schedule = schedules.cosine()

        def apply(self, params, x_t, *, t, c):
            batches.append(len(x_t))
            return params * x_t + (t + c["label"])[:, None] + c["vector"]

        def null(self, c):
            return {"label": jnp.full_like(c["label"], 9), "vector": -c["vector"]}

    x_t, vector = jnp.asarray(np.random.default_rng(4).normal(size=(2, 3, 5)), jnp.float32)
    t, c = jnp.arange(3.0), {"label": jnp.arange(3), "vector": vector}
    pair = jax.jit(lambda x, t, c: diffusion.denoise_pair(Recorder(), 2.0, x, t=t, c=c))(x_t, t, c)
    assert batches == [6]
    for found, condition in zip(pair, (c, Recorder().null(c)), strict=True):
        alone = Recorder().apply(2.0, x_t, t=t, c=condition)
        np.testing.assert_allclose(found, alone, rtol=1e-6)


# Where models know no x0


@pytest.mark.parametrize("name", schedules.BY_NAME)
@pytest.mark.parametrize("kind", diffusion.KINDS)
def test_the_latest_time_is_the_last_thousandth_where_alpha_is_above_a_thousandth(name, kind):
    latest = diffusion.latest_time(schedules.BY_NAME[name](), kind)
    vanishes = name in ("rectified_flow", "cosine") and kind in ("eps", "score")
    assert latest == (pytest.approx(0.999, abs=1e-12) if vanishes else 1.0)


def test_a_schedule_that_nearly_vanishes_counts_too():
    """That of cosine with its clip at beta = 0.999: alpha(1) = 5e-5, where eps is worth nothing."""

    class Capped(schedules.Cosine):
        def alpha(self, t):
            return jnp.maximum(super().alpha(t), 5e-5)

    assert diffusion.latest_time(Capped(), "eps") == pytest.approx(0.999)


@pytest.mark.parametrize("kind", ["eps", "score"])
def test_a_denoiser_and_what_is_made_of_it_know_their_latest_time(kind):
    def model(kind):
        return denoisers.from_function(lambda p, x, t, c: x, kind=kind, schedule=FLOW, null=2)

    module = denoisers.ResidualMLP(num_classes=2, width=4, depth=1)
    late, early = model("velocity"), model(kind)
    mesh = parallel.make_mesh(2)
    for denoiser in (
        early,
        denoisers.NetworkDenoiser(module, FLOW, 2, kind),
        denoisers.Directions(late, {"weaker": early}),
        parallel.spread(early, mesh),
        parallel.spread(denoisers.Directions(late, {"weaker": early}), mesh),
    ):
        assert diffusion.t_max(denoiser) == pytest.approx(0.999)
        diffusion.check_start(denoiser, (0.999, 0.0))
        diffusion.check_start(denoiser, schedules.uniform_times(4, start=0.999))
        with pytest.raises(ValueError, match=r"first time <= 0.999, got 1: .*start=0.999"):
            diffusion.check_start(denoiser, (1.0, 0.0))
    diffusion.check_start(late, (1.0, 0.0))


# Schedules of one's own


@dataclasses.dataclass
class Plain:
    """Not frozen, so that it has no hash."""

    power: float = 1.0

    def alpha(self, t):
        return 1.0 - t**self.power

    def sigma(self, t):
        return t**self.power

    def logsnr(self, t):
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def t_from_logsnr(self, logsnr):
        return jax.nn.sigmoid(-0.5 * logsnr) ** (1.0 / self.power)


@dataclasses.dataclass(frozen=True)
class Tabulated:
    """Frozen, but an array has no hash."""

    power: np.ndarray = dataclasses.field(default_factory=lambda: np.float32(1.0) * np.ones(()))
    alpha, sigma = Plain.alpha, Plain.sigma
    logsnr, t_from_logsnr = Plain.logsnr, Plain.t_from_logsnr


class Methods:
    """No dataclass at all."""

    alpha, sigma, logsnr = (staticmethod(getattr(FLOW, n)) for n in ("alpha", "sigma", "logsnr"))
    t_from_logsnr = staticmethod(FLOW.t_from_logsnr)


@pytest.mark.parametrize("made", [Plain, Tabulated, Methods])
@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m"])
def test_any_object_with_the_four_maps_is_a_schedule(made, solver):
    def samples(schedule):
        denoiser = denoisers.from_function(
            lambda p, x, t, c: 0.5 * x, kind="x0", schedule=schedule, null=2
        )
        c = jnp.array([0, 1])
        key = jax.random.key(0)
        return lgd.sample(key, denoiser, (), c, shape=(3,), num_steps=3, solver=solver).x0

    np.testing.assert_allclose(samples(made()), samples(FLOW), rtol=1e-5)


def test_a_schedule_is_held_by_its_values():
    """Equal ones are equal, and one that is changed later changes no denoiser made before."""
    plain = Plain(1.0)
    held = diffusion.checked_schedule(plain)
    assert (held, hash(held)) == (diffusion.checked_schedule(Plain()), hash(held))
    assert held != diffusion.checked_schedule(Plain(2.0))
    plain.power = 2.0
    assert float(held.sigma(jnp.float32(0.5))) == 0.5
    assert diffusion.checked_schedule(FLOW) is FLOW
