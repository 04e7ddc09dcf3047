"""Bring your own model: any function of (params, x_t, t, c) as a denoiser."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.diffusion import KINDS, Kind, checked_schedule, latest_time, to_x0
from lgd.machinery import arguments
from lgd.machinery.words import described
from lgd.types import Condition, Params, Schedule


@dataclasses.dataclass(frozen=True)
class FunctionDenoiser:
    """A denoiser around a function, see `from_function`."""

    function: Callable[..., Array]
    schedule: Schedule
    kind: Kind
    null_condition: Callable[[Condition], Condition]

    @property
    def t_max(self) -> float:
        """The latest time at which x0 follows from the output, see `diffusion.latest_time`."""
        return latest_time(self.schedule, self.kind)

    def prediction(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> Float[Array, "b *dims"]:
        """The prediction of ``kind``. Raises ValueError if it has not the shape of x_t."""
        return _like(self.function(params, x_t, t, c), x_t)

    def apply(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> Float[Array, "b *dims"]:
        """``x0_hat``, shape of x_t. Raises ValueError if the function returns another shape."""
        return self._to_x0(self.function(params, x_t, t, c), x_t, t)

    def null(self, c: Condition) -> Condition:
        """The unconditional input."""
        return self.null_condition(c)

    def _to_x0(self, prediction: Array, x_t: Array, t: Float[Array, " b"]) -> Array:
        return to_x0(_like(prediction, x_t), x_t, t=t, schedule=self.schedule, kind=self.kind)


def _like(prediction: Any, x_t: Array) -> Array:
    """The output of a function as an array of the shape and dtype of x_t."""
    if not hasattr(prediction, "dtype"):
        raise ValueError(f"expected a prediction, an array, got {described(prediction)}")
    if prediction.shape != x_t.shape:
        raise ValueError(f"expected a prediction of shape {x_t.shape}, got {prediction.shape}")
    if not jnp.issubdtype(prediction.dtype, jnp.floating):
        raise ValueError(f"expected a prediction of floats, got {prediction.dtype}")
    return prediction.astype(x_t.dtype)


@dataclasses.dataclass(frozen=True)
class PairDenoiser(FunctionDenoiser):
    """A denoiser around a function, whose two halves another function makes by itself."""

    pair_function: Callable[..., tuple[Array, Array]]

    def pair(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> tuple[Float[Array, "b *dims"], Float[Array, "b *dims"]]:
        """The conditional and the unconditional ``x0_hat``."""
        cond, uncond = self.pair_function(params, x_t, t, c)
        return self._to_x0(cond, x_t, t), self._to_x0(uncond, x_t, t)


def from_function(
    function: Callable[..., Array],
    *,
    schedule: Schedule,
    kind: Kind,
    null: Any = None,
    pair: Callable[..., tuple[Array, Array]] | None = None,
) -> FunctionDenoiser:
    """A denoiser from ``function(params, x_t, t, c) -> prediction`` of the given kind.

    Args:
      function: pure and traceable by JAX; x_t (b, *dims), t (b,) in [0, 1], c leaves (b, ...).
      schedule: the forward process the model was trained on, with lgd's time: 0 data, 1 noise.
      kind: what it predicts: "x0", "eps", "v", "velocity" or "score".
      null: the label that stands for "no condition"; the vector (e,) that does; a tree of these
        like c; or a function from conditions (b, ...) to unconditional inputs. Such inputs of
        another structure than c, None among them, are given to the function in a second call.
      pair: ``pair(params, x_t, t, c) -> (cond, uncond)`` predictions of the same kind, for a model
        whose unconditional half is no condition at all; null is then left out.

    Returns:
      A frozen denoiser, hashable by the functions and the null.

    Raises:
      ValueError: for a kind that is unknown, neither or both of null and pair, and later, when c is
        seen, for a null that does not fit it: a label for float leaves, a label beyond the dtype
        of c, a vector of another width.

    >>> import jax.numpy as jnp, lgd
    >>> denoiser = lgd.denoisers.from_function(
    ...     lambda params, x_t, t, c: params[c][:, None] * x_t,
    ...     schedule=lgd.schedules.rectified_flow(), kind="x0", null=2)
    >>> denoiser.null(jnp.array([0, 1]))
    Array([2, 2], dtype=int32)
    """
    arguments.one_of("kind", kind, KINDS)
    schedule = checked_schedule(schedule)
    for name, value in (("function", function), ("pair", pair)):
        if isinstance(value, type) or not (callable(value) or (name == "pair" and value is None)):
            raise arguments.wrong(name, "a function of (params, x_t, t, c)", value)
    if pair is not None:
        if null is not None:
            raise ValueError("expected null or pair, got both")
        return PairDenoiser(function, schedule, kind, _no_null, pair)
    if null is None:
        raise ValueError(
            "null: expected a label, a vector, a function of c or pair=, got None; a model that "
            "takes None as its unconditional input has null=lambda c: None"
        )
    return FunctionDenoiser(function, schedule, kind, null if callable(null) else _constant(null))


def _no_null(c: Condition) -> Condition:
    raise ValueError("expected a denoiser with a null condition, got one that is made with pair=")


@dataclasses.dataclass(frozen=True)
class _ConstantNull:
    """The same unconditional input for every example, from values that can be hashed."""

    structure: Any
    values: tuple[tuple[bytes, str, tuple[int, ...]], ...]  # bytes, dtype and shape of each leaf

    def __call__(self, c: Condition) -> Condition:
        leaves, structure = jax.tree.flatten(c)
        values = [np.frombuffer(*each[:2]).reshape(each[2]) for each in self.values]
        if structure != self.structure:
            if not jax.tree_util.treedef_is_leaf(self.structure) or values[0].ndim:
                raise ValueError(f"null: expected a tree like c, {structure}, got {self.structure}")
            values *= len(leaves)
        rows = [_row(value, jnp.asarray(leaf)) for value, leaf in zip(values, leaves, strict=True)]
        return jax.tree.unflatten(structure, rows)


def _constant(null: Any) -> _ConstantNull:
    leaves, structure = jax.tree.flatten(null, is_leaf=lambda node: isinstance(node, list))
    arrays = [_numbers(leaf) for leaf in leaves]
    if not arrays or any(a.dtype.kind not in "biuf" for a in arrays):
        raise ValueError(f"null: expected numbers, arrays or a function of c, got {null!r}")
    kept = tuple((a.tobytes(), a.dtype.str, a.shape) for a in arrays)
    return _ConstantNull(structure, kept)


def _numbers(leaf: Any) -> np.ndarray:
    """An array of a dtype that numpy has, for bfloat16 float32; lists of lists may be none."""
    try:
        value = np.asarray(leaf)
    except ValueError:  # lists of different lengths
        return np.asarray(None)
    return value.astype(np.float32) if value.dtype == jnp.bfloat16 else value


_EXPECTED = {"i": "a label", "b": "true or false", "f": "a vector of floats or a function"}


def _row(value: np.ndarray, leaf: Array) -> Array:
    """The unconditional value as a leaf like one of c."""
    kind = _kind(leaf.dtype)
    if kind != _kind(value.dtype):
        wanted = f"{_EXPECTED[kind]} for conditions of {leaf.dtype} {leaf.shape}"
        raise ValueError(f"null: expected {wanted}, got {value}")
    if kind == "i":
        limits = jnp.iinfo(leaf.dtype)
        if not limits.min <= value.min() <= value.max() <= limits.max:
            raise ValueError(f"null: expected a label that {leaf.dtype} holds, got {value}")
    if value.ndim and value.shape != leaf.shape[1:]:
        raise ValueError(f"null: expected shape {leaf.shape[1:]}, got {value.shape}")
    return jnp.broadcast_to(jnp.asarray(value, leaf.dtype), leaf.shape)


def _kind(dtype: Any) -> str:
    """The key of `_EXPECTED` for a dtype."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return "b"
    return "i" if jnp.issubdtype(dtype, jnp.integer) else "f"
