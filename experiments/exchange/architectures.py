"""PyTorch's networks in JAX: errors, times and memory, one architecture a row.

    python -m experiments.benchmarks exchange_architectures [--name=exchange-architectures]

Small networks with random weights, two examples, float32. Errors are the greatest difference to
PyTorch over the greatest value, of the output and of the gradient of a weighted sum of it. Needs
the extra ``lgd[diffusers]``.
"""

import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.exchange.cases import Case, cases, floats
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd.exchange.extras import required
from lgd.exchange.torch import to_function
from lgd.machinery.progress import bar
from lgd.types import Params

REPEATS = 5
ERROR = ".1e"


def measure(options: Namespace) -> dict[str, Any]:
    """Return a row for each architecture."""
    rows = []
    with bar("architectures", 15) as advance:
        for case in cases():
            rows.append(_row(case, options.steps))
            advance(case.name)
    columns = [
        text("name", "network"),
        number("parameters", "parameters", ",.0f"),
        number("output error", "error of the output", ERROR),
        number("gradient error", "error of the gradient", ERROR),
        number("compile seconds", "compile, s", ".1f"),
        number("milliseconds", "run, ms", ".1f"),
        number("PyTorch milliseconds", "PyTorch, ms", ".1f"),
        number("megabytes", f"gradient of {options.steps} steps, MB", ".2f"),
        number("megabytes recomputed", "the same recomputed, MB", ".2f"),
    ]
    return {"columns": columns, "rows": rows}


def _row(case: Case, num_steps: int) -> dict[str, Any]:
    function, params = to_function(case.module, case.call)
    start = time.perf_counter()
    compiled = jax.jit(function).lower(params, *case.inputs).compile()
    seconds = time.perf_counter() - start
    output, theirs = compiled(params, *case.inputs), _of_pytorch(case, case.inputs)
    weights = floats(*output.shape)
    of_jax, of_torch = _gradients(case, function, params, weights)
    sizes = [np.size(leaf) for leaf in jax.tree.leaves(params)]
    row = {
        "name": case.name,
        "parameters": int(np.sum(sizes)),
        "output error": _error(output, theirs),
        "gradient error": _error(of_jax, of_torch),
        "compile seconds": seconds,
        "milliseconds": _milliseconds(
            lambda: jax.block_until_ready(compiled(params, *case.inputs))
        ),
        "PyTorch milliseconds": _milliseconds(lambda: _of_pytorch(case, case.inputs)),
    }
    if case.denoises:
        for name, recomputed in (("megabytes", False), ("megabytes recomputed", True)):
            row[name] = _megabytes(case, function, params, num_steps, recomputed)
    return row


def _of_pytorch(case: Case, inputs: tuple[Any, ...]) -> np.ndarray:
    torch = required("torch", "torch")
    with torch.no_grad():
        return case.call(case.module, *map(_tensor, inputs)).numpy()


def _tensor(value: np.ndarray) -> Any:
    torch = required("torch", "torch")
    tensor = torch.tensor(value)
    return tensor if tensor.is_floating_point() else tensor.long()


def _gradients(
    case: Case, function: Callable[..., Any], params: Params, weights: np.ndarray
) -> tuple[Any, Any]:
    """Gradients of the sum of the output times weights, by JAX and by PyTorch."""
    torch = required("torch", "torch")
    first, *rest = case.inputs
    if not case.weight:

        def of_input(x: Array) -> Array:
            return jnp.sum(function(params, x, *rest) * weights)

        ours = jax.jit(jax.grad(of_input))(first)
        leaf = _tensor(first).requires_grad_(True)
        output = case.call(case.module, leaf, *map(_tensor, rest))
    else:
        (name,) = [key for key in params if key.endswith(case.weight)]

        def of_weight(value: Array) -> Array:
            return jnp.sum(function(params | {name: value}, *case.inputs) * weights)

        ours = jax.jit(jax.grad(of_weight))(params[name])
        leaf = case.module.get_parameter(case.weight).requires_grad_(True)
        output = case.call(case.module, *map(_tensor, case.inputs))
    (theirs,) = torch.autograd.grad((output * torch.tensor(weights)).sum(), leaf)
    leaf.requires_grad_(False)
    return ours, theirs.numpy()


def _megabytes(
    case: Case, function: Callable[..., Any], params: Params, num_steps: int, recomputed: bool
) -> float:
    """Temporary memory of the gradient of some steps with respect to a weight of each."""
    first, *rest = case.inputs

    def loss(omega: Array, params: Params) -> Array:
        def step(x: Array, w: Array) -> tuple[Array, None]:
            return x + w * function(params, x, *rest), None

        body = jax.checkpoint(step) if recomputed else step
        return jnp.mean(jnp.square(jax.lax.scan(body, jnp.asarray(first), omega)[0]))

    compiled = jax.jit(jax.grad(loss)).lower(jnp.full(num_steps, 0.1), params).compile()
    analysis: Any = compiled.memory_analysis()
    return float(analysis.temp_size_in_bytes / 1e6)


def _error(ours: Any, expected: Any) -> float:
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


def _milliseconds(run: Callable[[], Any]) -> float:
    """The least of several runs."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds)


def _arguments(add: Add) -> None:
    add("--steps", type=int, default=16, help="steps whose gradient is compiled for its memory")


STUDY = Study(measure=measure, arguments=_arguments, refused=(ImportError,))
