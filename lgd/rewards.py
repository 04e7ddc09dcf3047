"""Rewards R(x0, c): closed forms, the log-probability of a classifier, any function; tilting.

A reward maps samples (b, *dims) and conditions (b, ...) to (b,); larger is better. An objective
weighs it by gamma_R: ``loss = distance - gamma_R E R(x0, c)`` (Galashov et al., 2025,
arXiv 2510.00815, Alg. 4).

Prefer rewards that are bounded above. Moving all samples by r adds about ``r^beta`` to an energy
distance and up to ``|a| r`` to a `Linear` reward, so the loss is unbounded below for beta < 1, and
for beta = 1 where ``gamma_R |a| > 1``; then only the bound on omega limits it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd.types import Condition, Params, RewardFn, Scalar

_SMALLEST_SQUARE = 1e-20  # squared distances below this have no direction


@dataclasses.dataclass(frozen=True)
class Linear:
    """The reward ``R = <a, x0>``, in (-inf, inf), with a of the size of x0, flattened."""

    direction: tuple[float, ...]

    def __call__(self, x0: Float[Array, "b *dims"], c: Condition) -> Float[Array, " b"]:
        """Reward of each example; c is ignored."""
        return _flat(x0, self.direction) @ jnp.asarray(self.direction, x0.dtype)


@dataclasses.dataclass(frozen=True)
class Tanh:
    """The reward ``R = tanh((<a, x0> - offset) / scale)``, in (-1, 1): a bounded `Linear`.

    Raises:
      ValueError: for a scale that is not finite and above 0.
    """

    direction: tuple[float, ...]
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        _check_positive("scale", self.scale)

    def __call__(self, x0: Float[Array, "b *dims"], c: Condition) -> Float[Array, " b"]:
        """Reward of each example; c is ignored."""
        projection = Linear(self.direction)(x0, c)
        return jnp.tanh((projection - self.offset) / self.scale)


@dataclasses.dataclass(frozen=True)
class Bump:
    """The reward ``R = exp(-|x0 - mu|^2 / (2 l^2))``, in (0, 1], for samples near a centre mu.

    Its gradient vanishes many lengths l away from mu.

    Raises:
      ValueError: for a length that is not finite and above 0.
    """

    centre: tuple[float, ...]
    length: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("length", self.length)

    def __call__(self, x0: Float[Array, "b *dims"], c: Condition) -> Float[Array, " b"]:
        """Reward of each example; c is ignored."""
        return jnp.exp(-_squared_distance(x0, self.centre) / (2.0 * self.length**2))


@dataclasses.dataclass(frozen=True)
class NegativeDistance:
    """The reward ``R = -|x0 - mu|``, in (-inf, 0], whose gradient has norm 1 except at mu, 0."""

    centre: tuple[float, ...]

    def __call__(self, x0: Float[Array, "b *dims"], c: Condition) -> Float[Array, " b"]:
        """Reward of each example; c is ignored."""
        squares = _squared_distance(x0, self.centre)
        apart = squares > _SMALLEST_SQUARE
        return -jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)


def class_log_probability(
    apply: Callable[[Params, Array], Float[Array, "b classes"]], params: Params
) -> RewardFn:
    """Return the reward ``R = log p(c | x0)`` of a trained classifier, in (-inf, 0].

    It takes labels c (b,); a label without a logit has reward NaN. Do not reward with the
    classifier that evaluates the samples.

    Args:
      apply: ``apply(params, x0)`` returns logits (b, classes).
      params: parameters of the classifier.

    Raises:
      ValueError: when the reward is called and the logits are not (b, classes).
    """

    def reward(x0: Float[Array, "b *dims"], c: Int[Array, " b"]) -> Float[Array, " b"]:
        logits = apply(params, x0)
        if logits.ndim != 2 or len(logits) != len(x0):
            raise ValueError(f"expected logits ({len(x0)}, classes), got {logits.shape}")
        log_probability = jax.nn.log_softmax(logits, axis=-1)
        of_label = jnp.take_along_axis(log_probability, c[:, None], axis=1, mode="fill")[:, 0]
        return jnp.where(c >= 0, of_label, jnp.nan)  # -1 would read the last class

    return reward


def from_function(
    function: Callable[..., Array], *, single: bool = False, conditional: bool = True
) -> RewardFn:
    """Return a reward that calls a differentiable function which JAX can trace.

    >>> import jax.numpy as jnp
    >>> from lgd import rewards
    >>> brightness = rewards.from_function(jnp.mean, single=True, conditional=False)
    >>> images, labels = jnp.stack([jnp.zeros((2, 2)), jnp.ones((2, 2))]), jnp.array([0, 1])
    >>> brightness(images, labels).tolist()
    [0.0, 1.0]

    Args:
      function: R(x0, c) on batches x0 (b, *dims), c (b, ...), returning (b,).
      single: the function takes one example x0 (*dims), c (...) and returns a scalar instead.
      conditional: whether the function takes c; if not, it is R(x0).

    Raises:
      ValueError: when the reward is called and the function returns another shape, or no floats.
    """

    def call(x0: Array, c: Condition) -> Any:
        return function(x0, c) if conditional else function(x0)

    def reward(x0: Array, c: Condition) -> Float[Array, " b"]:
        values = jax.vmap(_scalar(call))(x0, c) if single else call(x0, c)
        _check_values(values, x0.shape[:1])
        return values

    return reward


def tilt_weights(values: Float[Array, "*s n"], gamma: Scalar) -> Float[Array, "*s n"]:
    """Return weights ``exp(gamma R_i) / sum_j exp(gamma R_j)`` of draws with rewards R_i, (..., n).

    Draws of p(x0 | c) with these self-normalised importance weights represent the tilted law
    ``p_gamma(x0 | c) ~ p(x0 | c) exp(gamma R(x0, c))``: weighted means are consistent, with a bias
    of order one over `effective_size`. gamma = 0: equal weights, no tilt.
    """
    return jax.nn.softmax(gamma * values, axis=-1)


def effective_size(weights: Float[Array, "*s n"]) -> Float[Array, "*s"]:
    """Return the effective sample size ``1 / sum_i w_i^2`` of weights, from 1 to n."""
    return 1.0 / jnp.sum(jnp.square(weights), axis=-1)


def _flat(x0: Array, like: tuple[float, ...]) -> Float[Array, "b d"]:
    size = math.prod(x0.shape[1:])
    if size != len(like):
        raise ValueError(f"expected x0 of {len(like)} numbers each, got {size} of {x0.shape}")
    return x0.reshape(len(x0), size)


def _squared_distance(x0: Array, centre: tuple[float, ...]) -> Float[Array, " b"]:
    gap = _flat(x0, centre) - jnp.asarray(centre, x0.dtype)[None]
    return jnp.sum(jnp.square(gap), axis=-1)


def _scalar(call: Callable[[Array, Condition], Any]) -> Callable[[Array, Condition], Array]:
    def checked(x0: Array, c: Condition) -> Array:
        value = call(x0, c)
        _check_values(value, ())
        return value

    return checked


def _check_values(values: Any, shape: tuple[int, ...]) -> None:
    got = getattr(values, "shape", None)
    if got != shape:
        raise ValueError(f"expected rewards of shape {shape}, got {values if got is None else got}")
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"expected rewards as floats, got {values.dtype}")


def _check_positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"expected a finite {name} > 0, got {value}")
