"""Checks of what users pass: each returns the value, or raises ValueError that names the argument.

Messages read ``name: expected ..., got ...`` and are short, whatever was passed.
"""

import difflib
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from lgd.machinery.words import described

Real: TypeAlias = float | int


def wrong(name: str, expected: str, got: Any) -> ValueError:
    """The error of an argument: what was expected, and a short description of what came."""
    return ValueError(f"{name}: expected {expected}, got {described(got)}")


def whole(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """A whole number within [low, high]; True, 2.0 and "2" are none."""
    expected = f"a whole number{_range(low, high)}"
    try:
        number = operator.index(value)
    except TypeError:
        raise wrong(name, expected, value) from None
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"
    if is_bool or not _is_within(number, low, high):
        raise wrong(name, expected, value)
    return number


def positive_int(name: str, value: Any) -> int:
    """A whole number of at least 1, such as a count."""
    return whole(name, value, low=1)


def finite(name: str, value: Any, *, low: Real | None = None, high: Real | None = None) -> Any:
    """A finite number within [low, high] as a float; a traced scalar as it is."""
    if isinstance(value, jax.core.Tracer):
        return value
    expected = f"a finite number{_range(low, high)}"
    is_number = isinstance(value, int | float) or getattr(value, "shape", None) == ()
    try:
        number = float(value) if is_number and not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or not _is_within(number, low, high):
        raise wrong(name, expected, value)
    return number


def finite_rows(name: str, x: Any, *, axes: int = 1) -> Any:
    """An array of finite numbers; the error says how many rows hold others.

    Args:
      name: of the argument.
      x: numbers (n, *dims), not traced.
      axes: number of leading axes that count rows, 2 for numbers (g, n, *dims).
    """
    if bool((jnp if isinstance(x, jax.Array) else np).isfinite(x).all()):
        return x
    values = np.asarray(x).reshape(math.prod(x.shape[:axes]), -1)
    kinds = {"NaN": np.isnan(values), "inf": np.isinf(values)}
    got = " and ".join(kind for kind, where in kinds.items() if where.any())
    bad = int((kinds["NaN"] | kinds["inf"]).any(axis=1).sum())
    raise ValueError(f"{name}: expected finite numbers, got {got} in {bad} of {len(values)} rows")


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise wrong(name, "True or False", value)
    return value


def one_of(name: str, value: Any, options: Iterable[str]) -> str:
    """One of some names; a name that is close to one of them is guessed at in the error."""
    options = list(options)
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(value, options, n=1) if isinstance(value, str) else []
    guess = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{name}: expected one of {', '.join(map(repr, options))}, got {described(value)}{guess}"
    )


def prng_key(name: str, value: Any) -> Any:
    """One key of JAX, of either kind."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    is_typed = dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
    if (is_typed and shape == ()) or (dtype == "uint32" and shape in ((2,), (4,))):
        return value
    raise wrong(name, "one key, such as jax.random.key(0)", value)


def instance(name: str, value: Any, cls: type, example: str) -> Any:
    """An instance of a class; example: how to make one."""
    if not isinstance(value, cls):
        raise wrong(name, f"a {cls.__name__}, such as {example}", value)
    return value


def named(name: str, value: Any, of: str) -> Mapping[str, Any]:
    """A mapping from names, which are strings."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise wrong(name, f"a dict of {of} by name", value)
    return value


def having(name: str, value: Any, methods: Iterable[str], what: str) -> Any:
    """An instance with some methods or attributes, for example of a protocol.

    Args:
      name: of the argument.
      value: what was passed.
      methods: names that the value must have.
      what: it should be, with an example of how to make one.
    """
    missing = [method for method in methods if not hasattr(value, method)]
    if isinstance(value, type):
        got = f"the class {value.__name__} and no instance of it; call it: {value.__name__}(...)"
    elif missing:
        got = f"{described(value)}, which has no {', '.join(missing)}"
    else:
        return value
    raise ValueError(f"{name}: expected {what}, got {got}")


def _is_within(value: Real, low: Real | None, high: Real | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _range(low: Real | None, high: Real | None) -> str:
    if low is None and high is None:
        return ""
    if low is None or high is None:
        return f" <= {high}" if low is None else f" >= {low}"
    return f" from {low} to {high}"
