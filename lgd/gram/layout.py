"""The layout of statistics: what every example holds, in memory and as packed triangles."""

import dataclasses
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd import conditions, guidance
from lgd.machinery.digests import describe
from lgd.objectives import Members, TimeLaw, UniformTimes
from lgd.types import Condition, Schedule

CollectionLaw = TimeLaw | UniformTimes
LAWS: dict[str, type[CollectionLaw]] = {"time_law": TimeLaw, "uniform_times": UniformTimes}


class StatisticsError(ValueError):
    """Statistics that cannot be collected, read or used; the message names the file or field."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Particles:
    """The particles of one example of a collection, and what is kept of them.

    Args:
      members: what they are, see `Layout`.
      num_particles: how many, m.
      law: of their time t; `UniformTimes` serves any law of (s, t) by weights, a `TimeLaw` serves
        itself best.
      features: whether `guidance.PAIR_FEATURES` of every particle are kept, 16 bytes each.
    """

    members: Members = "copies"
    num_particles: int = 4
    law: CollectionLaw = UniformTimes()
    features: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape of every example of statistics.

    Args:
      members: the particles of an example are noisings of one x0 ("copies"), of different x0 of one
        condition ("condition"), or of different x0 with a condition each ("mixed").
      num_particles: particles of an example, m.
      dim: numbers of one x0.
      directions: names of what omega multiplies, the first of them "uncond" for ``cond - uncond``.
      has_features: whether the features of every particle's predictions are kept.
    """

    members: Members = "copies"
    num_particles: int = 4
    dim: int
    directions: tuple[str, ...] = ("uncond",)
    has_features: bool = False

    def __post_init__(self) -> None:
        if self.members not in get_args(Members):
            raise StatisticsError(
                f"members: expected one of {get_args(Members)}, got {self.members!r}"
            )
        if self.num_particles < 1 or self.dim < 1:
            raise StatisticsError(f"expected num_particles, dim >= 1, got {self}")
        if self.directions[:1] != ("uncond",) or len(set(self.directions)) < len(self.directions):
            raise StatisticsError(
                f"directions: expected different names after 'uncond', got {self.directions}"
            )

    @property
    def blocks(self) -> int:
        """Rows of the Gram matrix for each particle: [centred], r, a Delta a direction, eps."""
        return 2 + len(self.directions) + (self.members != "copies")

    @property
    def num_rows(self) -> int:
        """Number of rows of the Gram matrix."""
        return self.blocks * self.num_particles

    @property
    def packed(self) -> int:
        """Numbers in the lower triangle of the Gram matrix, which is what is stored."""
        return self.num_rows * (self.num_rows + 1) // 2

    @property
    def num_features(self) -> int:
        """Number of features of every particle; 0 if there are none."""
        return len(guidance.PAIR_FEATURES) if self.has_features else 0


class Statistics(NamedTuple):
    """n examples in memory, as arrays of the host."""

    layout: Layout
    law: CollectionLaw  # of t
    t: Float[np.ndarray, " n"]
    c: Condition  # leaves (n, ...), or (n, m, ...) for "mixed" members
    gram: Float[np.ndarray, "n p"]  # lower triangles, row by row
    source: Int[np.ndarray, " n"]  # examples with the same x0 have the same number
    features: Float[np.ndarray, "n m f"]  # f = 0 where none were collected
    fingerprint: dict[str, str]  # of the denoiser, the data and the settings

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.t)

    def take(self, index: Int[np.ndarray, " k"] | slice) -> "Statistics":
        """The examples at an index."""
        return self._replace(
            t=self.t[index],
            c=conditions.take(self.c, index),
            gram=self.gram[index],
            source=self.source[index],
            features=self.features[index],
        )


def pack(matrix: Float[Array, "g q q"] | Float[np.ndarray, "g q q"]) -> Any:
    """The lower triangles of matrices, (g, q (q + 1) / 2), row by row."""
    rows, columns = np.tril_indices(matrix.shape[-1])
    return matrix[:, rows, columns]


def unpack(packed: Float[Array, "g p"] | Float[np.ndarray, "g p"], size: int) -> Any:
    """Lower triangular matrices (g, size, size) from `pack`; numpy arrays of numpy arrays."""
    rows, columns = np.tril_indices(size)
    if isinstance(packed, np.ndarray):
        matrix = np.zeros((len(packed), size, size), packed.dtype)
        matrix[:, rows, columns] = packed
        return matrix
    return jnp.zeros((len(packed), size, size), packed.dtype).at[:, rows, columns].set(packed)


def schedule_fits(statistics: Statistics, schedule: Schedule) -> None:
    """Raise StatisticsError unless the statistics were collected with this forward process."""
    collected = statistics.fingerprint["schedule"]
    if describe(schedule) != collected:
        raise StatisticsError(
            f"schedule: expected {collected}, with which the statistics were collected, "
            f"got {describe(schedule)}"
        )
