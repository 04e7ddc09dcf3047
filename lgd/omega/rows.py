"""Which row of a table a condition reads."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd import conditions, encoders
from lgd.machinery.arguments import whole
from lgd.types import Condition, Params, PRNGKey

CENTROIDS = "centroids"  # of `Nearest`, among the parameters of a table
_LLOYD_STEPS = 10


@runtime_checkable
class Rows(Protocol):
    """The map from conditions to rows of a table; instances are hashable and hold no arrays."""

    @property
    def count(self) -> int:
        """Number of rows."""

    def __call__(self, params: Params, c: Condition, t: Float[Array, " b"]) -> Int[Array, " b"]:
        """The row of every query, and ``count`` for a condition that has none.

        Raises ValueError for conditions of another kind.
        """

    def init(self, key: PRNGKey, c: Condition) -> dict[str, Array]:
        """Parameters of the map itself, from example conditions."""

    def examples(self, params: Params, c: Condition) -> Condition:
        """One condition for every row, in order, where c are the conditions at hand."""


@dataclasses.dataclass(frozen=True)
class One:
    """One row for all conditions, of any kind."""

    @property
    def count(self) -> int:
        """Number of rows."""
        return 1

    def __call__(self, params: Params, c: Condition, t: Float[Array, " b"]) -> Int[Array, " b"]:
        """0 for every query."""
        return jnp.zeros(t.shape, jnp.int32)

    def init(self, key: PRNGKey, c: Condition) -> dict[str, Array]:
        """No parameters."""
        return {}

    def examples(self, params: Params, c: Condition) -> Condition:
        """The first condition."""
        return conditions.take(c, slice(1))


@dataclasses.dataclass(frozen=True)
class ByLabel:
    """One row for every integer label in [0, num_labels)."""

    num_labels: int

    def __post_init__(self) -> None:
        if whole("num_labels", self.num_labels) < 1:
            raise ValueError(f"expected num_labels >= 1, got {self.num_labels}")

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.num_labels

    def __call__(self, params: Params, c: Condition, t: Float[Array, " b"]) -> Int[Array, " b"]:
        """The label itself. Raises ValueError for labels outside whose values are known."""
        encoders.check_labels(c, self.num_labels)
        labels = jnp.asarray(c, jnp.int32)
        return jnp.where((labels >= 0) & (labels < self.num_labels), labels, self.num_labels)

    def init(self, key: PRNGKey, c: Condition) -> dict[str, Array]:
        """No parameters."""
        encoders.check_labels(c, self.num_labels)
        return {}

    def examples(self, params: Params, c: Condition) -> Condition:
        """All labels, in order."""
        return jnp.arange(self.num_labels, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class Nearest:
    """One row for every centroid of vector conditions (b, e); the nearest centroid is read.

    Centroids lie in the parameters, ``"centroids"`` (num_rows, e), and get no gradient. They are
    the example conditions of `init` where these are num_rows, and k-means of more examples.
    """

    num_rows: int

    def __post_init__(self) -> None:
        if whole("num_rows", self.num_rows) < 1:
            raise ValueError(f"expected num_rows >= 1, got {self.num_rows}")

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.num_rows

    def __call__(self, params: Params, c: Condition, t: Float[Array, " b"]) -> Int[Array, " b"]:
        """The row of the nearest centroid; none for a vector that is not finite."""
        _check_vectors(c)
        centroids = jax.lax.stop_gradient(encoders.at_least_float32(params[CENTROIDS]))
        row, distance = _nearest(encoders.at_least_float32(c), centroids)
        return jnp.where(jnp.isfinite(distance), row, self.num_rows)

    def init(self, key: PRNGKey, c: Condition) -> dict[str, Array]:
        """Centroids of example conditions; fewer than num_rows are repeated."""
        _check_vectors(c)
        vectors = encoders.at_least_float32(c)
        if len(c) <= self.num_rows:
            return {CENTROIDS: vectors[jnp.arange(self.num_rows) % len(c)]}
        first = jax.random.choice(key, vectors, (self.num_rows,), replace=False)
        centroids = jax.lax.fori_loop(0, _LLOYD_STEPS, lambda _, k: _lloyd_step(vectors, k), first)
        return {CENTROIDS: centroids}

    def examples(self, params: Params, c: Condition) -> Condition:
        """The centroids."""
        return params[CENTROIDS]


def rows_for(c: Condition) -> Rows:
    """A row for every label where the conditions are labels, else one row for all.

    >>> import numpy as np
    >>> from lgd import omega
    >>> omega.rows_for(np.array([0, 2, 1]))
    ByLabel(num_labels=3)
    """
    if not encoders.is_labels(c):
        return One()
    labels: encoders.Labels = encoders.for_condition(c)  # type: ignore[assignment]
    return ByLabel(labels.num_classes)


def _nearest(
    vectors: Float[Array, "b e"], centroids: Float[Array, "k e"]
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """The nearest centroid of every vector, and its squared distance."""
    squares = jnp.sum(jnp.square(vectors[:, None] - centroids[None]), axis=-1)
    return jnp.argmin(squares, axis=1).astype(jnp.int32), jnp.min(squares, axis=1)


def _lloyd_step(
    vectors: Float[Array, "n e"], centroids: Float[Array, "k e"]
) -> Float[Array, "k e"]:
    """Means of the vectors nearest to every centroid (Lloyd, 1982); an empty one stays."""
    row, _ = _nearest(vectors, centroids)
    members = jax.nn.one_hot(row, len(centroids), dtype=vectors.dtype)
    counts = members.sum(axis=0)[:, None]
    return jnp.where(counts > 0.0, members.T @ vectors / jnp.maximum(counts, 1.0), centroids)


def _check_vectors(c: Condition) -> None:
    if not encoders.is_vectors(c):
        raise ValueError(f"expected vectors (b, e) of floats, got {encoders.shown(c)}")
