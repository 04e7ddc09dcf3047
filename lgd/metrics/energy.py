"""Energy distance of generated samples to real examples, stratum by stratum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lgd import discrepancy
from lgd.data.dataset import Split
from lgd.data.ranges import checked_examples
from lgd.metrics.precision_recall import squared_distances

ROWS = 4096  # a stratum of more examples is compared in blocks; at most ROWS^2 distances are held
_BLOCK = 2048  # rows of a block on the host: 32 MiB a copy


class _Bucket(NamedTuple):
    """Strata of like size: their numbers, padded examples, what is none of the padding, means."""

    strata: np.ndarray  # increasing (k,)
    real: Float[Array, "k r d"]
    mask: Bool[Array, "k r"]
    within: Float[Array, " k"]


class ClassEnergyDistance:
    """Energy distance of samples to real examples, `discrepancy.energy_distance` by stratum.

    beta = lam = 1. It is built once for a real split. Strata are padded and masked together with
    those of like size, within a factor of 2, so that memory grows with the examples and not with
    the number of strata times the largest, and time with the pairs within strata. Without strata
    all examples are one stratum.

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
        flat, order = real.x.reshape(len(real.x), -1), np.argsort(stratum, kind="stable")
        self._scale = float(discrepancy.magnitude(jnp.asarray(flat)))
        flat = flat if self._scale == 1.0 else flat / np.float32(self._scale)
        members = np.split(order, np.cumsum(counts)[:-1])
        self._size, self._buckets = flat.shape[1], []
        bits = np.ceil(np.log2(counts)).astype(int)
        for each in (np.flatnonzero(bits == size) for size in np.unique(bits)):
            self._buckets.append(_bucket(each, [flat[members[k]] for k in each]))
        self._stratum = stratum
        self._rank = np.empty(len(order), np.int64)  # of every example in its stratum
        self._rank[order] = np.concatenate([np.arange(count) for count in counts])
        self._num_strata = num_classes

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
            that are no finite floats or pixels of 0 to 255, or at distances that are not finite.
        """
        x = self._checked(x)
        x = x if self._scale == 1.0 else x / self._scale
        distances = np.empty(len(x), np.float32)
        of_real = np.empty(len(self._stratum), np.float32)
        for bucket in self._buckets:
            samples = x if len(bucket.strata) == len(x) else x[bucket.strata]
            values, means = _distance(samples, bucket.real, bucket.mask, bucket.within)
            distances[bucket.strata] = values
            here = np.searchsorted(bucket.strata, self._stratum)
            here = np.minimum(here, len(bucket.strata) - 1)
            inside = bucket.strata[here] == self._stratum
            of_real[inside] = np.asarray(means)[here[inside], self._rank[inside]]
        if not np.isfinite(distances).all():
            raise ValueError("expected samples at finite distances, got others")
        return self._scale * jnp.asarray(distances), self._scale * of_real

    def _checked(self, x: Float[Array, "g n *dims"]) -> Float[Array, "g n d"]:
        if len(x) != self._num_strata or x.shape[1] < 2:
            expected = f"{self._num_strata} strata of >= 2 samples"
            raise ValueError(f"expected {expected}, got {x.shape[:2]}")
        flat = x.reshape(*x.shape[:2], -1)
        if flat.shape[-1] != self._size:
            raise ValueError(f"expected samples of {self._size} numbers, got {flat.shape[-1]}")
        checked_examples("samples", x.reshape(-1, *x.shape[2:]))
        return flat


def _bucket(strata: np.ndarray, examples: list[np.ndarray]) -> _Bucket:
    """Strata with their examples, padded to the largest of these strata."""
    counts = np.asarray([len(each) for each in examples])
    padded = np.zeros((len(strata), counts.max(), examples[0].shape[1]), np.float32)
    for row, each in zip(padded, examples, strict=True):
        row[: len(each)] = each
    real, mask = jnp.asarray(padded), jnp.arange(counts.max())[None] < jnp.asarray(counts)[:, None]
    if counts.max() <= ROWS:
        return _Bucket(strata, real, mask, _within(real, mask))
    within = np.asarray([_mean_within(each) for each in examples], np.float32)
    return _Bucket(strata, real, mask, jnp.asarray(within))


@jax.jit
def _within(real: Float[Array, "g r d"], mask: Bool[Array, "g r"]) -> Float[Array, " g"]:
    """The mean distance of different examples of every stratum."""

    def one(y: Array, keep: Array) -> Array:
        count = jnp.sum(keep).astype(jnp.float32)
        distances = discrepancy.power(discrepancy.squared_distances(y, y), 1.0)
        total = jnp.sum(jnp.where(keep[:, None] & keep[None], distances, 0.0))
        return total / (count * (count - 1.0))

    return jax.lax.map(lambda pair: one(*pair), (real, mask))


def _mean_within(x: Float[np.ndarray, "n d"]) -> float:
    """The mean distance of different examples, in float64 on the host, where products are fast."""
    centred = x - x.mean(axis=0, dtype=np.float64)
    blocks, total = [centred[i : i + _BLOCK] for i in range(0, len(x), _BLOCK)], 0.0
    for i, rows in enumerate(blocks):
        for others in blocks[i:]:
            squares = squared_distances(rows, others)
            if others is rows:
                np.fill_diagonal(squares, 0.0)
            total += (1.0 if others is rows else 2.0) * float(np.sqrt(squares).sum())
    return total / (len(x) * (len(x) - 1))


@jax.jit
def _distance(
    x: Float[Array, "g n d"],
    real: Float[Array, "g r d"],
    mask: Bool[Array, "g r"],
    within_reals: Float[Array, " g"],
) -> tuple[Float[Array, " g"], Float[Array, "g r"]]:
    def one(group: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        samples, y, keep, within_real = group
        means = _means(samples, y)
        cross = jnp.sum(jnp.where(keep, means, 0.0)) / jnp.sum(keep)
        if len(samples) <= ROWS:
            within = discrepancy.power(discrepancy.squared_distances(samples, samples), 1.0)
            within = discrepancy.off_diagonal_mean(within)
        else:  # the distance of a sample to itself is 0
            within = jnp.sum(_means(samples, samples)) / (len(samples) - 1)
        return cross - 0.5 * (within + within_real), means

    return jax.lax.map(one, (x, real, mask, within_reals))


def _means(x: Float[Array, "n d"], y: Float[Array, "r d"]) -> Float[Array, " r"]:
    """``E|x - y_j|`` of every y_j, a part of them at a time."""

    def means(y: Array) -> Array:
        return jnp.mean(discrepancy.power(discrepancy.squared_distances(x, y), 1.0), axis=0)

    size = max(1, ROWS * ROWS // len(x))
    if len(y) <= size:
        return means(y)
    parts = jnp.pad(y, ((0, -len(y) % size), (0, 0))).reshape(-1, size, y.shape[1])
    return jax.lax.map(means, parts).reshape(-1)[: len(y)]
