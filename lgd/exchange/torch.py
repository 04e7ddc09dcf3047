"""PyTorch modules as denoisers: their forward pass traced by JAX, their weights as JAX arrays.

    denoiser, params = lgd.exchange.torch.from_module(
        unet, schedule=schedule, kind="eps", null=10, call=lambda m, x, t, c: m(x, 999 * t, c))

Needs the extra ``lgd[torch]``. torchax traces the module once for each shape; PyTorch computes
nothing, so its CPU build is enough on any device. Weights and buffers are arguments of the traced
function, and gradients reach the inputs through every layer.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lgd.denoisers import FunctionDenoiser, from_function
from lgd.diffusion import Kind
from lgd.exchange.extras import required
from lgd.machinery.words import one_line
from lgd.types import Params, Schedule

_LOCK = threading.RLock()  # two threads that trace one module at once leave JAX arrays inside it


class ModuleError(ValueError):
    """A module that JAX cannot trace, with what to change."""


@dataclasses.dataclass(frozen=True, eq=False)
class TorchFunction:
    """``call(module, *inputs)`` as a function of (params, *inputs), traceable by JAX.

    Inputs and outputs are trees of arrays. Instances are hashed by identity. See `to_function`.
    """

    module: Any  # holds the module as its attribute `inner`
    environment: Any = dataclasses.field(repr=False)

    def __call__(self, params: Params, *inputs: Any) -> Any:
        """The outputs of the module with these parameters."""
        torch = required("torch", "torch")
        new = torch.device("jax")  # of tensors that the forward pass makes
        with _LOCK, _in_words(), _as_pytorch_promotes(), self.environment, new:
            tensors = self.environment.j2t_iso(jax.tree.map(jnp.asarray, (params, *inputs)))
            outputs = torch.func.functional_call(
                self.module, tensors[0], tensors[1:], {}, tie_weights=True
            )
            return self.environment.t2j_iso(outputs)


def to_function(
    module: Any, call: Callable[..., Any] | None = None, *, dtype: Any = None
) -> tuple[TorchFunction, Params]:
    """A function ``(params, *inputs) -> outputs`` of a ``torch.nn.Module``, and its parameters.

    The module is put into evaluation mode, and its parameters no longer ask PyTorch for gradients.
    Attention (``scaled_dot_product_attention``) becomes `jax.nn.dot_product_attention`.

    Args:
      module: any module whose forward pass does not branch on values of tensors.
      call: ``call(module, *inputs)``; None: ``module(*inputs)``. It reaches other methods and
        arguments, and picks one of several outputs.
      dtype: of floating parameters, such as ``jnp.bfloat16``; None: that of the module.

    Returns:
      The function, and parameters and buffers by name.

    Raises:
      ImportError: without the extra ``lgd[torch]``.
      TypeError: for something that is no module.
    """
    torch = required("torch", "torch")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    environment = _environment()
    whole = _whole(torch, module.eval().requires_grad_(False), call)
    tensors = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
    with _LOCK:
        params = environment.t2j_copy({name: each.detach() for name, each in tensors.items()})
    return TorchFunction(whole, environment), _cast(params, dtype)


def from_module(
    module: Any,
    *,
    schedule: Schedule,
    kind: Kind,
    null: Any,
    call: Callable[..., Any] | None = None,
    dtype: Any = None,
) -> tuple[FunctionDenoiser, Params]:
    """A denoiser from a ``torch.nn.Module``, and its parameters as JAX arrays.

    Args:
      module: the network, see `to_function`.
      schedule: the forward process it was trained on, with lgd's time: 0 data, 1 noise.
      kind: what it predicts: "x0", "eps", "v", "velocity" or "score".
      null: its unconditional input, see `denoisers.from_function`.
      call: ``call(module, x_t, t, c) -> prediction`` on tensors, x_t (b, *dims) in the module's own
        layout, t (b,) in [0, 1]; here lgd's time becomes the timestep that the module takes. None:
        ``module(x_t, t, c)``.
      dtype: of floating parameters and of x_t and floating leaves of c inside the module; None:
        that of the module. Predictions are cast back.

    Returns:
      The denoiser and its parameters, for `learn_guidance`, `sample` and `compare`.

    Raises:
      ImportError: without the extra ``lgd[torch]``.
      TypeError: for something that is no module.
      ModuleError: when it is traced, for a module that branches on values, holds tensors that are
        neither parameters nor buffers, or calls operators that torchax lacks.
      ValueError: see `denoisers.from_function`.
    """
    function, params = to_function(module, call, dtype=dtype)

    def prediction(params: Params, x_t: Array, t: Array, c: Any) -> Array:
        output = function(params, _cast(x_t, dtype), t, _cast(c, dtype))
        if not isinstance(output, jax.Array):
            raise ModuleError(
                f"call: expected one tensor of shape {x_t.shape}, got {type(output).__name__}; "
                "pick it, as in call=lambda m, x, t, c: m(x, t, c)[0]"
            )
        return output

    return from_function(prediction, schedule=schedule, kind=kind, null=null), params


def _environment() -> Any:
    """The environment of torchax, with JAX's attention in place of an explicit softmax."""
    torchax, torch = required("torchax", "torch"), required("torch", "torch")
    environment = torchax.default_env()
    with _LOCK:
        environment.override_op_definition(
            torch.nn.functional.scaled_dot_product_attention,
            lambda *args, **options: torchax.interop.call_jax(_attention, *args, **options),
        )
    return environment


def _attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Array:
    """PyTorch's attention, (..., heads, length, size), by JAX's, (b, length, heads, size)."""
    shape = query.shape
    query, key, value = (
        each.reshape(-1, *each.shape[-3:]).swapaxes(1, 2) for each in (query, key, value)
    )
    bias = mask = None
    if attn_mask is not None:
        last = attn_mask.shape[-2:]
        whole = jnp.broadcast_to(attn_mask, (*shape[:-2], *last)).reshape(-1, shape[-3], *last)
        mask, bias = (whole, None) if whole.dtype == bool else (None, whole.astype(query.dtype))
    out = jax.nn.dot_product_attention(
        query, key, value, bias=bias, mask=mask, scale=scale, is_causal=is_causal
    )
    return out.swapaxes(1, 2).reshape(*shape[:-1], value.shape[-1])


def _whole(torch: Any, module: Any, call: Callable[..., Any] | None) -> Any:
    """A module whose forward pass is ``call``, so that it may use any method of the module."""

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *inputs: Any) -> Any:
            return self.inner(*inputs) if call is None else call(self.inner, *inputs)

    return Whole().eval()


def _cast(tree: Any, dtype: Any) -> Any:
    """The tree with floating leaves of another dtype."""
    if dtype is None:
        return tree

    def cast(leaf: Array) -> Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


@contextmanager
def _as_pytorch_promotes() -> Iterator[None]:
    """Ranks and dtypes mix as in PyTorch, whatever the settings of the program around."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@contextmanager
def _in_words() -> Iterator[None]:
    """Errors of tracing, with what to change in the module."""
    try:
        yield
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        why = "its forward pass branches on, or converts, the value of a tensor"
        fix = "compute both branches and choose by torch.where, or fix the value in call="
        raise ModuleError(f"module: {why}; {fix} ({one_line(error, 200)})") from error
    except AssertionError as error:
        if "mixed math" not in str(error):
            raise
        why = "it holds tensors that are neither parameters nor buffers"
        raise ModuleError(
            f"module: {why}; register them by register_buffer ({one_line(error, 200)})"
        ) from error
    except Exception as error:
        if type(error).__name__ != "OperatorNotFound":
            raise
        raise ModuleError(
            f"module: torchax lacks an operator that it calls ({one_line(error, 200)})"
        ) from error
