"""Whether a reward is one: a number for each example, finite, not constant, with a gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lgd.checks.report import Finding, Findings
from lgd.machinery import processes
from lgd.machinery.words import described, one_line
from lgd.types import Condition, RewardFn

_EXPECTED = "expected R(x0, c) -> (b,), floats"


def weights(reward: Any, weight: Any) -> Findings:
    """A reward without a weight, or a weight without a reward."""
    if reward is None and weight:
        says = f"expected a reward for reward_weight = {weight}, got none; pass reward="
        return [Finding("reward", "error", says)]
    if reward is not None and weight is not None and not weight:
        says = "expected a reward_weight other than 0 for a reward, got 0: it has no effect"
        return [Finding("reward", "warning", says)]
    return []


def values(reward: Any, x0: np.ndarray, c: Condition) -> Findings:
    """What the values of a reward on examples (n, *dims) say.

    Args:
      reward: R(x0, c).
      x0: the examples.
      c: their conditions, leaves (n, ...).
    """
    if not callable(reward) or isinstance(reward, type):
        says = f"{_EXPECTED}, a function, got {described(reward)}"
        return [Finding("reward", "error", says)]
    x, c = jnp.asarray(x0, jnp.float32), jax.tree.map(jnp.asarray, c)
    try:
        shape = jax.eval_shape(reward, x, c)
    except Exception as error:  # whatever the function of a user raises
        says = f"{_EXPECTED}, got {type(error).__name__}: {one_line(error)}"
        return [Finding("reward", "error", says)]
    got = getattr(shape, "shape", None)
    if got != (len(x),) or not jnp.issubdtype(shape.dtype, jnp.floating):
        advice = "; a function of one example is lgd.rewards.from_function(f, single=True)"
        says = f"{_EXPECTED}, here ({len(x)},), got {_words(shape)}"
        return [Finding("reward", "error", says + (advice if got == () else ""))]
    return _judged(*_rewarded(reward, x, c))


def _words(shape: Any) -> str:
    got = getattr(shape, "shape", None)
    return described(shape) if got is None else f"{shape.dtype} of shape {got}"


def _rewarded(reward: RewardFn, x0: Array, c: Condition) -> tuple[np.ndarray, np.ndarray]:
    """Values (n,) and gradients (n, *dims)."""

    @jax.jit
    def both(x0: Array, c: Condition) -> tuple[Array, Array]:
        value, pull = jax.vjp(lambda x: reward(x, c), x0)
        return value, pull(jnp.ones_like(value))[0]

    value, gradient = processes.to_host(both(x0, c))
    return np.asarray(value, np.float64), np.asarray(gradient, np.float64)


def _judged(value: np.ndarray, gradient: np.ndarray) -> Findings:
    bad = int((~np.isfinite(value)).sum())
    if bad:
        says = f"expected finite rewards, got {bad} of {len(value)} that are NaN or inf"
        return [Finding("reward", "error", says)]
    if not np.isfinite(gradient).all():
        says = "expected finite gradients of the reward, got NaN or inf"
        return [Finding("reward", "error", says)]
    if not gradient.any():
        says = "expected a reward with a gradient in x0, got gradients of 0 for all examples"
        advice = "argmax, rounding and stop_gradient have none, so that nothing is learned from it"
        return [Finding("reward", "warning", f"{says}; {advice}")]
    if len(value) > 1 and np.ptp(value) == 0.0:
        says = f"expected rewards that differ, got {value[0]:.4g} for each of {len(value)} examples"
        return [Finding("reward", "warning", says)]
    return []
