"""Score mixing, features of a pair of predictions, and omega on a grid of times."""

import inspect
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import conditions
from lgd.guidance.weights import omega_function
from lgd.machinery.words import one_line
from lgd.types import Condition, OmegaFn, Scalar


def mix(
    cond: Float[Array, "b *dims"],
    uncond: Float[Array, "b *dims"],
    omega: Float[Array, " b"] | Scalar,
) -> Float[Array, "b *dims"]:
    """``x0_hat = cond + omega (cond - uncond)``, on x0-predictions (paper, Eq. 7).

    Written from the nearer end, so that omega = 0 is cond and omega = -1 is uncond to the bit.
    Raises ValueError for predictions of different shapes, or omega of another shape.
    """
    omega = jnp.asarray(omega, cond.dtype)
    if cond.shape != uncond.shape or omega.shape not in ((), cond.shape[:1]):
        raise ValueError(
            f"expected cond and uncond of one shape (b, ...) and omega (b,) or a number, got "
            f"{cond.shape}, {uncond.shape} and {omega.shape}"
        )
    if omega.ndim:
        omega = omega.reshape(omega.shape + (1,) * (cond.ndim - 1))
    delta = cond - uncond
    return jnp.where(omega < -0.5, uncond + (1.0 + omega) * delta, cond + omega * delta)


PAIR_FEATURES = ("log rms of cond", "log rms of uncond", "log rms of cond - uncond", "cosine")


def pair_features(
    cond: Float[Array, "b *dims"], uncond: Float[Array, "b *dims"]
) -> Float[Array, "b f"]:
    """What omega may know of a pair of predictions: `PAIR_FEATURES`.

    Logarithms of root mean squares over the data's axes, floored at 1e-6, and the cosine of the
    angle between cond and uncond.
    """
    flat = [x.reshape(len(x), -1).astype(jnp.float32) for x in (cond, uncond)]
    flat.append(flat[0] - flat[1])
    rms = [jnp.sqrt(jnp.maximum(jnp.mean(jnp.square(x), axis=-1), 1e-12)) for x in flat]
    cosine = jnp.mean(flat[0] * flat[1], axis=-1) / (rms[0] * rms[1])
    return jnp.stack([*(jnp.log(size) for size in rms), cosine], axis=-1)


@runtime_checkable
class OfFeatures(Protocol):
    """An omega function that says how many features it takes."""

    @property
    def num_features(self) -> int:
        """Features of the predictions; 0: none."""


def takes_features(omega_fn: OmegaFn) -> bool:
    """Whether it is a function of (s, t, c, features), with `pair_features` (b, f), or without.

    What has ``num_features`` says so by it; of other functions the signature does.
    """
    if isinstance(omega_fn, OfFeatures):
        return omega_fn.num_features > 0
    return "features" in inspect.signature(omega_fn).parameters


def on_grid(omega_fn: OmegaFn, times: Float[Array, " n"], c: Condition) -> Float[Array, "k b *d"]:
    """omega of every step of a grid: (k, b), or (k, b, directions).

    Args:
      omega_fn: a function of (s, t, c).
      times: decreasing, (k + 1,): step i goes from times[i] to times[i + 1].
      c: conditions, leaves (b, ...).

    Raises:
      ValueError: for a function that looks at features of predictions, which no grid has; for
        weights of another shape; and where a weight is not finite although nothing is traced, as
        that of a label outside a table is.

    >>> import jax.numpy as jnp, lgd
    >>> schedule = lgd.guidance.limited_interval(2.0, 0.0, 0.5)
    >>> lgd.guidance.on_grid(schedule, jnp.array([1.0, 0.5, 0.0]), jnp.array([3]))
    Array([[0.],
           [2.]], dtype=float32)
    """
    omega_fn = omega_function(omega_fn)
    if takes_features(omega_fn):
        raise ValueError("expected omega of (s, t, c), got one that looks at features too")
    batch = conditions.size(c)

    def one_step(t: Float[Array, ""], s: Float[Array, ""]) -> Float[Array, "b *d"]:
        omega = omega_fn(s=jnp.full(batch, s), t=jnp.full(batch, t), c=c)
        if np.shape(omega)[:1] != (batch,) or np.ndim(omega) > 2:
            expected = f"({batch},) or ({batch}, directions)"
            raise ValueError(f"guidance: expected omega of shape {expected}, got {np.shape(omega)}")
        return omega

    omegas = jax.vmap(one_step)(times[:-1], times[1:])
    if not isinstance(omegas, jax.core.Tracer) and not bool(jnp.isfinite(omegas).all()):
        known = f"conditions that {one_line(omega_fn, 80)} has finite weights for"
        raise ValueError(f"guidance: expected {known}, got others")
    return omegas
