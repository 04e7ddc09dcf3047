"""How strongly guidance guides: its mean weight, plain and where it moves samples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import conditions
from lgd.data.dataset import Split
from lgd.diffusion import add_noise, predictions
from lgd.evaluation.generator import Generator
from lgd.guidance import as_rule
from lgd.types import Condition


def squared_gap(generator: Generator, real: Split) -> Float[Array, "k n *d"]:
    """``|cond - other|^2`` of real examples, noised, at the start of every sampling step.

    One for each direction of guidance: (k, n) for that of the unconditional prediction alone, else
    (k, n, directions).
    """
    x0, c = jnp.asarray(real.x), jax.tree.map(jnp.asarray, real.c)

    @jax.jit
    def one_step(t: Float[Array, ""]) -> Float[Array, "n *d"]:
        t = jnp.full(len(x0), t)
        x_t = add_noise(jax.random.key(0), x0, t=t, schedule=generator.denoiser.schedule)
        cond, others = predictions(generator.denoiser, generator.params, x_t, t=t, c=c)
        gaps = [jnp.sum(jnp.square(cond - other).reshape(len(x0), -1), axis=-1) for other in others]
        return gaps[0] if len(gaps) == 1 else jnp.stack(gaps, axis=-1)

    return jnp.stack([one_step(t) for t in generator.times[:-1]])


def weights_on_grid(
    guidance: Any, generator: Generator, c: Condition
) -> Float[Array, "k b *d"] | None:
    """omega of every sampling step and condition; None where it is not known before sampling.

    That is so for guidance that looks at features of the predictions, for weights of given samples,
    and for rules without weights. Several directions are the last axis.

    Args:
      guidance: whatever samplers take as guidance.
      generator: has the denoiser and the times.
      c: conditions, leaves (b, ...).
    """
    if np.ndim(guidance) >= 2:
        return None
    _, inputs = as_rule(guidance).prepare(generator.denoiser, generator.times, c)
    expected = (len(generator.times) - 1, conditions.size(c))
    is_array = isinstance(inputs, np.ndarray | jax.Array)
    return inputs if is_array and inputs.shape[:2] == expected else None


def guided_weight(
    guidance: Any, generator: Generator, c: Condition, gap: Float[Array, "k n *d"]
) -> dict[str, float] | None:
    """Mean |omega| over the sampling steps, plain and weighted by |Delta|^2.

    The weighted one says how far samples are moved: where cond and uncond agree, omega is free.

    Args:
      guidance: whatever samplers take as guidance.
      generator: has the denoiser and the times.
      c: conditions of the real examples, leaves (n, ...).
      gap: see `squared_gap`.

    Returns:
      ``mean`` and ``mean_by_delta``, or None for guidance whose weights are not known before
      sampling.
    """
    omega = weights_on_grid(guidance, generator, c)
    if omega is None:
        return None
    weight = jnp.abs(omega[..., 0] if omega.ndim > gap.ndim else omega)
    gap = gap[..., 0] if gap.ndim > weight.ndim else gap
    total = jnp.sum(gap)
    by_gap = jnp.where(total > 0.0, jnp.sum(weight * gap) / total, 0.0)
    return {"mean": float(jnp.mean(weight)), "mean_by_delta": float(by_gap)}
