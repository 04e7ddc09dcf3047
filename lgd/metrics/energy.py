"""Energy distance of generated samples to real ones, class by class."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lgd import discrepancy
from lgd.data.dataset import Split


class ClassEnergyDistance:
    """`discrepancy.energy_distance` (Eq. 9, beta 1, lam 1) of every class to the real examples.

    Built once for a real split; classes of unequal size are padded and masked. Raises ValueError
    for a class with fewer than two examples.
    """

    def __init__(self, real: Split, num_classes: int) -> None:
        counts = np.bincount(real.stratum, minlength=num_classes)
        if len(counts) > num_classes or counts.min() < 2:
            raise ValueError(f"expected >= 2 examples of {num_classes} classes, got {counts}")
        flat = real.x.reshape(len(real.x), -1)
        padded = np.zeros((num_classes, counts.max(), flat.shape[1]), np.float32)
        for label, count in enumerate(counts):
            padded[label, :count] = flat[real.stratum == label]
        self._real = jnp.asarray(padded)
        self._mask = jnp.arange(counts.max())[None] < jnp.asarray(counts)[:, None]
        self._own = _within(self._real, self._mask)
        self._labels, order = real.stratum, np.argsort(real.stratum, kind="stable")
        self._rank = np.empty(len(order), np.int64)  # of every example among those of its class
        self._rank[order] = np.concatenate([np.arange(count) for count in counts])

    def __call__(self, x: Float[Array, "g n *dims"]) -> Float[Array, " g"]:
        """Distance of each class; x holds n >= 2 samples of every class."""
        return self.with_mean_distances(x)[0]

    def with_mean_distances(
        self, x: Float[Array, "g n *dims"]
    ) -> tuple[Float[Array, " g"], Float[np.ndarray, " r"]]:
        """The same, and ``E|x - y_j|`` of every real example y_j to the samples of its class.

        The latter are in the order of the real examples.
        """
        each, means = _distance(self._checked(x), self._real, self._mask, self._own)
        return each, np.asarray(means)[self._labels, self._rank]

    def _checked(self, x: Float[Array, "g n *dims"]) -> Float[Array, "g n d"]:
        if len(x) != len(self._real) or x.shape[1] < 2:
            raise ValueError(
                f"expected {len(self._real)} classes of >= 2 samples, got {x.shape[:2]}"
            )
        return x.reshape(*x.shape[:2], -1)


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
    own: Float[Array, " g"],
) -> tuple[Float[Array, " g"], Float[Array, "g r"]]:
    def one(group: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        samples, y, keep, within_real = group
        means = jnp.mean(discrepancy.power(discrepancy.squared_distances(samples, y), 1.0), axis=0)
        cross = jnp.sum(jnp.where(keep, means, 0.0)) / jnp.sum(keep)
        within = discrepancy.power(discrepancy.squared_distances(samples, samples), 1.0)
        within = discrepancy.off_diagonal_mean(within)
        return cross - 0.5 * (within + within_real), means

    return jax.lax.map(one, (x, real, mask, own))
