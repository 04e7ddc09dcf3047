"""What the matrix units of this device reach: on a product of matrices, and on convolutions.

The denominator of every share of a peak is measured in the run that it divides, not read from a
data sheet. Entries are random: products of zeros run faster than those of data.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array

from experiments.benchmarks.device.timing import median_seconds
from lgd.machinery.flops import matrix_flops

TURNS = 20  # products in one program, each of the result before
Layout = Literal["NHWC", "NCHW"]


def matrix_peak(sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Return FLOP/s of bfloat16 products of n x n matrices, sums in float32, and the best."""
    rates = {str(n): 2.0 * n**3 * TURNS / median_seconds(_product(n), rounds) for n in sizes}
    return {"flops_per_second": rates, "best": max(rates.values())}


@functools.cache
def _product(n: int) -> Callable[[], Array]:
    keys = jax.random.split(jax.random.key(0))
    a, x = (jax.random.normal(key, (n, n), jnp.bfloat16) for key in keys)
    a = a / jnp.bfloat16(n**0.5)  # results keep their size

    @jax.jit
    def products(a: Array, x: Array) -> Array:
        def again(_: int, x: Array) -> Array:
            return jnp.dot(a, x, preferred_element_type=jnp.float32).astype(jnp.bfloat16)

        return jax.lax.fori_loop(0, TURNS, again, x)

    return functools.partial(products, a, x)


def convolution_rates(rows: int, channels: int, *, batch: int, rounds: int) -> dict[str, float]:
    """Return FLOP/s of a 3 x 3 convolution in bfloat16 with its gradients, by layout."""
    layouts: tuple[Layout, ...] = get_args(Layout)
    return {each: _convolution_rate(rows, channels, batch, each, rounds) for each in layouts}


def _convolution_rate(rows: int, channels: int, batch: int, layout: Layout, rounds: int) -> float:
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (batch, rows, rows, channels)
    shape = shape if layout == "NHWC" else (batch, channels, rows, rows)
    x, cotangent = (jax.random.normal(key, shape, jnp.bfloat16) for key in keys[:2])
    kernel = jax.random.normal(keys[2], (3, 3, channels, channels), jnp.bfloat16)
    specs = (layout, "HWIO", layout)

    def convolved(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=specs)

    def forward_and_back(x: Array, kernel: Array, cotangent: Array) -> Any:
        out, backward = jax.vjp(convolved, x, kernel)
        return out, backward(cotangent)

    run = functools.partial(jax.jit(forward_and_back), x, kernel, cotangent)
    flops = matrix_flops(forward_and_back, x, kernel, cotangent)
    return flops / median_seconds(run, rounds)
