"""Distances of samples to the laws p(x0 | c) exp(gamma R(x0, c)), tilted by a reward R."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import discrepancy
from lgd.data.ranges import checked_examples
from lgd.machinery.arguments import finite_rows
from lgd.rewards import effective_size, tilt_weights


class NearestTilt(NamedTuple):
    """The tilt gamma, the same for all strata, whose law is nearest to samples; its distance."""

    gamma: float
    distance: float  # mean over strata


class TiltedLaws:
    """Tilted laws ``p_gamma(x0 | c) ~ p(x0 | c) exp(gamma R(x0, c))`` for a grid of k gammas.

    All gammas share a pool of draws y_i of p(x0 | c), with the weights w_i of
    `rewards.tilt_weights`: mean rewards are ``sum_i w_i R_i``, and the energy distance
    (beta = lam = 1) of samples x_j to a tilted law is
    ``sum_i w_i mean_j |x_j - y_i| - mean_{j != k} |x_j - x_k| / 2
    - sum_{i != l} w_i w_l |y_i - y_l| / (2 (1 - sum_i w_i^2))``.

    Attributes by gamma and stratum, (k, g), are ``mean_reward``; ``from_untilted``, the energy
    distance to p(x0 | c); and ``effective_size`` of the draws, which is small where gamma is too
    large for the pool.

    Args:
      pool: draws of p(x0 | c), n of every stratum.
      values: their rewards.
      gammas: the grid; 0: no tilt.

    Raises:
      ValueError: for values of another shape than (g, n), without gammas, or draws or values that
        are not finite.
    """

    def __init__(
        self, pool: Float[Array, "g n *dims"], values: Float[Array, "g r"], gammas: Sequence[float]
    ) -> None:
        if values.shape != pool.shape[:2] or not len(gammas):
            raise ValueError(f"expected values {pool.shape[:2]} and gammas, got {values.shape}")
        finite_rows("values", values, axes=2)
        checked_examples("pool", pool.reshape(-1, *pool.shape[2:]))
        self.gammas = tuple(gammas)
        flat = pool.reshape(*pool.shape[:2], -1)
        self._scale = discrepancy.magnitude(flat)
        self._pool = flat / self._scale
        tilt = jax.vmap(lambda gamma: tilt_weights(values, gamma), out_axes=1)
        self._weights = tilt(jnp.asarray(self.gammas))  # (g, k, n)
        self._within, from_untilted = _among(self._pool, self._weights)
        self.from_untilted = self._scale * from_untilted.T
        self.mean_reward = jnp.sum(self._weights * values[:, None], axis=-1).T
        self.effective_size = effective_size(self._weights).T

    def distance(self, x: Float[Array, "g m *dims"]) -> Float[Array, "k g"]:
        """Return the energy distance of samples to every tilted law, by stratum.

        Raises:
          ValueError: for another number of strata, fewer than two samples, or samples that are not
            finite or pixels of 0 to 255.
        """
        if len(x) != len(self._pool) or x.shape[1] < 2:
            expected = f"{len(self._pool)} strata of >= 2 samples"
            raise ValueError(f"expected {expected}, got {x.shape[:2]}")
        checked_examples("samples", x.reshape(-1, *x.shape[2:]))
        flat = x.reshape(*x.shape[:2], -1) / self._scale
        return self._scale * _distance(flat, self._pool, self._weights, self._within).T

    def nearest(self, distance: Float[Array, "k g"]) -> NearestTilt:
        """Return the gamma with the least mean of `distance` over strata."""
        mean = jnp.mean(distance, axis=1)
        best = int(jnp.argmin(mean))
        return NearestTilt(self.gammas[best], float(mean[best]))


def _distances(x: Float[Array, "m d"], y: Float[Array, "n d"]) -> Float[Array, "m n"]:
    return discrepancy.power(discrepancy.squared_distances(x, y), 1.0)


def _product(w: Float[Array, "k n"], a: Float[Array, "n *s"]) -> Float[Array, "k *s"]:
    return jnp.matmul(w, a, precision=jax.lax.Precision.HIGHEST)  # differences of these are small


@jax.jit
def _among(
    pool: Float[Array, "g n d"], weights: Float[Array, "g k n"]
) -> tuple[Float[Array, "g k"], Float[Array, "g k"]]:
    """Return the mean distance within every tilted law, and the energy distance to the untilted.

    Means are over pairs of different draws.
    """

    def one(group: tuple[Array, Array]) -> tuple[Array, Array]:
        y, w = group
        distances = _distances(y, y)
        moved = _product(w, distances)
        tilted = jnp.sum(moved * w, axis=-1) / (1.0 - jnp.sum(jnp.square(w), axis=-1))
        untilted = discrepancy.off_diagonal_mean(distances)
        return tilted, jnp.sum(moved, axis=-1) / (len(y) - 1) - 0.5 * (tilted + untilted)

    return jax.lax.map(one, (pool, weights))


@jax.jit
def _distance(
    x: Float[Array, "g m d"],
    pool: Float[Array, "g n d"],
    weights: Float[Array, "g k n"],
    within_pools: Float[Array, "g k"],
) -> Float[Array, "g k"]:
    def one(group: tuple[Array, Array, Array, Array]) -> Array:
        samples, y, w, within_pool = group
        within = discrepancy.off_diagonal_mean(_distances(samples, samples))
        cross = _product(w, jnp.mean(_distances(samples, y), axis=0))
        return cross - 0.5 * (within + within_pool)

    return jax.lax.map(one, (x, pool, weights, within_pools))
