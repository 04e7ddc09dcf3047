"""Whatever the precision of a denoiser, samples have that of the walk, and nothing is promoted."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd import encoders, gram, guidance, objectives, omega, sampling, schedules, training
from lgd.data import labelled
from lgd.denoisers import Directions, from_function
from lgd.diffusion import KINDS, from_x0
from lgd.types import Schedule

pytestmark = pytest.mark.usefixtures("quick_compilation")
SOLVERS = ("ddim", "heun", "dpmpp_2m")
WALKS = [("ddim", 0.0), ("ddim", 0.6), ("heun", 0.0), ("dpmpp_2m", 0.0)]
FLOW, COSINE = schedules.rectified_flow(), schedules.cosine()
CLASSES = jnp.asarray([0, 1, 1, 0, 0], jnp.int32)


def linear(params, x_t, t, c):
    return params["scale"] * x_t + params["shift"][c] * t[:, None]


def low_precision(params, x_t, t, c):
    """A network that computes in bfloat16, whatever it is given."""
    return linear(params, x_t, t, c).astype(jnp.bfloat16)


def half_precision(params, x_t, t, c):
    """A network that computes in float16, whatever it is given."""
    return linear(params, x_t, t, c).astype(jnp.float16)


@dataclasses.dataclass(frozen=True)
class LowPrecision:
    """A denoiser of one's own, whose x0_hat is in bfloat16."""

    schedule: Schedule

    def apply(self, params, x_t, *, t, c):
        return low_precision(params, x_t, t, c)

    def null(self, c):
        return jnp.full_like(c, 2)


LINEAR = {"scale": jnp.asarray(0.5), "shift": jnp.asarray([[1.0, 0.0], [0.0, -1.0], [0.3, 0.3]])}
VELOCITY = {"schedule": FLOW, "kind": "v", "null": 2}
LOW = {
    "function": from_function(low_precision, **VELOCITY),
    "float16": from_function(half_precision, **VELOCITY),
    "of one's own": LowPrecision(FLOW),
    "directions": Directions(LowPrecision(FLOW), {"weaker": LowPrecision(FLOW)}),
}
INTERVAL = guidance.limited_interval_per_class([0.7, 1.5], [0.1, 0.3], [0.6, 0.9])


@pytest.mark.sampled(10)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", LOW)
def test_a_denoiser_in_bfloat16_gives_samples_in_float32(name, solver, skip):
    params = (LINEAR, {"weaker": LINEAR}) if name == "directions" else LINEAR
    walk = {"shape": (2,), "guidance": INTERVAL, "num_steps": 4, "solver": solver}
    found = sampling.sample(jax.random.key(0), LOW[name], params, CLASSES, skip=skip, **walk).x0
    assert found.dtype == jnp.float32
    kind = "v" if name in ("function", "float16") else "x0"
    exact = from_function(linear, schedule=FLOW, kind=kind, null=2)
    expected = sampling.sample(jax.random.key(0), exact, LINEAR, CLASSES, **walk).x0
    np.testing.assert_allclose(found, expected, atol=0.05)


def of_kind(kind, dtype):
    """An exact posterior mean of centred data, as a network of a kind and precision says it."""

    def predict(params, x_t, t, c):
        alpha, sigma = (part(t)[:, None] for part in (COSINE.alpha, COSINE.sigma))
        x0 = (params["shift"][c] + x_t * alpha) / (alpha**2 + sigma**2 + 1.0)
        output = from_x0(x0, x_t, t=t, schedule=COSINE, kind=kind)
        return output.astype(dtype)

    return from_function(predict, schedule=COSINE, kind=kind, null=2)


@pytest.mark.sampled(9)
@pytest.mark.parametrize("solver", sampling.SOLVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_every_kind_may_compute_in_bfloat16(kind, solver):
    walk = {"shape": (2,), "guidance": INTERVAL, "times": (0.9, 0.6, 0.3, 0.0), "solver": solver}
    arguments = (LINEAR, CLASSES)
    exact = sampling.sample(jax.random.key(0), of_kind(kind, jnp.float32), *arguments, **walk).x0
    with jax.numpy_dtype_promotion("strict"):
        rough = sampling.sample(jax.random.key(0), of_kind(kind, jnp.bfloat16), *arguments, **walk)
    assert rough.x0.dtype == jnp.float32
    np.testing.assert_allclose(rough.x0, exact, atol=0.1)


@pytest.mark.sampled(10)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rule", [guidance.Cfg, guidance.Clipped, guidance.DynamicThreshold])
def test_a_walk_keeps_the_dtype_of_its_start(solver, rule):
    x_t = jnp.ones((5, 2), jnp.bfloat16)
    walk = {"guidance": rule(INTERVAL), "times": schedules.uniform_times(4), "solver": solver}
    for name in ("function", "of one's own"):
        end = sampling.unroll(jax.random.key(0), LOW[name], LINEAR, CLASSES, x_t, **walk)
        assert (end.shape, end.dtype) == ((5, 2), jnp.bfloat16)


@pytest.mark.sampled(10)
@pytest.mark.parametrize(("solver", "churn"), WALKS)
@pytest.mark.parametrize("skip", [False, True])
def test_no_dtype_is_promoted_unseen(solver, churn, skip):
    """Hand-made schedules run where JAX is told to promote no dtypes."""
    each = [INTERVAL, guidance.clamp_linear(2.0), guidance.cosine(1.5), 0.7, jnp.full((3, 5), 0.7)]
    each += [guidance.Clipped(0.5), guidance.DynamicThreshold(0.5)]
    denoiser = from_function(linear, **VELOCITY)
    walk = {"shape": (2,), "num_steps": 3, "solver": solver, "churn": churn, "skip": skip}
    for given in each:
        arguments = (jax.random.key(0), denoiser, LINEAR, CLASSES)
        usual = sampling.sample(*arguments, guidance=given, **walk).x0
        with jax.numpy_dtype_promotion("strict"):
            strict = sampling.sample(*arguments, guidance=given, **walk).x0
        np.testing.assert_array_equal(strict, usual)


TIMES = (1.0, 0.6, 0.3, 0.0)
TABLE = omega.StepTable(times=TIMES, rows=omega.ByLabel(2))
NETWORK = {"schedule": FLOW, "encoder": encoders.Labels(2), "width": 4, "depth": 1}


def halved(tree):
    """The tree with its floats in bfloat16."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)


def learned():
    """Learned weights whose parameters are in either precision, and rules with a state."""
    for model in (TABLE, omega.Network(**NETWORK), omega.Network(**NETWORK, num_features=4)):
        params = model.init(jax.random.key(1), CLASSES)
        yield omega.bind(model, params)
        yield omega.bind(model, halved(params))
    yield guidance.Apg(omega.bind(TABLE, TABLE.init(jax.random.key(1), CLASSES)))
    yield guidance.Clipped(guidance.Apg(INTERVAL, momentum=jnp.asarray(0.3, jnp.bfloat16)))


@pytest.mark.sampled(10)
@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("solver", SOLVERS)
def test_learned_weights_and_rules_with_state_promote_nothing(number, solver):
    """From starts in bfloat16 and in float32, in bfloat16 denoisers, to the same dtype."""
    walk = {"guidance": list(learned())[number], "times": TIMES, "solver": solver}
    arguments = (jax.random.key(0), LOW["function"], LINEAR, CLASSES)
    x_t = jnp.linspace(-1.0, 1.0, 10).reshape(5, 2)
    usual = sampling.unroll(*arguments, x_t, **walk)
    with jax.numpy_dtype_promotion("strict"):
        for start, rounding in ((x_t, 0.0), (x_t.astype(jnp.bfloat16), 0.05)):
            end = sampling.unroll(*arguments, start, **walk)
            assert end.dtype == start.dtype
            np.testing.assert_allclose(end.astype(jnp.float32), usual, rtol=0.0, atol=rounding)


X0 = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
LABELS = (np.arange(16) % 2).astype(np.int32)
TRAINER = training.Trainer(
    optimizer=training.Optimizer(num_steps=2, learning_rate=0.1), batch_size=8, progress=False
)
OBJECTIVES = {
    "self-consistency": objectives.SelfConsistency(num_particles=2),
    "trajectory": objectives.Trajectory(times=TIMES, num_particles=3, num_targets=3, churn=0.5),
}


def learnt(name, function):
    """The values of a table after two steps."""
    return lgd.learn_guidance(
        jax.random.key(0),
        from_function(function, **VELOCITY),
        LINEAR,
        X0,
        LABELS,
        objective=OBJECTIVES[name],
        model=TABLE,
        start={"constant": guidance.constant(0.5)},
        trainer=TRAINER,
    ).params["values"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_learning_from_a_denoiser_in_bfloat16_promotes_nothing(name):
    usual = learnt(name, low_precision)
    np.testing.assert_allclose(usual, learnt(name, linear), atol=0.01)
    with jax.numpy_dtype_promotion("strict"):
        np.testing.assert_array_equal(learnt(name, low_precision), usual)


@pytest.mark.slow
def test_gram_statistics_of_a_denoiser_in_bfloat16_promote_nothing(tmp_path):
    """Collecting, fitting, solving and scoring give what they give where JAX promotes."""
    found = []
    for promotion in ("standard", "strict"):
        with jax.numpy_dtype_promotion(promotion):
            found.append(gram_numbers(tmp_path / promotion))
    assert found[0] == found[1]


def gram_numbers(folder):
    """A weight that is fitted, one that is solved for, and two scores."""
    data = labelled(X0, LABELS)
    denoiser, pair = from_function(low_precision, **VELOCITY), gram.Particles(num_particles=2)
    gram.collect(
        folder, denoiser, LINEAR, data, num_examples=16, particles=pair, trainer=TRAINER,
        shard_examples=16,
    )  # fmt: skip
    statistics = gram.read(folder, progress=False)
    objective, rows = OBJECTIVES["self-consistency"], omega.ByLabel(2)
    model = omega.BinTable(rows=rows, num_bins=2, support=objective.support)
    fitted = gram.fit(statistics, objective, model, schedule=FLOW, trainer=TRAINER).guidance
    solved = gram.closed_form(statistics, objective, schedule=FLOW, rows=rows, num_bins=2).guidance
    scores = gram.score(
        statistics,
        {"constant": guidance.constant(0.2), "interval": INTERVAL},
        objective=objective,
        schedule=FLOW,
    )
    return float(fitted(0.5, c=0)), float(solved(0.5, c=1)), str(scores)


WIDE = """
import jax, jax.numpy as jnp, sys
from lgd import encoders, guidance, omega, sampling, schedules
from lgd.denoisers import from_function

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", sys.argv[1])
jax.config.update("jax_disable_most_optimizations", True)
flow, c = schedules.rectified_flow(), jnp.asarray([0, 1, 1])
denoiser = from_function(
    lambda params, x, t, c: params * x + c.astype(x.dtype)[:, None],
    schedule=flow, kind="x0", null=2,
)
network = omega.Network(schedule=flow, encoder=encoders.Labels(2), width=4, depth=1)
rules = [
    guidance.limited_interval(1.0, 0.2, 0.7), guidance.DynamicThreshold(0.5), guidance.Apg(0.5),
    omega.bind(network, network.init(jax.random.key(1), c)),
]
for solver in sampling.SOLVERS:
    for number, given in enumerate(rules):
        x0 = sampling.sample(
            jax.random.key(0), denoiser, 0.5, c, shape=(2,), num_steps=4,
            guidance=given, solver=solver, skip=number == 0,
        ).x0
        assert x0.dtype == jnp.float64 and bool(jnp.isfinite(x0).all()), (solver, number)
"""


@pytest.mark.slow
@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_sampling_in_float64(promotion):
    subprocess.run([sys.executable, "-W", "error", "-c", WIDE, promotion], check=True, timeout=300)


WIDE_GRAM = """
import jax, sys, pathlib
jax.config.update("jax_enable_x64", True)
from tests.test_dtypes import gram_numbers, learnt, low_precision
print(gram_numbers(pathlib.Path(sys.argv[1])), learnt("trajectory", low_precision).sum())
"""


@pytest.mark.slow
def test_learning_and_gram_statistics_where_float64_is_enabled(tmp_path):
    subprocess.run([sys.executable, "-c", WIDE_GRAM, tmp_path / "gram"], check=True, timeout=300)
