"""Examination of a denoiser: the times at which it returns NaN or inf."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.diffusion import direction_names, noised, predictions
from lgd.types import Condition, Denoiser, Params

_HALVES = ("conditional", "unconditional")  # predictions of a pair, then those of weaker denoisers


def non_finite_times(
    denoiser: Denoiser,
    params: Params,
    x0: Float[np.ndarray, "b *dims"],
    c: Condition,
    times: Sequence[float],
) -> dict[float, list[str]]:
    """The times at which a prediction for x0 with noise is NaN or inf, and which predictions are.

    Several processes call it together, with the same arguments.

    Args:
      denoiser: the model to examine.
      params: its arrays.
      x0: examples (b, *dims).
      c: their conditions, leaves (b, ...).
      times: the times in [0, 1] to examine.
    """

    @jax.jit
    def are_finite(params: Params, x0: Float[Array, "b *dims"], c: Condition, t: Array) -> Array:
        t = jnp.full(len(x0), t)
        eps = jax.random.normal(jax.random.key(0), x0.shape)
        x_t = noised(x0, eps, t=t, schedule=denoiser.schedule)
        cond, others = predictions(denoiser, params, x_t, t=t, c=c)
        return jnp.stack([jnp.isfinite(prediction).all() for prediction in (cond, *others)])

    names = [*_HALVES, *direction_names(denoiser)[1:]]
    finite = {t: np.asarray(are_finite(params, x0, c, np.float32(t))) for t in times}
    return {
        t: [name for name, is_finite in zip(names, values, strict=True) if not is_finite]
        for t, values in finite.items()
        if not values.all()
    }


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
    shown = ", ".join(f"{t:.6g}" for t in list(bad)[:5])
    more = f" and {len(bad) - 5} more up to t = {max(bad):.6g}" if len(bad) > 5 else ""
    names = {name for guilty in bad.values() for name in guilty}
    which = "" if "conditional" in names else f" for {' and '.join(sorted(names))} inputs"
    return f"the denoiser returns NaN or inf{which} at t = {shown}{more}"
