"""A population of samples that takes guided steps beside noised real examples."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.diffusion import bridge_coefficients, bridge_mean, denoise_pair, expand
from lgd.direct import curves, moments
from lgd.types import Condition, Denoiser, FeatureFn, Params, PRNGKey


class Population(NamedTuple):
    """Samples and real examples in groups, all (g, n, *dims).

    x: the samples; target: real examples, noised as x is; real: the same without noise.
    """

    x: Float[Array, "g n *dims"]
    target: Float[Array, "g n *dims"]
    real: Float[Array, "g n *dims"]


class Choice(NamedTuple):
    """How a weight is chosen, see `PathSettings`; shared: one weight for all groups."""

    match: str
    policy: str
    residuals: bool
    beta: float
    churn: float
    features: FeatureFn | None
    shared: bool


def start(key: PRNGKey, denoiser: Denoiser, real: Any, t: float) -> Population:
    """Pure noise, and real examples (g, n, *dims) noised to t by the same noise."""
    real, at = jnp.asarray(real, jnp.float32), jnp.asarray(t, jnp.float32)
    x = denoiser.schedule.sigma(at) * jax.random.normal(key, real.shape)
    return Population(x, denoiser.schedule.alpha(at) * real + x, real)


@functools.partial(jax.jit, static_argnames=("denoiser", "choice", "is_last"))
def step(
    denoiser: Denoiser,
    params: Params,
    walkers: Population,
    c: Condition,
    t: Float[Array, ""],
    s: Float[Array, ""],
    key: PRNGKey,
    weights: Float[Array, " w"],
    *,
    choice: Choice,
    is_last: bool,
) -> tuple[Population, Float[Array, " r"]]:
    """The population after the step with the best weights, and these weights.

    Targets take the same step, noise included, with the real x0 in place of an estimate, which
    keeps their law: x0 noised to s.

    Args:
      denoiser: the model.
      params: its arrays.
      walkers: the population at t.
      c: conditions of all samples, leaves (g n, ...).
      t: where the step comes from.
      s: where it goes to.
      key: of the noise of the step.
      weights: the coarse grid that is looked at first.
      choice: how the weight is chosen.
      is_last: whether samples are what the model predicts.
    """
    g, n = walkers.x.shape[:2]
    x, goal, real = (leaf.reshape(g * n, *leaf.shape[2:]) for leaf in walkers)
    t, s = jnp.full(g * n, t), jnp.full(g * n, s)
    cond, uncond = denoise_pair(denoiser, params, x, t=t, c=c)
    residual: Array | float = 0.0
    if choice.residuals:
        scale = bridge_coefficients(t, s, schedule=denoiser.schedule, churn=choice.churn).x0
        error = _signs(key, x) * (real - denoiser.apply(params, goal, t=t, c=c))
        residual = error if is_last else expand(scale, x) * error
    fixed, direction, goal = (
        (cond, cond - uncond, real)
        if is_last
        else _moves(key, denoiser, x, goal, real, cond, uncond, t, s, choice.churn)
    )

    def seen(points: Array) -> Array:
        """The points, or features of what the model makes of them."""
        if choice.features is None:
            return points
        points = points.reshape(x.shape)
        estimate = points if is_last else denoiser.apply(params, points, t=s, c=c)
        return choice.features(estimate).reshape(g, n, -1)

    first, by, to = (part.reshape(g, n, -1) for part in (fixed + residual, direction, goal))
    best = _chosen(first, by, to, seen, weights, choice)
    best = jnp.where(jnp.isfinite(jnp.sum(cond) + jnp.sum(uncond)), best, jnp.nan)
    x = fixed + expand(jnp.repeat(jnp.broadcast_to(best, (g,)), n), x) * direction
    if choice.policy == "data":
        x = goal
    return Population(x.reshape(walkers.x.shape), goal.reshape(walkers.x.shape), walkers.real), best


def _chosen(
    fixed: Float[Array, "g n d"],
    direction: Float[Array, "g n d"],
    goal: Float[Array, "g n d"],
    seen: Callable[[Array], Array],
    weights: Float[Array, " w"],
    choice: Choice,
) -> Float[Array, " r"]:
    """The weights for which ``fixed + w direction`` comes nearest to the targets.

    Args:
      fixed: samples with weight 0.
      direction: what a weight of 1 adds.
      goal: targets.
      seen: flat points -> what is compared of them, (g, n, f).
      weights: the coarse grid that is looked at first; no weight is outside.
      choice: how the weight is chosen.
    """
    g = len(goal)
    if choice.match == "energy" and choice.features is None:
        curve = curves.along(fixed, direction, goal, beta=choice.beta)
        return curves.least(curve, weights, g, shared=choice.shared)

    def moved(w: Float[Array, " g"]) -> Array:
        return seen(fixed + w[:, None, None] * direction)

    of_goal = seen(goal)
    if choice.match == "energy":
        return curves.least(
            lambda w: curves.between(moved(w), of_goal, beta=choice.beta), weights, g,
            shared=choice.shared,
        )  # fmt: skip
    return moments.least(moved, of_goal, weights[0], weights[-1], shared=choice.shared)


def _signs(key: PRNGKey, x: Array) -> Array:
    """A sign for every example, of another key than the noise of the step."""
    signs = jax.random.rademacher(jax.random.fold_in(key, 1), (len(x),), dtype=x.dtype)
    return expand(signs, x)


def _moves(
    key: PRNGKey,
    denoiser: Denoiser,
    x: Array,
    goal: Array,
    real: Array,
    cond: Array,
    uncond: Array,
    t: Array,
    s: Array,
    churn: float,
) -> tuple[Array, Array, Array]:
    """x_s at weight 0, what a weight of 1 adds to it, and the targets at s.

    Args:
      key: of the noise of the step.
      denoiser: whose noise schedule is meant.
      x: samples at t.
      goal: their targets at t.
      real: their targets without noise.
      cond: conditional predictions.
      uncond: unconditional ones.
      t: times of all samples.
      s: times that they go to.
      churn: see `diffusion.bridge_coefficients`.
    """
    scale = bridge_coefficients(t, s, schedule=denoiser.schedule, churn=churn)
    noise = expand(scale.noise, x) * jax.random.normal(key, x.shape) if churn else 0.0
    return (
        bridge_mean(scale, x, cond) + noise,
        expand(scale.x0, x) * (cond - uncond),
        bridge_mean(scale, goal, real) + noise,
    )
