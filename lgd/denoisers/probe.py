"""Examination of a denoiser: the times at which it returns NaN or inf."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.diffusion import noised, predictions
from lgd.types import Condition, Denoiser, Params


def non_finite_times(
    denoiser: Denoiser,
    params: Params,
    x0: Float[np.ndarray, "b *dims"],
    c: Condition,
    times: Sequence[float],
) -> list[float]:
    """The times at which a prediction for x0 with noise is NaN or inf, in any direction.

    Several processes call it together, with the same arguments.

    Args:
      denoiser: the model to examine.
      params: its arrays.
      x0: examples (b, *dims).
      c: their conditions, leaves (b, ...).
      times: the times in [0, 1] to examine.
    """

    @jax.jit
    def is_finite(params: Params, x0: Float[Array, "b *dims"], c: Condition, t: Array) -> Array:
        t = jnp.full(len(x0), t)
        eps = jax.random.normal(jax.random.key(0), x0.shape)
        x_t = noised(x0, eps, t=t, schedule=denoiser.schedule)
        cond, others = predictions(denoiser, params, x_t, t=t, c=c)
        return jnp.isfinite(jnp.stack([cond, *others])).all()

    return [t for t in times if not is_finite(params, x0, c, np.float32(t))]


def non_finite_report(
    denoiser: Denoiser,
    params: Params,
    x0: Float[np.ndarray, "b *dims"],
    c: Condition,
    times: Sequence[float],
) -> str:
    """A part of a sentence that names the times of `non_finite_times`, whose arguments it takes.

    Args:
      denoiser: the model to examine.
      params: its arrays.
      x0: examples (b, *dims).
      c: their conditions, leaves (b, ...).
      times: the times in [0, 1] to examine.
    """
    bad = non_finite_times(denoiser, params, x0, c, times)
    if not bad:
        return f"the denoiser is finite at each of {len(times)} times between 0 and 1"
    shown = ", ".join(f"{t:.6g}" for t in bad[:5])
    more = f" and {len(bad) - 5} more up to t = {max(bad):.6g}" if len(bad) > 5 else ""
    return f"the denoiser returns NaN or inf at t = {shown}{more}"
