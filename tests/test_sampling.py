import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import softmax

from lgd import guidance, sampling, schedules
from lgd.denoisers import Directions, GaussianMixture, from_function
from lgd.diffusion import add_noise, bridge_step, denoise_pair

pytestmark = pytest.mark.usefixtures("quick_compilation")
SCHEDULES = {
    "rectified_flow": schedules.rectified_flow(),
    "cosine": schedules.cosine(),
    "linear_vp": schedules.linear_vp(),
    "edm": schedules.edm(),
}
SOLVERS = ("ddim", "heun", "heun_edm", "dpmpp_2m")
MEANS = np.asarray([[1.0, 0.2], [-0.8, 0.9], [0.1, -1.2]])
VARIANCES = np.asarray([0.10, 0.05, 0.15])
LABELS = (0, 0, 1)
CLASSES = jnp.asarray([0, 1, 1, 0, 0], jnp.int32)


@functools.cache
def mixture(schedule):
    model = GaussianMixture(LABELS, schedule)
    return model, model.params(jnp.asarray(MEANS, jnp.float32), jnp.asarray(VARIANCES, jnp.float32))


class Unguided(NamedTuple):
    """A denoiser whose two predictions agree; its params say which of the two they are."""

    base: GaussianMixture

    @property
    def schedule(self):
        return self.base.schedule

    def apply(self, params, x_t, *, t, c):
        params, use_null = params
        return self.base.apply(params, x_t, t=t, c=jnp.where(use_null, self.base.null(c), c))

    def null(self, c):
        return c


def run(denoiser, params, omegas, *, key=0, c=CLASSES, times=None, solver="ddim", churn=0.0):
    times = schedules.uniform_times(len(omegas)) if times is None else times
    return sampling.sample(
        jax.random.key(key),
        denoiser,
        params,
        c,
        shape=(2,),
        guidance=omegas,
        times=times,
        churn=churn,
        solver=solver,
        return_trajectory=True,
    )


@functools.cache
def walker(name, solver="ddim", labels=LABELS):
    """`unroll` compiled once for each schedule, solver and shape."""
    denoiser = GaussianMixture(labels, SCHEDULES[name])

    def walk(key, params, omegas, c, x_t, times, churn):
        walk = {"guidance": omegas, "times": times, "churn": churn, "solver": solver}
        return sampling.unroll(key, denoiser, params, c, x_t, **walk)

    return jax.jit(walk)


@functools.cache
def plain_step(name):
    """One DDIM step without scan and without checkpoint."""
    denoiser = mixture(SCHEDULES[name])[0]

    def step(key, params, omega, c, x_t, t, s, churn):
        t, s = jnp.full(len(x_t), t), jnp.full(len(x_t), s)
        x0_hat = guidance.mix(*denoise_pair(denoiser, params, x_t, t=t, c=c), omega)
        return bridge_step(key, x_t, x0_hat, t=t, s=s, schedule=denoiser.schedule, churn=churn)

    return jax.jit(step)


def plain_walk(name, key, params, omegas, c, x, times, churn):
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        x = plain_step(name)(jax.random.fold_in(key, i), params, omegas[i], c, x, t, s, churn)
    return x


WALKS = [("ddim", 0.0), ("ddim", 0.6), ("heun", 0.0), ("dpmpp_2m", 0.0)]


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("solver", "churn"), WALKS)
@pytest.mark.parametrize(("omega", "use_null"), [(0.0, False), (-1.0, True)])
def test_omega_0_and_minus_1_are_bitwise_the_unguided_samplers(solver, churn, omega, use_null):
    denoiser, params = mixture(SCHEDULES["rectified_flow"])
    omegas = jnp.full((4, 5), omega)
    guided = run(denoiser, params, omegas, solver=solver, churn=churn)
    unguided, both = Unguided(denoiser), (params, jnp.asarray(use_null))
    plain = run(unguided, both, jnp.full((4, 5), 0.3), solver=solver, churn=churn)
    np.testing.assert_array_equal(guided.trajectory, plain.trajectory)
    other = run(denoiser, params, jnp.full((4, 5), 0.3), solver=solver, churn=churn)
    assert not np.allclose(guided.x0, other.x0, atol=1e-3)


class Numpy:
    """The probability flow of the mixture and its solvers, in float64 and from the formulas."""

    def __init__(self, name):
        self.name = name

    def alpha(self, t):
        return 1.0 - t if self.name == "rectified_flow" else np.cos(np.pi * t / 2)

    def sigma(self, t):
        return t if self.name == "rectified_flow" else np.sin(np.pi * t / 2)

    def rates(self, t):
        if self.name == "rectified_flow":
            return -1.0, 1.0
        return -np.pi / 2 * np.sin(np.pi * t / 2), np.pi / 2 * np.cos(np.pi * t / 2)

    def x0_hat(self, x, t, omega, c):
        alpha, sigma = self.alpha(t), self.sigma(t)
        total = alpha**2 * VARIANCES[:, None] + sigma**2
        residual = x[:, None] - alpha * MEANS
        log_joint = -0.5 * np.sum(residual**2 / total + np.log(total), axis=-1)
        each = MEANS + alpha * VARIANCES[:, None] / total * residual

        def mean(member):
            weights = softmax(np.where(member, log_joint, -np.inf), axis=1)
            return np.sum(weights[..., None] * each, axis=1)

        cond = mean(np.asarray(LABELS) == np.asarray(c)[:, None])
        uncond = mean(np.ones_like(log_joint, bool))
        return cond + np.asarray(omega)[:, None] * (cond - uncond)

    def drift(self, x, t, omega, c):
        x0_hat = self.x0_hat(x, t, omega, c)
        alpha_rate, sigma_rate = self.rates(t)
        return alpha_rate * x0_hat + sigma_rate * (x - self.alpha(t) * x0_hat) / self.sigma(t)

    def ddim(self, x, t, s, x0_hat):
        return self.alpha(s) * x0_hat + self.sigma(s) / self.sigma(t) * (x - self.alpha(t) * x0_hat)

    def walk(self, solver, x, times, omegas, c):
        half_logsnr = [np.log(self.alpha(t) / self.sigma(t)) for t in times]
        previous = None
        for i, (t, s) in enumerate(itertools.pairwise(times)):
            x0_hat = self.x0_hat(x, t, omegas[i], c)
            middle = 0 < i < len(times) - 2
            if solver == "heun" and i < len(times) - 2:
                slope = self.drift(x, t, omegas[i], c)
                x_euler = self.ddim(x, t, s, x0_hat)
                x = x + (s - t) * 0.5 * (slope + self.drift(x_euler, s, omegas[i], c))
            elif solver == "heun_edm" and i < len(times) - 2:  # Karras et al. (2022), Alg. 1
                ratio, after = self.sigma(t) / self.alpha(t), self.sigma(s) / self.alpha(s)
                y, y_euler = x / self.alpha(t), self.ddim(x, t, s, x0_hat) / self.alpha(s)
                second = self.x0_hat(y_euler * self.alpha(s), s, omegas[i], c)
                slope = (y - x0_hat) / ratio + (y_euler - second) / after
                x = self.alpha(s) * (y + (after - ratio) * 0.5 * slope)
            elif solver == "dpmpp_2m" and middle:  # Lu et al. (2022), Alg. 2
                h, h_last = half_logsnr[i + 1] - half_logsnr[i], half_logsnr[i] - half_logsnr[i - 1]
                ratio = h_last / h
                extrapolated = (1 + 1 / (2 * ratio)) * x0_hat - 1 / (2 * ratio) * previous
                decay = self.sigma(s) / self.sigma(t)
                x = decay * x - self.alpha(s) * np.expm1(-h) * extrapolated
            else:
                x = self.ddim(x, t, s, x0_hat)
            previous = x0_hat
        return x


@pytest.mark.parametrize("name", ["rectified_flow", "cosine"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_scan_equals_a_float64_loop_from_the_formulas(solver, name):
    params = mixture(SCHEDULES[name])[1]
    rng = np.random.default_rng(0)
    omegas, start = rng.uniform(-0.5, 2.0, (4, 5)), rng.normal(size=(5, 2))
    times = np.asarray([0.97, 0.8, 0.6, 0.35, 0.05])
    arrays = (jnp.asarray(a, jnp.float32) for a in (omegas, start, times))
    omegas_, start_, times_ = arrays
    end = walker(name, solver)(jax.random.key(0), params, omegas_, CLASSES, start_, times_, 0.0)
    expected = Numpy(name).walk(solver, start, times, omegas, CLASSES)
    np.testing.assert_allclose(end, expected, atol=2e-5)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0])
def test_scan_equals_a_python_loop_of_bridge_steps(name, churn):
    params = mixture(SCHEDULES[name])[1]
    omegas = jax.random.uniform(jax.random.key(1), (4, 5))
    times = jnp.asarray([0.9, 0.7, 0.5, 0.3, 0.1])
    start, key = jax.random.normal(jax.random.key(2), (5, 2)), jax.random.key(3)
    arguments = (key, params, omegas, CLASSES, start, times, churn)
    np.testing.assert_allclose(
        walker(name)(*arguments), plain_walk(name, *arguments), rtol=1e-5, atol=1e-5
    )


NUM_STEPS = (32, 128)


@pytest.fixture(scope="module")
def flow_start():
    rng = np.random.default_rng(5)
    return rng.normal(size=(16, 2)), rng.integers(0, 2, 16), rng.uniform(-0.3, 1.0, 16)


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("solver", "order"), [("ddim", 1), ("heun", 2), ("heun_edm", 2), ("dpmpp_2m", 2)]
)
@pytest.mark.parametrize("name", ["rectified_flow", "cosine"])
def test_order_of_convergence(flow_start, name, solver, order):
    start, c, omega = flow_start
    params = mixture(SCHEDULES[name])[1]
    flow, lo, hi = Numpy(name), 0.02, 0.98

    def slope(t, x):
        return flow.drift(x.reshape(-1, 2), t, omega, c).ravel()

    exact = solve_ivp(slope, (hi, lo), start.ravel(), rtol=1e-10, atol=1e-12).y[:, -1]

    def error(num_steps):
        times = schedules.logsnr_times(num_steps, SCHEDULES[name], start=hi, end=lo)
        omegas = jnp.broadcast_to(jnp.asarray(omega, jnp.float32), (num_steps, 16))
        x_t, labels = jnp.asarray(start, jnp.float32), jnp.asarray(c, jnp.int32)
        end = walker(name, solver)(jax.random.key(0), params, omegas, labels, x_t, times, 0.0)
        return np.sqrt(np.mean((np.ravel(end) - exact) ** 2))

    errors = [error(n) for n in NUM_STEPS]
    measured = np.log(errors[0] / errors[1]) / np.log(NUM_STEPS[1] / NUM_STEPS[0])
    assert abs(measured - order) < 0.2


@pytest.mark.parametrize("name", ["rectified_flow", "edm"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_data_time_is_reached_by_returning_x0_hat(name, solver):
    denoiser, params = mixture(SCHEDULES[name])
    omegas = jnp.full((4, 5), 0.7)
    samples = run(denoiser, params, omegas, solver=solver, churn=float(solver == "ddim"))
    before, t = samples.trajectory[-2], jnp.full(5, 0.25)
    pair = jax.jit(denoise_pair, static_argnums=0)(denoiser, params, before, t=t, c=CLASSES)
    expected = guidance.mix(*pair, 0.7)
    np.testing.assert_allclose(samples.x0, expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(samples.trajectory).all()


@pytest.mark.parametrize("churns", [[1, 0.5, np.float64(0.25), jnp.asarray(0.75)], [0.0, 0]])
def test_one_compilation_serves_all_omegas_keys_times_classes_and_churn(churns):
    """Sampling without noise is a program of its own, which draws none."""
    traces = []

    def network(params, x_t, t, c):
        traces.append(len(x_t))
        return params * x_t + c[:, None]

    denoiser = from_function(network, schedule=SCHEDULES["rectified_flow"], kind="x0", null=2)
    drawn = []
    for seed, churn in enumerate(churns):
        omega_fn = guidance.constant(0.5 * seed) if seed % 2 else guidance.clamp_linear(2.0)
        times = schedules.uniform_times(7, start=1.0 - 0.05 * seed, end=0.02 * seed)
        walk = {"c": jnp.roll(CLASSES, seed), "times": times, "churn": churn}
        drawn.append(run(denoiser, 0.5, omega_fn, key=seed, **walk).x0)
        first = len(traces) if seed == 0 else first
    assert 0 < len(traces) == first
    assert not np.allclose(drawn[0], drawn[1], atol=1e-2)


def test_trajectory_has_every_state_from_the_noise_to_the_result():
    denoiser, params = mixture(SCHEDULES["edm"])
    c = jnp.zeros(4096, jnp.int32)
    samples = run(denoiser, params, jnp.zeros((3, 4096)), c=c)
    assert samples.trajectory.shape == (4, 4096, 2)
    np.testing.assert_array_equal(samples.trajectory[-1], samples.x0)
    start = np.asarray(samples.trajectory[0]) / 80.0
    assert abs(start.mean()) < 4 / np.sqrt(8192)
    assert abs(start.std() - 1) < 4 / np.sqrt(2 * 8192)
    without = sampling.sample(
        jax.random.key(0),
        denoiser,
        params,
        c,
        shape=(2,),
        guidance=jnp.zeros((3, 4096)),
        num_steps=3,
    )
    assert without.trajectory is None
    np.testing.assert_array_equal(without.x0, samples.x0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("num_steps", [1, 5])
def test_nfe_is_the_number_of_real_network_evaluations(solver, num_steps):
    evaluated = []

    def network(params, x_t, t, c):
        jax.debug.callback(lambda x: evaluated.append(len(x)), x_t)
        return 0.5 * x_t

    schedule = SCHEDULES["rectified_flow"]
    denoiser = from_function(network, schedule=schedule, kind="x0", null=2)
    samples = run(denoiser, (), jnp.zeros((num_steps, 5)), solver=solver)
    jax.block_until_ready(samples.x0)
    jax.effects_barrier()
    assert sum(evaluated) == samples.nfe * 5
    assert samples.nfe == sampling.count_nfe(denoiser, 1.0, num_steps, solver)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0])
def test_point_mass_from_noised_data_keeps_the_exact_law(name, churn):
    schedule, mu, size = SCHEDULES[name], jnp.asarray([0.7, -1.5]), 20_000
    params = GaussianMixture((0,), schedule).params(mu[None], 0.0)
    times = jnp.asarray([0.9, 0.75, 0.5, 0.35])
    data, t = jnp.broadcast_to(mu, (size, 2)), jnp.full(size, times[0])
    noising = jax.jit(add_noise, static_argnames="schedule")
    x_t = noising(jax.random.key(0), data, t=t, schedule=schedule)
    omegas, c = jnp.full((3, size), 2.0), jnp.zeros(size, jnp.int32)
    walk = walker(name, labels=(0,))
    x_s = walk(jax.random.key(1), params, omegas, c, x_t, times, churn)

    def standardised(x, t):
        return (np.asarray(x) - np.asarray(schedule.alpha(t) * mu)) / np.asarray(schedule.sigma(t))

    start, z = standardised(x_t, times[0]), standardised(x_s, times[-1])
    np.testing.assert_allclose(np.mean(z, axis=0), 0.0, atol=4 / np.sqrt(size))
    np.testing.assert_allclose(np.std(z, axis=0), 1.0, atol=4 / np.sqrt(2 * size))
    kept = np.corrcoef(start[:, 0], z[:, 0])[0, 1]
    assert kept > 0.999 if churn == 0.0 else kept < 0.95


@pytest.mark.parametrize(("solver", "churn"), WALKS)
def test_classes_side_by_side_equal_one_class_at_a_time(solver, churn):
    denoiser, params = mixture(SCHEDULES["rectified_flow"])
    omegas = jnp.full((4, 5), 0.8)
    together = run(denoiser, params, omegas, solver=solver, churn=churn)
    for label in (0, 1):
        alone = run(denoiser, params, omegas, c=jnp.full(5, label), solver=solver, churn=churn)
        rows = label == CLASSES
        np.testing.assert_allclose(together.x0[rows], alone.x0[rows], rtol=1e-6, atol=1e-6)
        assert not np.allclose(together.x0[~rows], alone.x0[~rows], atol=1e-2)


def test_omega_is_taken_per_sample_and_per_step():
    denoiser, params = mixture(SCHEDULES["rectified_flow"])
    omegas = jnp.zeros((4, 5)).at[2, 3].set(1.0)
    changed = run(denoiser, params, omegas).trajectory
    plain = run(denoiser, params, jnp.zeros((4, 5))).trajectory
    differs = np.any(np.asarray(changed != plain), axis=-1)
    expected = np.zeros((5, 5), bool)
    expected[3:, 3] = True
    np.testing.assert_array_equal(differs, expected)


def test_conditions_may_be_trees_of_arrays():
    def network(params, x_t, t, c):
        return x_t * 0.1 + c["text"] @ params + c["label"][:, None]

    schedule = SCHEDULES["rectified_flow"]
    null = functools.partial(jax.tree.map, jnp.zeros_like)
    denoiser = from_function(network, schedule=schedule, kind="x0", null=null)
    weights, text = jnp.ones((3, 2)), jnp.arange(15.0).reshape(5, 3)
    c = {"label": CLASSES.astype(jnp.float32), "text": text}
    samples = run(denoiser, weights, jnp.full((1, 5), 1.0), c=c)
    plain = network(weights, samples.trajectory[0], None, c)
    shift = text @ weights + c["label"][:, None]
    np.testing.assert_allclose(samples.x0, plain + shift, rtol=1e-5)


VALID = {
    "guidance": jnp.zeros((3, 5)),
    "times": jnp.asarray([0.9, 0.6, 0.3, 0.0]),
    "churn": 0.0,
    "solver": "ddim",
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"guidance": jnp.zeros((2, 5))}, r"expected omegas .*\(3, 5\), got \(2, 5\)"),
        ({"times": jnp.asarray([0.9, 0.6, 0.6, 0.0])}, "expected .* decreasing times, got"),
        ({"times": jnp.asarray([0.0, 0.3, 0.6, 0.9])}, "expected .* decreasing times, got"),
        ({"times": jnp.asarray([0.9, jnp.nan, 0.3, 0.0])}, "expected .* decreasing times, got"),
        ({"times": jnp.asarray([0.9])}, "expected at least two .* times, got"),
        ({"times": jnp.asarray([1.1, 0.6, 0.3, 0.0])}, r"expected times within \[0, 1\], got 1.1"),
        ({"times": jnp.asarray([0.9, 0.6, 0.3, -0.1])}, r"within \[0, 1\], got 0.8999.* to -0.1"),
        ({"churn": 1.5}, r"expected churn in \[0, 1\], got 1.5"),
        ({"churn": -0.1}, r"expected churn in \[0, 1\], got -0.1"),
        ({"churn": float("nan")}, r"expected churn in \[0, 1\], got nan"),
        ({"churn": 0.5, "solver": "heun"}, r"expected churn = 0 with solver Heun.*, got 0.5"),
        ({"churn": 1.0, "solver": "dpmpp_2m"}, "expected churn = 0 .* DpmSolver2M.*, got 1.0"),
        ({"solver": "euler"}, "expected solver in .*'ddim'.* or a Solver, got 'euler'"),
        ({"guidance": "strong"}, "expected guidance, .*, got 'strong'"),
        ({"guidance": lambda *, s, t, c: t[:2]}, r"expected omega of shape \(5,\) .*, got \(2,\)"),
        ({"guidance": jnp.zeros((3, 5, 2))}, r"expected omega of 1 directions .*, got \(2,\)"),
    ],
)
def test_bad_arguments_name_what_was_expected_and_got(wrong, message):
    denoiser, params = mixture(SCHEDULES["rectified_flow"])
    arguments, key = VALID | wrong, jax.random.key(0)
    with pytest.raises(ValueError, match=message):
        sampling.sample(key, denoiser, params, CLASSES, shape=(2,), **arguments)
    with pytest.raises(ValueError, match=message):
        sampling.unroll(key, denoiser, params, CLASSES, jnp.zeros((5, 2)), **arguments)


@functools.cache
def value_and_gradients(solver):
    """A function of the end of `unroll`, compiled once for each number of steps."""
    denoiser, params = mixture(SCHEDULES["rectified_flow"])
    weights = jnp.asarray([[1.0, -0.5], [0.3, 0.8], [-1.2, 0.4]])

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def objective(omegas, x_t, times, churn):
        walk = {"guidance": omegas, "times": times, "churn": churn, "solver": solver}
        end = sampling.unroll(jax.random.key(4), denoiser, params, CLASSES[:3], x_t, **walk)
        return jnp.sum(weights * end + end**2)

    return objective


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("solver", "churn", "num_steps"),
    [("ddim", churn, num_steps) for num_steps in (1, 2, 4) for churn in (0.0, 0.6)]
    + [("heun", 0.0, 4), ("dpmpp_2m", 0.0, 4)],
)
def test_gradients_of_unroll_equal_finite_differences(solver, churn, num_steps):
    objective, h = value_and_gradients(solver), 1e-5
    with jax.enable_x64(True):
        times = jnp.linspace(0.9, 0.1, num_steps + 1, dtype=jnp.float32)
        omegas = jax.random.uniform(jax.random.key(1), (num_steps, 3), jnp.float64)
        x_t = jax.random.normal(jax.random.key(2), (3, 2), jnp.float64)
        point = [np.array(omegas), np.array(x_t)]
        for values, gradient in zip(
            point, objective(*map(jnp.array, point), times, churn)[1], strict=True
        ):
            for index in np.ndindex(values.shape):
                value, found = values[index], []
                for moved in (value + h, value - h):
                    values[index] = moved
                    found.append(float(objective(*map(jnp.array, point), times, churn)[0]))
                values[index] = value
                expected = (found[0] - found[1]) / (2 * h)
                near = 1e-6 * np.abs(gradient).max()  # what is left of it may be small
                np.testing.assert_allclose(gradient[index], expected, rtol=0.0, atol=near)


@pytest.mark.parametrize("churn", [0.0, 1.0])
@pytest.mark.parametrize("end", [0.1, 0.0])
def test_gradients_of_unroll_equal_those_of_a_plain_loop(churn, end):
    params = mixture(SCHEDULES["cosine"])[1]
    times = jnp.asarray([0.9, 0.7, 0.5, 0.3, end])
    omegas = jax.random.uniform(jax.random.key(1), (4, 5))
    start, key = jax.random.normal(jax.random.key(2), (5, 2)), jax.random.key(3)

    def gradients(walk):
        def objective(params, omegas, start):
            return jnp.sum(walk(key, params, omegas, CLASSES, start, times, churn) ** 2)

        return jax.tree.leaves(jax.grad(objective, argnums=(0, 1, 2))(params, omegas, start))

    scanned = gradients(walker("cosine"))
    looped = gradients(functools.partial(plain_walk, "cosine"))
    for one, other in zip(scanned, looped, strict=True):
        assert np.abs(other).max() > 1e-3
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("name", "solver"),
    [("rectified_flow", solver) for solver in SOLVERS] + [("linear_vp", "heun")],
)
def test_gradients_are_finite_from_noise_to_data(name, solver):
    params = mixture(SCHEDULES[name])[1]
    noise = jax.random.normal(jax.random.key(0), (5, 2))
    start = SCHEDULES[name].sigma(jnp.ones(())) * noise

    def objective(omegas):
        times = schedules.uniform_times(4)
        arguments = (jax.random.key(1), params, omegas, CLASSES, start, times, 0.0)
        return jnp.sum(walker(name, solver)(*arguments))

    found = jax.grad(objective)(jnp.zeros((4, 5)))
    assert np.isfinite(found).all()
    assert np.abs(found[1:]).min() > 0.0


def test_memory_of_a_gradient_grows_by_the_states_and_not_by_the_activations():
    """A network whose activations are 64 times as large as the states of the walk."""
    weights = jax.random.normal(jax.random.key(0), (4, 256))

    def network(params, x_t, t, c):
        return jnp.tanh(x_t @ params) @ params.T

    schedule = SCHEDULES["rectified_flow"]
    denoiser = from_function(network, schedule=schedule, kind="x0", null=2)
    x_t, c = jnp.ones((8, 4)), jnp.zeros(8, jnp.int32)

    def temporary_bytes(num_steps):
        def objective(omegas, params):
            walk = {"guidance": omegas, "times": schedules.uniform_times(num_steps)}
            return jnp.sum(sampling.unroll(jax.random.key(1), denoiser, params, c, x_t, **walk))

        compiled = jax.jit(jax.grad(objective)).lower(jnp.ones((num_steps, 8)), weights).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    grown = (temporary_bytes(96) - temporary_bytes(32)) / 64
    assert x_t.nbytes <= grown < 4 * x_t.nbytes


# What guidance may be


@pytest.mark.parametrize(("solver", "churn"), WALKS)
def test_an_omega_of_times_and_conditions_gives_the_samples_of_its_table(solver, churn):
    denoiser, params = mixture(SCHEDULES["rectified_flow"])
    fn = guidance.limited_interval_per_class([0.7, 1.5], [0.1, 0.3], [0.6, 1.0])
    times = schedules.uniform_times(5)
    walk = {"times": times, "solver": solver, "churn": churn}
    expected = run(denoiser, params, guidance.on_grid(fn, times, CLASSES), **walk)
    found = run(denoiser, params, fn, **walk)
    np.testing.assert_array_equal(found.trajectory, expected.trajectory)
    assert found.nfe == expected.nfe


@pytest.mark.parametrize(
    ("given", "omega"),
    [
        (None, 0.0),
        (0, 0.0),
        (0.5, 0.5),
        (np.float32(0.5), 0.5),
        (jnp.asarray(0.5), 0.5),
        (jnp.full(5, 0.5), 0.5),
        (np.full((3, 5), 0.5), 0.5),
        (guidance.Cfg(0.5), 0.5),
    ],
)
def test_a_number_is_the_same_weight_everywhere_and_none_is_no_guidance(given, omega):
    denoiser, params = mixture(SCHEDULES["rectified_flow"])
    times = schedules.uniform_times(3)
    expected = run(denoiser, params, jnp.full((3, 5), omega), times=times)
    np.testing.assert_array_equal(run(denoiser, params, given, times=times).x0, expected.x0)


def test_features_of_the_predictions_reach_omega():
    """In the first step they are those of the pair at the initial noise."""
    denoiser, params = mixture(SCHEDULES["rectified_flow"])
    times = schedules.uniform_times(3)

    def omega_fn(*, s, t, c, features):
        return jnp.where(t == 1.0, features[:, 2] + features[:, 3], 0.0)

    found = run(denoiser, params, omega_fn, times=times)
    start, ones = found.trajectory[0], jnp.ones(5)
    cond, uncond = jax.jit(denoise_pair, static_argnums=0)(
        denoiser, params, start, t=ones, c=CLASSES
    )
    features = guidance.pair_features(cond, uncond)
    omegas = jnp.zeros((3, 5)).at[0].set(features[:, 2] + features[:, 3])
    assert np.abs(omegas[0]).min() > 1e-2
    expected = run(denoiser, params, omegas, times=times)
    np.testing.assert_allclose(found.x0, expected.x0, rtol=1e-4, atol=1e-5)


def test_weaker_denoisers_are_further_directions():
    """The same denoiser as the weaker one changes nothing; one of other params does."""
    denoiser, params = mixture(SCHEDULES["rectified_flow"])
    several, times = Directions(denoiser, {"weaker": denoiser}), schedules.uniform_times(3)
    both = guidance.constant_directions(0.5, 2.0)
    plain = run(denoiser, params, guidance.constant(0.5), times=times)
    same = run(several, (params, {"weaker": params}), both, times=times)
    np.testing.assert_allclose(same.x0, plain.x0, atol=1e-6)
    assert (plain.nfe, same.nfe) == (6, 9)
    first = run(several, (params, {"weaker": None}), 0.5, times=times)  # asks no weaker one
    np.testing.assert_allclose(first.x0, plain.x0, atol=1e-6)
    assert first.nfe == 6
    assert [sampling.count_nfe(several, omega, 3) for omega in (both, 0.5)] == [9, 6]
    blurred = {"weaker": params._replace(variances=4.0 * params.variances)}
    other = run(several, (params, blurred), both, times=times)
    assert np.abs(other.x0 - plain.x0).max() > 0.05
    with pytest.raises(ValueError, match="expected omega of 1 directions"):
        run(denoiser, params, both, times=times)


@pytest.mark.parametrize(("solver", "churn"), WALKS)
def test_steps_in_a_python_loop_are_the_samples(solver, churn):
    denoiser, params = mixture(SCHEDULES["rectified_flow"])
    key, times = jax.random.key(3), schedules.uniform_times(4)
    found = run(denoiser, params, 0.7, key=3, times=times, solver=solver, churn=churn)
    rule, inputs = guidance.Cfg(0.7).prepare(denoiser, times, CLASSES)
    walk = sampling.Walk(denoiser, params, rule, sampling.SOLVERS[solver], CLASSES)
    every = sampling.steps(jax.random.split(key)[1], times, churn or None, inputs)
    step, state = jax.jit(walk.step), walk.init(found.trajectory[0])
    for i in range(4):
        state = step(state, jax.tree.map(lambda leaf, i=i: leaf[i], every))
        expected = found.trajectory[i + 1]
        np.testing.assert_allclose(state.x, expected, rtol=1e-5, atol=1e-5)
