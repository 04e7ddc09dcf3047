"""What a set of statistics holds, and what it says of the denoiser and the data behind it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd import guidance
from lgd.objectives import TimeLaw, UniformTimes
from lgd.types import Condition, Schedule

Members = Literal["copies", "condition", "mixed"]
CollectionLaw = TimeLaw | UniformTimes
LAWS: dict[str, type[CollectionLaw]] = {"time_law": TimeLaw, "uniform_times": UniformTimes}


class StatisticsError(ValueError):
    """Statistics that cannot be made, read or used; the message names the file or the field."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape of every example.

    members: the m particles of an example are noisings of one x0 ("copies"), of different x0 of one
    condition ("condition"), or of different x0 and conditions ("mixed"). dim: numbers of one x0.
    directions: names of what omega multiplies, the first of them ``cond - uncond``.
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
        """Rows of the Gram matrix for each particle: [centred], r, one Delta a direction, eps."""
        return 2 + len(self.directions) + (self.members != "copies")

    @property
    def num_rows(self) -> int:
        """Size of the Gram matrix."""
        return self.blocks * self.num_particles

    @property
    def packed(self) -> int:
        """Numbers of its lower triangle, which is what is stored."""
        return self.num_rows * (self.num_rows + 1) // 2

    @property
    def num_features(self) -> int:
        """Of every particle."""
        return len(guidance.PAIR_FEATURES) if self.has_features else 0


class Statistics(NamedTuple):
    """Examples in memory, as arrays of the host; n of them."""

    layout: Layout
    law: CollectionLaw  # of t
    t: Float[np.ndarray, " n"]
    c: Condition  # leaves (n, ...), or (n, m, ...) for mixed members
    gram: Float[np.ndarray, "n p"]  # lower triangles, row by row
    source: Int[np.ndarray, " n"]  # examples with the same x0 have the same number
    features: Float[np.ndarray, "n m f"]  # f = 0 where none were collected
    fingerprint: dict[str, str]  # of the denoiser, the data and the settings

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.t)

    def take(self, index: Int[np.ndarray, " k"] | slice) -> "Statistics":
        """Some of the examples."""
        return self._replace(
            t=self.t[index],
            c=jax.tree.map(lambda leaf: leaf[index], self.c),
            gram=self.gram[index],
            source=self.source[index],
            features=self.features[index],
        )


def pack(matrix: Float[Array, "g q q"] | Float[np.ndarray, "g q q"]) -> Any:
    """The lower triangle of every matrix (g, q (q + 1) / 2), row by row."""
    rows, columns = np.tril_indices(matrix.shape[-1])
    return matrix[:, rows, columns]


def unpack(packed: Float[Array, "g p"] | Float[np.ndarray, "g p"], size: int) -> Any:
    """Lower triangular matrices (g, size, size) from `pack`; of numpy arrays, numpy arrays."""
    rows, columns = np.tril_indices(size)
    if isinstance(packed, np.ndarray):
        matrix = np.zeros((len(packed), size, size), packed.dtype)
        matrix[:, rows, columns] = packed
        return matrix
    return jnp.zeros((len(packed), size, size), packed.dtype).at[:, rows, columns].set(packed)


def describe(value: Any) -> str:
    """A denoiser, schedule or law in words that do not change from one process to the next."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [
            f"{field.name}={describe(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if field.name not in ("parent", "name")  # of Flax modules
        ]
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {describe(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(describe, value)) + ")"
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
    return repr(value)


def schedule_fits(statistics: Statistics, schedule: Schedule) -> None:
    """Raise StatisticsError unless the statistics were collected with this forward process."""
    collected = statistics.fingerprint["schedule"]
    if describe(schedule) != collected:
        raise StatisticsError(
            f"schedule: expected {collected}, with which the statistics were collected, "
            f"got {describe(schedule)}"
        )
