"""Weights that match the means of test functions: the weak form of the law of a step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ROUNDS = 3  # of Gauss-Newton; one where test functions are linear


def least(
    moved: Callable[[Float[Array, " g"]], Float[Array, "g n f"]],
    targets: Float[Array, "g n f"],
    low: Float[Array, ""],
    high: Float[Array, ""],
    *,
    shared: bool,
) -> Float[Array, " r"]:
    """The least squares of ``sum_k (E phi_k(x(w)) - E phi_k(y))^2 / Var phi_k(y)`` over w.

    With ``a_k`` the gap of the means at w and ``b_k`` its derivative, ``w - sum a_k b_k / sum
    b_k^2`` is the closed form (the weak form of PathGuide, arXiv 2608.29107, for a whole step); for
    test functions that are not linear it is repeated. Test functions are what is compared, and
    its squares, each over the spread of the targets.

    Args:
      moved: weights (g,) -> what is compared of the samples with them.
      targets: what is compared of the targets.
      low: the least weight.
      high: the greatest weight.
      shared: one weight (1,) for all groups, instead of (g,).
    """
    g = len(targets)
    centre, width = (
        jnp.mean(targets, axis=1, keepdims=True),
        jnp.std(targets, axis=1, keepdims=True),
    )
    width = jnp.where(width > 0.0, width, 1.0)

    def tests(points: Float[Array, "g n f"]) -> Float[Array, "g k"]:
        scaled = (points - centre) / width
        return jnp.concatenate([jnp.mean(scaled, axis=1), jnp.mean(scaled**2, axis=1)], axis=-1)

    goal = tests(targets)

    def gaps(w: Float[Array, " r"]) -> Float[Array, "g k"]:
        return tests(moved(jnp.broadcast_to(w, (g,)))) - goal

    w = jnp.clip(jnp.zeros(1 if shared else g), low, high)
    for _ in range(_ROUNDS):
        gap, slope = jax.jvp(gaps, (w,), (jnp.ones_like(w),))
        over = None if shared else 1
        steepness = jnp.sum(slope**2, axis=over)
        step = jnp.sum(gap * slope, axis=over) / jnp.where(steepness > 0.0, steepness, 1.0)
        w = jnp.clip(w - step, low, high)
    return w
