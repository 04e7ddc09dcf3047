"""The Gram form: every distance of a one-step objective as a quadratic form of a small matrix.

The frozen denoiser enters a one-step objective only through ``r = cond - x0`` and
``Delta = cond - uncond`` at time t. With the noises as further rows, every proposal and every
target is a combination of rows with coefficients known from the schedule, and every squared
distance is ``u^T G u`` with ``G = rows rows^T`` and u a difference of coefficients. G is tiny
whatever the size of the data, and cancellation between nearby particles happens in the
coefficients, exactly, rather than in the data.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_PRECISION = jax.lax.Precision.HIGHEST  # TF32 and bf16 products are not enough


def gram_matrix(rows: Float[Array, "g q d"]) -> Float[Array, "g q q"]:
    """``G = rows rows^T`` of every group, accumulated in float32."""
    return jnp.einsum(
        "gpd,gqd->gpq", rows, rows, precision=_PRECISION, preferred_element_type=jnp.float32
    )


def squared_distances(
    gram: Float[Array, "g q q"], x: Float[Array, "g m q"], y: Float[Array, "g n q"]
) -> Float[Array, "g m n"]:
    """``|x_i - y_j|^2`` of particles given by their coefficients on the rows of a Gram matrix.

    Not negative in exact arithmetic; by rounding it may be, slightly.
    """
    u = x[:, :, None, :] - y[:, None, :, :]
    return jnp.einsum("gmnp,gpq,gmnq->gmn", u, gram, u, precision=_PRECISION)
