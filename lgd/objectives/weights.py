"""Guidance weights of every particle of a group, from any omega function."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import conditions, guidance
from lgd.types import Condition, OmegaFn


def member_weights(
    omega_fn: OmegaFn,
    c: Condition,
    *,
    s: Float[Array, " g"],
    t: Float[Array, " g"],
    num_members: int,
    num_directions: int,
    per_member: bool,
    features: Float[Array, "g m f"],
) -> Float[Array, "g m k"]:
    """Guidance weights of every member and direction; one call of omega_fn on all of them.

    A group whose members share their condition asks for one value, unless omega_fn takes features.

    Args:
      omega_fn: omega(s, t, c) or omega(s, t, c, features), with values (b,) or (b, k); values (b,)
        weigh the first direction, and the others get 0.
      c: conditions, leaves (g, ...), or (g, m, ...) with ``per_member``.
      s: times that the steps go to.
      t: times that they come from.
      num_members: m.
      num_directions: k.
      per_member: whether members have conditions of their own.
      features: `guidance.pair_features` of every member; read only if omega_fn takes features.

    Raises:
      ValueError: if omega_fn gives another number of directions.
    """
    g, m, k = len(t), num_members, num_directions
    with_features = guidance.takes_features(omega_fn)
    count = m if with_features or per_member else 1
    if per_member:
        c = conditions.flatten(c)
    elif count > 1:
        c = conditions.repeat(c, m)
    extra = {"features": features.reshape(g * m, -1)} if with_features else {}
    omega = omega_fn(s=jnp.repeat(s, count), t=jnp.repeat(t, count), c=c, **extra)
    omega = omega.reshape(g, count, -1)
    if omega.shape[-1] not in (1, k):
        raise ValueError(f"directions: expected 1 or {k} values of omega, got {omega.shape[-1]}")
    omega = jnp.pad(omega, ((0, 0), (0, 0), (0, k - omega.shape[-1])))
    return jnp.broadcast_to(omega, (g, m, k))
