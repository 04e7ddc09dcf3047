"""Energy distance of generated samples to real examples, stratum by stratum."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lgd import discrepancy
from lgd.data.dataset import Split


class ClassEnergyDistance:
    """Energy distance of samples to real examples, `discrepancy.energy_distance` by stratum.

    beta = lam = 1. It is built once for a real split: strata of unequal size are padded and masked.
    Without strata all examples are one stratum.

    Args:
      real: the real examples.
      num_classes: number of strata; None: that of the examples.

    Raises:
      ValueError: for a stratum with fewer than two examples, or a stratum >= num_classes.
    """

    def __init__(self, real: Split, num_classes: int | None = None) -> None:
        stratum = np.zeros(len(real.x), np.int32) if real.stratum is None else real.stratum
        num_classes = max(1, real.num_strata) if num_classes is None else num_classes
        counts = np.bincount(stratum, minlength=num_classes)
        if len(counts) > num_classes or counts.min() < 2:
            raise ValueError(f"expected >= 2 examples of {num_classes} strata, got {counts}")
        flat = real.x.reshape(len(real.x), -1)
        padded = np.zeros((num_classes, counts.max(), flat.shape[1]), np.float32)
        for k, count in enumerate(counts):
            padded[k, :count] = flat[stratum == k]
        self._real = jnp.asarray(padded)
        self._mask = jnp.arange(counts.max())[None] < jnp.asarray(counts)[:, None]
        self._within_real = _within(self._real, self._mask)
        self._stratum, order = stratum, np.argsort(stratum, kind="stable")
        self._rank = np.empty(len(order), np.int64)  # of every example in its stratum
        self._rank[order] = np.concatenate([np.arange(count) for count in counts])

    def __call__(self, x: Float[Array, "g n *dims"]) -> Float[Array, " g"]:
        """Return the distance of every stratum, given n >= 2 samples of each.

        Raises:
          ValueError: as in `with_mean_distances`.
        """
        return self.with_mean_distances(x)[0]

    def with_mean_distances(
        self, x: Float[Array, "g n *dims"]
    ) -> tuple[Float[Array, " g"], Float[np.ndarray, " r"]]:
        """Return the distance of every stratum, and ``E|x - y_j|`` of every real example y_j.

        The latter is the mean distance to the samples of its stratum, in the order of the real
        examples.

        Raises:
          ValueError: for another number of strata, fewer than two samples, samples of another size,
            or samples at distances that are not finite.
        """
        distances, means = _distance(self._checked(x), self._real, self._mask, self._within_real)
        if not np.isfinite(np.asarray(distances)).all():
            raise ValueError("expected samples at finite distances, got others")
        return distances, np.asarray(means)[self._stratum, self._rank]

    def _checked(self, x: Float[Array, "g n *dims"]) -> Float[Array, "g n d"]:
        if len(x) != len(self._real) or x.shape[1] < 2:
            expected = f"{len(self._real)} strata of >= 2 samples"
            raise ValueError(f"expected {expected}, got {x.shape[:2]}")
        flat = x.reshape(*x.shape[:2], -1)
        if flat.shape[-1] != self._real.shape[-1]:
            size = self._real.shape[-1]
            raise ValueError(f"expected samples of {size} numbers, got {flat.shape[-1]}")
        return flat


@jax.jit
def _within(real: Float[Array, "g r d"], mask: Bool[Array, "g r"]) -> Float[Array, " g"]:
    def one(y: Array, keep: Array) -> Array:
        distances = discrepancy.power(discrepancy.squared_distances(y, y), 1.0)
        count = jnp.sum(keep)
        total = jnp.sum(jnp.where(keep[:, None] & keep[None], distances, 0.0))
        return total / (count * (count - 1))

    return jax.lax.map(lambda pair: one(*pair), (real, mask))


@jax.jit
def _distance(
    x: Float[Array, "g n d"],
    real: Float[Array, "g r d"],
    mask: Bool[Array, "g r"],
    within_reals: Float[Array, " g"],
) -> tuple[Float[Array, " g"], Float[Array, "g r"]]:
    def one(group: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        samples, y, keep, within_real = group
        means = jnp.mean(discrepancy.power(discrepancy.squared_distances(samples, y), 1.0), axis=0)
        cross = jnp.sum(jnp.where(keep, means, 0.0)) / jnp.sum(keep)
        within = discrepancy.power(discrepancy.squared_distances(samples, samples), 1.0)
        within = discrepancy.off_diagonal_mean(within)
        return cross - 0.5 * (within + within_real), means

    return jax.lax.map(one, (x, real, mask, within_reals))
