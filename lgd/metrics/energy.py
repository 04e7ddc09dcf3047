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
        counts = np.bincount(real.labels, minlength=num_classes)
        if len(counts) > num_classes or counts.min() < 2:
            raise ValueError(f"expected >= 2 examples of {num_classes} classes, got {counts}")
        flat = real.x.reshape(len(real.x), -1)
        padded = np.zeros((num_classes, counts.max(), flat.shape[1]), np.float32)
        for label, count in enumerate(counts):
            padded[label, :count] = flat[real.labels == label]
        self._real = jnp.asarray(padded)
        self._mask = jnp.arange(counts.max())[None] < jnp.asarray(counts)[:, None]
        self._own = _within(self._real, self._mask)
        self._labels, order = real.labels, np.argsort(real.labels, kind="stable")
        self._rank = np.empty(len(order), np.int64)  # of every example among those of its class
        self._rank[order] = np.concatenate([np.arange(count) for count in counts])

    def __call__(self, x: Float[Array, "g n *dims"]) -> Float[Array, " g"]:
        """Distance of each class; x holds n >= 2 samples of every class."""
        return _distance(self._checked(x), self._real, self._mask, self._own)

    def mean_distances(self, x: Float[Array, "g n *dims"]) -> Float[np.ndarray, " r"]:
        """``E|x - y_j|`` of every real example y_j to the samples of its class, in their order."""
        return np.asarray(_to_each(self._checked(x), self._real))[self._labels, self._rank]

    def _checked(self, x: Float[Array, "g n *dims"]) -> Float[Array, "g n d"]:
        if len(x) != len(self._real) or x.shape[1] < 2:
            raise ValueError(
                f"expected {len(self._real)} classes of >= 2 samples, got {x.shape[:2]}"
            )
        return x.reshape(*x.shape[:2], -1)


def _mean_distance(
    x: Float[Array, "n d"], y: Float[Array, "r d"], mask: Bool[Array, " r"]
) -> Float[Array, ""]:
    distances = discrepancy.power(discrepancy.squared_distances(x, y), 1.0)
    return jnp.sum(jnp.where(mask[None], distances, 0.0)) / (len(x) * jnp.sum(mask))


@jax.jit
def _to_each(x: Float[Array, "g n d"], real: Float[Array, "g r d"]) -> Float[Array, "g r"]:
    def one(pair: tuple[Array, Array]) -> Array:
        return jnp.mean(discrepancy.power(discrepancy.squared_distances(*pair), 1.0), axis=0)

    return jax.lax.map(one, (x, real))


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
) -> Float[Array, " g"]:
    def one(group: tuple[Array, Array, Array, Array]) -> Array:
        samples, y, keep, within_real = group
        within = discrepancy.power(discrepancy.squared_distances(samples, samples), 1.0)
        within = discrepancy.off_diagonal_mean(within)
        return _mean_distance(samples, y, keep) - 0.5 * (within + within_real)

    return jax.lax.map(one, (x, real, mask, own))
