"""FLOPs of a call, counted in its jaxpr."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr


def matrix_flops(f: Callable[..., Any], *args: Any) -> float:
    """Return the FLOPs of all matrix products and convolutions of ``f(*args)``.

    Arguments may be ShapeDtypeStructs. A scan counts as often as it turns, a conditional as its
    dearest branch, fused kernels not at all (cuDNN's attention has a branch of XLA's beside it).
    Nothing else counts. Raises ValueError for a ``while`` with products: nobody knows its turns.
    """
    return _of_jaxpr(jax.make_jaxpr(f)(*args).jaxpr)


def _of_jaxpr(jaxpr: Jaxpr) -> float:
    return sum(map(_of_equation, jaxpr.eqns), start=0.0)


def _of_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_product(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    inner = [_of_jaxpr(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner)
    if name == "while" and any(inner):
        raise ValueError("expected loops whose turns are known, got a while with products")
    return sum(inner, start=0.0) * (params["length"] if name == "scan" else 1)


def _of_product(equation: Any) -> float:
    """2 of each entry of the result and each term of its sum."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * equation.outvars[0].aval.size * math.prod(left[i] for i in contracted)


def _of_convolution(equation: Any) -> float:
    """2 of each entry of the result and each term of its sum, but for those with zeros of padding.

    As XLA counts: neither padding nor the zeros between dilated inputs are work.
    """
    image, kernel, out = (each.aval.shape for each in (*equation.invars, *equation.outvars))
    params = equation.params
    image_spec, kernel_spec, out_spec = params["dimension_numbers"]
    terms = [
        _terms(image[i], kernel[k], out[o], *sizes)
        for i, k, o, *sizes in zip(
            image_spec[2:],
            kernel_spec[2:],
            out_spec[2:],
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            strict=True,
        )
    ]
    entries = out[out_spec[0]] * out[out_spec[1]]
    return 2.0 * entries * kernel[kernel_spec[1]] * math.prod(terms)


def _terms(
    image: int,
    kernel: int,
    out: int,
    stride: int,
    padding: tuple[int, int],
    image_dilation: int,
    kernel_dilation: int,
) -> int:
    """Pairs along one axis of an entry of the result and one of the kernel that meet the image."""
    at = np.arange(out)[:, None] * stride + np.arange(kernel) * kernel_dilation - padding[0]
    inside = (at >= 0) & (at <= (image - 1) * image_dilation)
    return int(np.sum(inside & (at % image_dilation == 0)))


def _jaxprs(value: Any) -> list[Jaxpr]:
    """The jaxprs in a parameter of an equation."""
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    if isinstance(value, (tuple, list)):
        return [jaxpr for each in value for jaxpr in _jaxprs(each)]
    return []
