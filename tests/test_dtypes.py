"""Whatever the precision of a denoiser, samples have that of the walk, and nothing is promoted."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import guidance, sampling, schedules
from lgd.denoisers import Directions, from_function

pytestmark = pytest.mark.usefixtures("quick_compilation")
SOLVERS = ("ddim", "heun", "dpmpp_2m")
WALKS = [("ddim", 0.0), ("ddim", 0.6), ("heun", 0.0), ("dpmpp_2m", 0.0)]
FLOW = schedules.rectified_flow()
CLASSES = jnp.asarray([0, 1, 1, 0, 0], jnp.int32)


def linear(params, x_t, t, c):
    return params["scale"] * x_t + params["shift"][c] * t[:, None]


def low_precision(params, x_t, t, c):
    """A network that computes in bfloat16, whatever it is given."""
    return linear(params, x_t, t, c).astype(jnp.bfloat16)


@dataclasses.dataclass(frozen=True)
class LowPrecision:
    """A denoiser of one's own, whose x0_hat is in bfloat16."""

    schedule: schedules.Schedule

    def apply(self, params, x_t, *, t, c):
        return low_precision(params, x_t, t, c)

    def null(self, c):
        return jnp.full_like(c, 2)


LINEAR = {"scale": jnp.asarray(0.5), "shift": jnp.asarray([[1.0, 0.0], [0.0, -1.0], [0.3, 0.3]])}
VELOCITY = {"schedule": FLOW, "kind": "v", "null": 2}
LOW = {
    "function": from_function(low_precision, **VELOCITY),
    "of one's own": LowPrecision(FLOW),
    "directions": Directions(LowPrecision(FLOW), {"weaker": LowPrecision(FLOW)}),
}
INTERVAL = guidance.limited_interval_per_class([0.7, 1.5], [0.1, 0.3], [0.6, 0.9])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", LOW)
def test_a_denoiser_in_bfloat16_gives_samples_in_float32(name, solver, skip):
    params = (LINEAR, {"weaker": LINEAR}) if name == "directions" else LINEAR
    walk = {"shape": (2,), "guidance": INTERVAL, "num_steps": 4, "solver": solver}
    found = sampling.sample(jax.random.key(0), LOW[name], params, CLASSES, skip=skip, **walk).x0
    assert found.dtype == jnp.float32
    kind = "v" if name == "function" else "x0"
    exact = from_function(linear, schedule=FLOW, kind=kind, null=2)
    expected = sampling.sample(jax.random.key(0), exact, LINEAR, CLASSES, **walk).x0
    np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rule", [guidance.Cfg, guidance.Clipped, guidance.DynamicThreshold])
def test_a_walk_keeps_the_dtype_of_its_start(solver, rule):
    x_t = jnp.ones((5, 2), jnp.bfloat16)
    walk = {"guidance": rule(INTERVAL), "times": schedules.uniform_times(4), "solver": solver}
    for name in ("function", "of one's own"):
        end = sampling.unroll(jax.random.key(0), LOW[name], LINEAR, CLASSES, x_t, **walk)
        assert (end.shape, end.dtype) == ((5, 2), jnp.bfloat16)


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


WIDE = """
import jax, jax.numpy as jnp
from lgd import guidance, sampling, schedules
from lgd.denoisers import from_function

jax.config.update("jax_enable_x64", True)
flow, c = schedules.rectified_flow(), jnp.asarray([0, 1, 1])
denoiser = from_function(
    lambda params, x, t, c: params * x + c[:, None], schedule=flow, kind="x0", null=2
)
for solver in sampling.SOLVERS:
    for skip in (False, True):
        for given in (guidance.limited_interval(1.0, 0.2, 0.7), guidance.DynamicThreshold(0.5)):
            x0 = sampling.sample(
                jax.random.key(0), denoiser, 0.5, c, shape=(2,), num_steps=4,
                guidance=given, solver=solver, skip=skip,
            ).x0
            assert x0.dtype == jnp.float64 and bool(jnp.isfinite(x0).all()), (solver, skip)
"""


def test_sampling_in_float64():
    subprocess.run([sys.executable, "-c", WIDE], check=True, timeout=300)
