"""Two halves of real examples, and samples under the conditions of one of them."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

from lgd import conditions
from lgd.data.dataset import Split
from lgd.evaluation.generator import Generator
from lgd.evaluation.measures import stratum_of
from lgd.machinery import parallel

LEAST = 4  # examples of a stratum: two in either half


class Draws:
    """Draws samples by stratum, under the conditions of real examples: x (g, n, *dims).

    Where a stratum has fewer examples than samples are wanted, their conditions are taken in turn.
    Without strata all examples are one.
    """

    def __init__(self, generator: Generator, real: Split) -> None:
        self._generator, self.real = generator, real
        stratum = stratum_of(real)
        self._members = [np.flatnonzero(stratum == k) for k in range(stratum.max() + 1)]
        self._generators: dict[int, Generator] = {}

    @property
    def num_strata(self) -> int:
        """Number of strata, g."""
        return len(self._members)

    def __call__(self, guidance: Any, per_stratum: int, *, seed: int) -> Float[Array, "g n *dims"]:
        """Samples; the same noise for all guidance."""
        generator = self.generator(per_stratum)
        x = generator(guidance, 1, seed=seed)
        x = x.reshape(self.num_strata, per_stratum, *x.shape[2:])
        mesh = generator.mesh
        return x if mesh is None else parallel.spread_rows(x, parallel.local_mesh(mesh), 1)

    def index(self, per_stratum: int) -> Int[np.ndarray, "g n"]:
        """The example whose condition each sample has."""
        return np.stack([np.resize(members, per_stratum) for members in self._members])

    def generator(self, per_stratum: int) -> Generator:
        """Draws one sample for each of so many conditions of every stratum."""
        if per_stratum not in self._generators:
            c = conditions.take(self.real.c, self.index(per_stratum).ravel())
            self._generators[per_stratum] = dataclasses.replace(self._generator, conditions=c)
        return self._generators[per_stratum]


def halves(real: Split, *, seed: int, most: int) -> tuple[Split, Split]:
    """Two halves of the examples, of every stratum as many in either.

    Args:
      real: the examples.
      seed: of the split.
      most: most examples of a half, over all strata; two of every stratum are kept.

    Raises:
      ValueError: for a stratum of fewer than `LEAST` examples.
    """
    stratum = stratum_of(real)
    counts = np.bincount(stratum)
    if counts.min() < LEAST:
        k = int(counts.argmin())
        raise ValueError(f"expected >= {LEAST} examples of every stratum, got {counts[k]} of {k}")
    rng, per_stratum = np.random.default_rng(seed), max(2, most // len(counts))
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for k, count in enumerate(counts):
        members = rng.permutation(np.flatnonzero(stratum == k))
        size = min(count // 2, per_stratum)
        parts[0].append(members[:size])
        parts[1].append(members[size : size + min(count - count // 2, per_stratum)])
    first, second = (np.sort(np.concatenate(part)) for part in parts)
    return taken(real, first), taken(real, second)


def taken(real: Split, index: Int[np.ndarray, " n"]) -> Split:
    """The examples of an index."""
    stratum = None if real.stratum is None else real.stratum[index]
    return Split(real.x[index], conditions.take(real.c, index), stratum)
