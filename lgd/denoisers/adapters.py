"""Bring your own model: any function of (params, x_t, t, c) as a denoiser."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.diffusion import Kind, to_x0
from lgd.types import Condition, Params, Schedule


@dataclasses.dataclass(frozen=True)
class FunctionDenoiser:
    """See `from_function`."""

    function: Callable[..., Array]
    schedule: Schedule
    kind: Kind
    null_condition: Callable[[Condition], Condition]

    def apply(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> Float[Array, "b *dims"]:
        """``x0_hat``, shape of x_t. Raises ValueError if the function returns another shape."""
        prediction = self.function(params, x_t, t, c)
        if prediction.shape != x_t.shape:
            raise ValueError(f"expected a prediction of shape {x_t.shape}, got {prediction.shape}")
        return to_x0(prediction, x_t, t=t, schedule=self.schedule, kind=self.kind)

    def null(self, c: Condition) -> Condition:
        """The unconditional input."""
        return self.null_condition(c)


def from_function(
    function: Callable[..., Array],
    *,
    schedule: Schedule,
    kind: Kind,
    null: int | np.integer | Callable[[Condition], Condition],
) -> FunctionDenoiser:
    """A denoiser from ``function(params, x_t, t, c) -> prediction`` of the given kind.

    Args:
      function: pure and traceable by JAX; x_t (b, *dims), t (b,) in [0, 1], c (b, ...).
      schedule: the forward process the model was trained on, with lgd's time: 0 data, 1 noise.
      kind: what it predicts: "x0", "eps", "v", "velocity" or "score".
      null: the label that stands for "no condition", or a function from conditions to
        unconditional inputs of the same structure, shapes and dtypes.
    """
    null_condition = null if callable(null) else _ConstantLabel(int(null))
    return FunctionDenoiser(function, schedule, kind, null_condition)


@dataclasses.dataclass(frozen=True)
class _ConstantLabel:
    label: int

    def __call__(self, c: Condition) -> Condition:
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, self.label), c)
