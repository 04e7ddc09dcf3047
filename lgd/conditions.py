"""Conditions as pytrees, and strata: which law an example belongs to.

A condition is any pytree whose leaves have the batch as their leading axis: integer labels (b,),
vectors (b, e), tokens with a mask, a dict of these. It is stacked, taken, repeated and handed to
models; only a model, an encoder or the rows of a table look inside. A stratum (n,) is the one
integer that the library counts by: for labels it is the label, for text a prompt or a category.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer

from lgd.machinery.words import shown
from lgd.types import Condition


def size(c: Condition) -> int:
    """The number of conditions: the leading axis that all leaves share.

    Raises ValueError for a tree without leaves, or leaves of different lengths.
    """
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(c)}
    if len(lengths) != 1 or lengths == {()}:
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(c)]
        raise ValueError(f"expected conditions with one leading axis, got shapes {shapes}")
    return int(lengths.pop()[0])


def arrays(c: Any) -> Condition:
    """The conditions with arrays for numbers and for lists of numbers.

    Raises ValueError for leaves that are no arrays, such as words, and for integers that JAX would
    cut to another one.
    """

    def array(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray | jax.Array):
            check_integers(leaf)
            return leaf
        try:
            value = np.asarray(leaf)
            converted = jnp.asarray(value)
        except (TypeError, ValueError):  # words, lists of different lengths
            expected = "conditions, arrays with one row an example"
            raise ValueError(f"c: expected {expected}, got {str(leaf)[:80]}") from None
        check_integers(value)
        return converted

    return jax.tree.map(array, c, is_leaf=lambda node: isinstance(node, list))


def check_integers(c: Condition) -> None:
    """Raise ValueError for NumPy's integers that JAX would cut to another one, as 2^32 + 1 to 1."""
    for leaf in jax.tree.leaves(c):
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "iu" and leaf.size:
            dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
            if dtype != leaf.dtype:
                _check_within("c", leaf, dtype)


def take(c: Condition, index: Any) -> Condition:
    """The conditions at an index, of any shape, along the leading axis."""
    return jax.tree.map(lambda leaf: leaf[index], c)


def repeat(c: Condition, times: int) -> Condition:
    """Every condition ``times`` times in a row: leaves (g, ...) become (g times, ...)."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), c)


def reshape(c: Condition, *leading: int) -> Condition:
    """Conditions with the leading axis split into several axes."""
    return jax.tree.map(lambda leaf: leaf.reshape(*leading, *leaf.shape[1:]), c)


def flatten(c: Condition, axes: int = 2) -> Condition:
    """Conditions with the first ``axes`` axes joined into one: (g, n, ...) to (g n, ...)."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]), c)


def checked(c: Any, count: int | None = None) -> Condition:
    """Conditions of examples as numpy arrays: integers int32, floats float32, lists as arrays.

    Args:
      c: a pytree of arrays; a list of numbers is one array.
      count: the number of conditions expected; None: any.

    Raises:
      ValueError: naming the leaf that has another leading axis, values that are not finite or no
        numbers, or integers beyond int32.
    """
    leaves, structure = jax.tree.flatten_with_path(c, is_leaf=lambda node: isinstance(node, list))
    if not leaves:
        raise ValueError(f"expected conditions, arrays with one row an example, got {shown(c)}")
    values = []
    for path, leaf in leaves:
        values.append(_checked_leaf(f"c{jax.tree_util.keystr(path)}", leaf, count))
        count = len(values[0])
    return jax.tree.unflatten(structure, values)


def _checked_leaf(name: str, leaf: Any, count: int | None) -> np.ndarray:
    try:
        value = np.asarray(leaf)
    except ValueError:  # lists of different lengths
        raise ValueError(f"{name}: expected rows of one shape, got {shown(leaf)}") from None
    if value.ndim == 0 or len(value) != (len(value) if count is None else count):
        expected = "rows" if count is None else f"{count} rows"
        raise ValueError(f"{name}: expected {expected}, one an example, got shape {value.shape}")
    if value.dtype == bool:
        return value
    if np.issubdtype(value.dtype, np.integer):
        return _as_int32(name, value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"{name}: expected numbers, got {value.dtype}")
    with np.errstate(over="ignore"):  # to inf, which is refused
        value = value.astype(np.float32)
    if not np.isfinite(value).all():
        raise ValueError(f"{name}: expected finite values, got NaN or inf")
    return value


def _as_int32(name: str, value: np.ndarray) -> Int[np.ndarray, "*s"]:
    _check_within(name, value, np.dtype(np.int32))
    return value.astype(np.int32, copy=False)


def _check_within(name: str, value: np.ndarray, dtype: np.dtype) -> None:
    limits = np.iinfo(dtype)
    outside = value[(value < limits.min) | (value > limits.max)]
    if outside.size:
        raise ValueError(f"{name}: expected integers that {dtype} holds, got {outside[0]}")


def labels_of(c: Condition) -> Integer[Array, " n"] | Integer[np.ndarray, " n"] | None:
    """The labels (n,) where the condition is one array of integers, else None."""
    if not isinstance(c, np.ndarray | jax.Array) or c.ndim != 1:
        return None
    return c if jnp.issubdtype(c.dtype, jnp.integer) else None


def strata_of(c: Condition, stratum: Any = None) -> Int[np.ndarray, " n"] | None:
    """The stratum of every example: as given, the labels where c are labels, else None.

    Args:
      c: conditions, leaves (n, ...), as numpy arrays.
      stratum: integers from 0, (n,); None: the labels, if c are labels.

    Raises:
      ValueError: for strata that are no integers >= 0, one an example.
    """
    given = labels_of(c) if stratum is None else stratum
    return None if given is None else checked_strata(given, size(c))


def checked_strata(stratum: Any, count: int) -> Int[np.ndarray, " n"]:
    """Strata as int32 on the host.

    Raises ValueError unless they are integers >= 0 that int32 holds, of this number.
    """
    value = np.asarray(stratum)
    if value.shape != (count,) or not np.issubdtype(value.dtype, np.integer):
        raise ValueError(f"stratum: expected integers ({count},), got {value.dtype} {value.shape}")
    if value.size and value.min() < 0:
        raise ValueError(f"stratum: expected integers >= 0, got {value.min()}")
    return _as_int32("stratum", value)


def representatives(c: Condition, stratum: Int[np.ndarray, " n"]) -> Condition:
    """The condition of the first example of every stratum, 0 to the largest.

    Raises ValueError for a stratum without an example, or below 0.
    """
    present, first = np.unique(stratum, return_index=True)
    known = set(present.tolist())
    absent = (k for k in range(max(known, default=0) + 1) if k not in known)
    missing = list(itertools.islice(absent, 10))
    if missing:
        hint = "; strata from 1 become strata from 0 by - 1" if missing == [0] else ""
        raise ValueError(f"expected examples of every stratum, got none of {missing}{hint}")
    if present[0] < 0:
        raise ValueError(f"expected strata >= 0, got {present[0]}")
    return take(c, first)
