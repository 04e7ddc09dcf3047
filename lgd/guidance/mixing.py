"""Score mixing, features of a pair of predictions, and omega on a grid of times."""

import inspect

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.types import Condition, OmegaFn, Scalar


def mix(
    cond: Float[Array, "b *dims"],
    uncond: Float[Array, "b *dims"],
    omega: Float[Array, " b"] | Scalar,
) -> Float[Array, "b *dims"]:
    """``x0_hat = cond + omega (cond - uncond)``, on x0-predictions (paper, Eq. 7).

    Written from the nearer end, so that omega = 0 is cond and omega = -1 is uncond to the bit.
    """
    omega = jnp.asarray(omega, cond.dtype)
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
    rms = [jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(x), axis=-1)), 1e-6) for x in flat]
    cosine = jnp.mean(flat[0] * flat[1], axis=-1) / (rms[0] * rms[1])
    return jnp.stack([*(jnp.log(size) for size in rms), cosine], axis=-1)


def takes_features(omega_fn: OmegaFn) -> bool:
    """Whether it is a function of (s, t, c, features), with `pair_features` (b, f), or without."""
    return "features" in inspect.signature(omega_fn).parameters


def on_grid(omega_fn: OmegaFn, times: Float[Array, " n"], c: Condition) -> Float[Array, "k b"]:
    """omega of every step of a grid: (num_steps, b), for times (num_steps + 1,), decreasing."""
    batch = jax.tree.leaves(c)[0].shape[0]

    def one_step(t: Float[Array, ""], s: Float[Array, ""]) -> Float[Array, " b"]:
        return omega_fn(s=jnp.full(batch, s), t=jnp.full(batch, t), c=c)

    return jax.vmap(one_step)(times[:-1], times[1:])
