"""The energy distance of all strata pooled, estimated from some of them."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import discrepancy
from lgd.types import Scalar


def pooled_distance(
    x: Float[Array, "g m d"],
    y: Float[Array, "g n d"],
    *,
    drawn: int,
    num_strata: int,
    beta: Scalar = 1.0,
    lam: Scalar = 1.0,
) -> Float[Array, ""]:
    """An unbiased estimate of `discrepancy.energy_distance` of all strata pooled.

    C of S strata are drawn without replacement, all sets of C equally likely. A pair of particles
    of one stratum is drawn with probability ``C / S``, a pair of particles of different strata with
    ``C (C - 1) / (S (S - 1))``, so one of the first kind is over-represented. With every pair
    weighed by its inverse probability (Horvitz & Thompson, 1952, doi
    10.1080/01621459.1952.10483446), the sum over pairs has the mean of the sum over pairs of all
    strata, and so has its gradient. The weights of each kind add up to the number of its pairs
    among all strata: each mean over all pairs becomes ::

        p mean_{pairs of one stratum} + (1 - p) mean_{pairs of different strata}
        p = 1 / S                     particles and targets
        p = (m - 1) / (S m - 1)       different particles, m of each stratum; so for targets

    For C = S that is the energy distance of the batch. Particles of a stratum may differ in
    distribution and depend on one another; nothing but the draw of strata is averaged over.

    Args:
      x: particles, group i of the (i mod drawn)-th stratum of those drawn.
      y: targets, likewise.
      drawn: C, strata in the batch.
      num_strata: S, strata that they are drawn from.
      beta: power of the distances.
      lam: weight of the within-set terms.

    Raises:
      ValueError: for a number of groups that ``drawn`` does not divide, or unless
        2 <= drawn <= num_strata.
    """
    if len(x) % drawn or not 2 <= drawn <= num_strata:
        raise ValueError(
            f"expected groups of each of 2 to {num_strata} strata, got {len(x)} groups of {drawn}"
        )
    x, y = _by_stratum(x, drawn), _by_stratum(y, drawn)
    share = 1.0 / num_strata
    cross = _weighed(_mean_distances(x, y, beta), share)
    within = jnp.zeros_like(cross)
    for points in (x, y):
        m = points.shape[1]
        means = _mean_distances(points, points, beta)
        # A particle is at distance 0 of itself, and no pair with it.
        means = jnp.where(jnp.eye(drawn, dtype=bool), means * (m / max(m - 1, 1)), means)
        within += _weighed(means, (m - 1) / (num_strata * m - 1))
    return cross - 0.5 * lam * within


def _by_stratum(groups: Float[Array, "g m d"], drawn: int) -> Float[Array, "c rm d"]:
    """The particles of every stratum, of all rounds."""
    rounds = groups.reshape(-1, drawn, *groups.shape[1:])
    return jnp.swapaxes(rounds, 0, 1).reshape(drawn, -1, groups.shape[-1])


def _mean_distances(
    x: Float[Array, "c m d"], y: Float[Array, "c n d"], beta: Scalar
) -> Float[Array, "c c"]:
    """Mean ``|x - y|^beta`` over the pairs of every two strata."""
    flat = (points.reshape(-1, points.shape[-1]) for points in (x, y))
    distances = discrepancy.power(discrepancy.squared_distances(*flat), beta)
    c, m, n = *x.shape[:2], y.shape[1]
    return jnp.mean(distances.reshape(c, m, c, n), axis=(1, 3))


def _weighed(means: Float[Array, "c c"], share: float) -> Float[Array, ""]:
    """Means within strata, of weight ``share`` together, and between different ones."""
    same = jnp.mean(jnp.diagonal(means))
    return share * same + (1.0 - share) * discrepancy.off_diagonal_mean(means)
