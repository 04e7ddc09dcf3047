"""Encoders: how a network takes in a condition, and what structure the condition has.

An encoder is a frozen dataclass that describes one kind of condition: labels (b,), vectors (b, e),
tokens with a mask, several of these by name, or nothing. ``check(c)`` refuses a condition of
another kind, and ``embed(c, width)`` makes one vector of every condition, by layers that belong to
the Flax module in whose compact method it is called.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.types import Condition

TOKENS, MASK = "tokens", "mask"  # keys of a condition of tokens


@runtime_checkable
class Encoder(Protocol):
    """A map from conditions to vectors; instances are hashable and hold no arrays."""

    def check(self, c: Condition) -> None:
        """Raise ValueError, "expected ..., got ...", for a condition that it cannot embed."""

    def embed(self, c: Condition, width: int) -> Float[Array, "b w"] | float:
        """Vectors (b, width), or 0 where the condition is ignored; in a compact method only."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """Integer labels (b,) in [0, num_classes), each with a vector of its own.

    The vector of a label outside is NaN where labels are traced; `check` refuses them elsewhere.
    """

    num_classes: int

    def __post_init__(self) -> None:
        _check_positive("num_classes", self.num_classes)

    def check(self, c: Condition) -> None:
        """Raise ValueError unless c are labels (b,) below num_classes."""
        check_labels(c, self.num_classes)

    def embed(self, c: Condition, width: int) -> Float[Array, "b w"]:
        """Rows of a table (num_classes, width), ``Embed_<i>`` of the calling module."""
        labels = jnp.asarray(c, jnp.int32)
        vectors = nn.Embed(self.num_classes, width)(labels)
        inside = (labels >= 0) & (labels < self.num_classes)
        return jnp.where(inside[:, None], vectors, jnp.nan)


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Vectors (b, size) of floats, such as an embedding of text, taken through a dense layer."""

    size: int

    def __post_init__(self) -> None:
        _check_positive("size", self.size)

    def check(self, c: Condition) -> None:
        """Raise ValueError unless c are floats (b, size)."""
        expected = f"vectors (b, {self.size}) of floats"
        if not _is_floats(c, ndim=2) or c.shape[-1] != self.size:
            raise ValueError(f"expected {expected}, got {shown(c)}")

    def embed(self, c: Condition, width: int) -> Float[Array, "b w"]:
        """A dense layer of the vectors, ``Dense_<i>`` of the calling module."""
        return nn.Dense(width)(at_least_float32(c))


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Tokens with a mask: ``{"tokens": floats (b, n, size), "mask": booleans (b, n)}``.

    A dense layer of the mean of the tokens that the mask marks as True; the mean of none is 0.
    """

    size: int

    def __post_init__(self) -> None:
        _check_positive("size", self.size)

    def check(self, c: Condition) -> None:
        """Raise ValueError unless c is a dict of tokens and mask with fitting shapes."""
        expected = f"a dict of tokens (b, n, {self.size}) of floats and mask (b, n) of booleans"
        if not _is_tokens(c) or c[TOKENS].shape[-1] != self.size:
            raise ValueError(f"expected {expected}, got {shown(c)}")

    def embed(self, c: Condition, width: int) -> Float[Array, "b w"]:
        """A dense layer of the masked mean, ``Dense_<i>`` of the calling module."""
        tokens = at_least_float32(c[TOKENS])
        mask = jnp.asarray(c[MASK])[..., None].astype(tokens.dtype)
        marked = jnp.where(mask > 0.0, tokens, 0.0)  # what is masked may be anything, also NaN
        mean = jnp.sum(marked, axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1.0)
        return nn.Dense(width)(mean)


@dataclasses.dataclass(frozen=True)
class Several:
    """Conditions in a dict, each with its encoder; their vectors are added.

    encoders: by the keys of the condition, a mapping or pairs; kept as pairs in order of the names.
    """

    encoders: Any

    def __post_init__(self) -> None:
        pairs = self.encoders.items() if isinstance(self.encoders, Mapping) else self.encoders
        ordered = tuple(sorted(pairs, key=lambda pair: pair[0]))
        if not ordered or len(dict(ordered)) != len(ordered):
            raise ValueError(f"expected encoders by different names, got {self.encoders}")
        object.__setattr__(self, "encoders", ordered)

    def check(self, c: Condition) -> None:
        """Raise ValueError unless c is a dict of exactly these names, each as its encoder asks."""
        names = [name for name, _ in self.encoders]
        if not isinstance(c, Mapping) or set(c) != set(names):
            raise ValueError(f"expected a dict of {names}, got {shown(c)}")
        for name, encoder in self.encoders:
            try:
                encoder.check(c[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    def embed(self, c: Condition, width: int) -> Float[Array, "b w"] | float:
        """The sum of all vectors; layers are numbered in order of the names."""
        return sum((encoder.embed(c[name], width) for name, encoder in self.encoders), 0.0)


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Conditions of any kind, which are ignored."""

    def check(self, c: Condition) -> None:
        """Everything is accepted."""

    def embed(self, c: Condition, width: int) -> float:
        """Zero, for all conditions."""
        return 0.0


def for_condition(c: Condition) -> Encoder:
    """The encoder for conditions like these examples, as many labels as their largest asks for.

    Labels (n,) are given `Labels`, floats (n, e) `Vectors`, a dict of tokens and mask `Tokens`,
    another dict `Several`, and a tree without arrays `Nothing`.

    Raises:
      ValueError: for conditions of any other kind.

    >>> import numpy as np
    >>> from lgd import encoders
    >>> encoders.for_condition(np.array([0, 2, 1]))
    Labels(num_classes=3)
    """
    if not jax.tree.leaves(c):
        return Nothing()
    if _is_tokens(c):
        return Tokens(c[TOKENS].shape[-1])
    if isinstance(c, Mapping):
        return Several({name: for_condition(one) for name, one in c.items()})
    if _is_floats(c, ndim=2):
        return Vectors(c.shape[-1])
    if is_labels(c) and len(c):
        check_labels(c, None)
        return Labels(int(np.asarray(c).max()) + 1)
    raise ValueError(
        "expected conditions that are integer labels (n,), floats (n, e), a dict of tokens (n, k, "
        f"e) and mask (n, k), or a dict of these, got {shown(c)}"
    )


def check_labels(c: Condition, count: int | None) -> None:
    """Raise ValueError unless c are integer labels (b,) in [0, count), where values are known.

    count: None: any labels from 0.
    """
    if not is_labels(c):
        raise ValueError(f"expected integer labels (b,), got {shown(c)}")
    if isinstance(c, jax.core.Tracer) or not getattr(c, "is_fully_addressable", True) or not len(c):
        return
    values = np.asarray(c)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or (count is not None and highest >= count):
        within = "labels >= 0" if count is None else f"labels in [0, {count})"
        raise ValueError(f"expected {within}, got {lowest if lowest < 0 else highest}")


def is_labels(c: Condition) -> bool:
    """Whether the condition is one array of integers (b,)."""
    return _is_array(c, ndim=1) and bool(jnp.issubdtype(c.dtype, jnp.integer))


def is_vectors(c: Condition) -> bool:
    """Whether the condition is one array of floats (b, e)."""
    return _is_floats(c, ndim=2)


def at_least_float32(x: Any) -> Float[Array, "*s"]:
    """The same numbers, as float32 or wider, so that they meet float32 parameters."""
    return jnp.asarray(x, x.dtype if x.dtype == jnp.float64 else jnp.float32)


def shown(c: Condition) -> str:
    """Structure, dtypes and shapes of a condition, for messages."""

    def one(leaf: Any) -> str:
        if not isinstance(leaf, np.ndarray | jax.Array):
            return repr(leaf)
        return f"{leaf.dtype} {leaf.shape}"

    return str(jax.tree.map(one, c)).replace("'", "")


def _is_tokens(c: Condition) -> bool:
    return (
        isinstance(c, Mapping)
        and set(c) == {TOKENS, MASK}
        and _is_floats(c[TOKENS], ndim=3)
        and _is_array(c[MASK], ndim=2)
        and c[MASK].dtype == bool
        and c[MASK].shape == c[TOKENS].shape[:2]
    )


def _is_floats(c: Condition, *, ndim: int) -> bool:
    return _is_array(c, ndim=ndim) and bool(jnp.issubdtype(c.dtype, jnp.floating))


def _is_array(c: Condition, *, ndim: int) -> bool:
    return isinstance(c, np.ndarray | jax.Array) and c.ndim == ndim


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"expected {name} >= 1, got {value}")
