"""Bytes that devices send each other, read from compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import sampling, schedules
from lgd.denoisers import NetworkDenoiser, ResidualMLP
from lgd.machinery import parallel
from lgd.machinery.collectives import collective_bytes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


def test_bytes_of_collectives_are_counted():
    """A mean over examples that 8 devices share: one sum of 16 numbers on each."""
    mesh = parallel.make_mesh()
    x = parallel.place_batch(np.ones((8, 16), np.float32), mesh)

    def mean(x):
        return jnp.mean(x, axis=0)

    def bytes_of(function):
        whole = jax.jit(function, out_shardings=parallel.replicated(mesh))
        return collective_bytes(whole.lower(x).compile().as_text())

    def minus_mean(x, _):
        return x - mean(jnp.tanh(x))[None], None

    assert bytes_of(mean) == 4 * 16
    assert collective_bytes(jax.jit(lambda x: 2.0 * x).lower(x).compile().as_text()) == 0
    assert bytes_of(lambda x: mean(jax.lax.scan(minus_mean, x, None, length=5)[0])) == 6 * 4 * 16


PROGRAM = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%few (p: f32[2]) -> f32[2] {
  ROOT %r = f32[2]{0} all-reduce(%p), to_apply=%add
}

%many (p: f32[2]) -> f32[2] {
  %g = (f32[2]{0}, bf16[8]{0}) all-gather-start(%p), dimensions={0}
  ROOT %r = f32[2]{0} all-reduce(%p), to_apply=%add
}

ENTRY %main (p: f32[2]) -> f32[2] {
  ROOT %r = f32[2]{0} LAST
}
"""


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("conditional(%i, %p, %p), branch_computations={%few, %many}", 8 + 8 + 16),
        ("fusion(%p), kind=kLoop, calls=%few", 8),
        ('while(%p), body=%few, backend_config={"known_trip_count":{"n":"7"}}', 7 * 8),
        ("while(%p), body=%add", 0),  # turns that nobody counts, and nothing is sent
    ],
)
def test_bytes_of_branches_and_calls_are_counted(last, expected):
    assert collective_bytes(PROGRAM.replace("LAST", last)) == expected


def test_a_loop_of_unknown_length_that_sends_is_refused():
    with pytest.raises(ValueError, match="expected a loop whose turns are known"):
        collective_bytes(PROGRAM.replace("LAST", "while(%p), body=%few"))


def test_pairs_of_a_call_stay_on_the_device_of_their_example():
    """Samples that 8 devices draw, each its own: nothing is sent."""
    mesh, flow = parallel.make_mesh(), schedules.rectified_flow()
    denoiser = NetworkDenoiser(ResidualMLP(3, 8, 1), flow, 3)
    params = denoiser.init(jax.random.key(0), (5,))
    times, c = schedules.uniform_times(4), jnp.arange(16, dtype=jnp.int32) % 3

    def draw(params):
        return sampling.sample(
            jax.random.key(0), denoiser, params, c, shape=(5,), guidance=1.0, times=times, mesh=mesh
        ).x0

    assert collective_bytes(jax.jit(draw).lower(params).compile().as_text()) == 0
