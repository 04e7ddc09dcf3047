"""A model with its parameters as an omega function, and as guidance with its history."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import conditions
from lgd.guidance import on_grid
from lgd.guidance.times import checked_times
from lgd.machinery import digests
from lgd.machinery.arguments import having, wrong
from lgd.omega import steps
from lgd.omega.model import LearnedModel
from lgd.types import Condition, OmegaFn, OmegaModel, Params, Schedule

_MOST_SHOWN = 4  # entries of a tuple in a summary


@dataclasses.dataclass(frozen=True, eq=False)
class Learned:
    """A model bound to its parameters: an omega function, and a pytree of the parameters."""

    model: OmegaModel
    params: Params = dataclasses.field(repr=False)

    @property
    def num_directions(self) -> int:
        """Directions that it weighs; above 1, omega is (b, directions)."""
        return self.model.num_directions

    @property
    def num_features(self) -> int:
        """Number of features of the predictions that it takes; 0: none."""
        return self.model.num_features

    def __call__(
        self,
        *,
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        c: Condition,
        features: Float[Array, "b f"] | None = None,
    ) -> Float[Array, "b *k"]:
        """omega(s, t, c), (b,), or (b, k) of k directions; of features where the model is."""
        if features is None:
            return self.model.apply(self.params, s=s, t=t, c=c)
        if not self.num_features:
            raise ValueError(f"expected no features, got {features.shape}")
        return self.model.apply(self.params, s=s, t=t, c=c, features=features)  # type: ignore[call-arg]


jax.tree_util.register_dataclass(Learned, data_fields=["params"], meta_fields=["model"])


def bind(model: OmegaModel, params: Params) -> Learned:
    """The omega function of a model with these parameters.

    Raises ValueError for what is no model, such as the class of one.
    """
    what = "a model, for example lgd.omega.StepTable(times=(1.0, 0.5, 0.0))"
    having("model", model, ("apply", "num_features", "num_directions"), what)
    return Learned(model, params)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Guidance:
    """Learned guidance: a model, its parameters, and where they come from.

    It is an omega function itself, called by keywords as ``guidance(s=s, t=t, c=c)``, or by hand as
    ``guidance(0.5)``; see `lgd.exchange.files` for a file of it.

    >>> import jax.numpy as jnp
    >>> from lgd import omega
    >>> table = omega.StepTable(times=(1.0, 0.5, 0.0))
    >>> guidance = omega.Guidance(table, {"values": jnp.array([[0.0, 2.0]])}, "constant(1)")
    >>> float(guidance(0.75))
    1.0
    """

    model: LearnedModel
    params: Params
    start: str  # the schedule that training started from, or how the parameters were found
    schedule: Schedule | None = None  # of the denoiser
    history: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the training
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def omega_fn(self) -> OmegaFn:
        """omega(s, t, c), a pytree."""
        return bind(self.model, self.params)

    @property
    def description(self) -> str:
        """Model and parameters in words and a digest, which name the schedule."""
        return digests.describe(self.omega_fn)

    @property
    def num_directions(self) -> int:
        """Directions that it weighs; above 1, omega is (b, directions)."""
        return self.model.num_directions

    @property
    def num_features(self) -> int:
        """Number of features of the predictions that it takes; 0: none."""
        return self.model.num_features

    def __call__(
        self, t: Any, s: Any = None, c: Condition = None, *, features: Array | None = None
    ) -> Float[Array, "*b"]:
        """omega(s, t, c) for scalars or arrays, which are broadcast along the leading axis.

        Args:
          t: where steps come from, a number or (b,).
          s: where they go to, below t; by default ``max(s_min, t - gap_min)`` of the model's
            support, the smallest step that was trained. A table over steps does not look at it.
          c: conditions, leaves (b, ...); a number is one label; None where the weight depends on no
            condition.
          features: features of the predictions (b, f), where the model takes them.

        Returns:
          omega (b,), or (b, k) of k directions; without the axis b if t, s and c are numbers.

        Raises:
          ValueError: for times outside [0, 1] or s >= t, arrays of different lengths, or conditions
            that the model does not take.
        """
        t = _times("t", t)
        support = self.model.support
        below = jnp.maximum(support.s_min, t - support.gap_min)
        if s is not None:
            _check_below(_times("s", s), t)
        s = below if s is None else _times("s", s)
        leaves, structure = jax.tree.flatten(conditions.arrays(c))
        arrays = _broadcast([t, s.astype(t.dtype), *leaves])
        rows = jax.tree.unflatten(structure, arrays[2:])
        omega = self._weights(arrays[1], arrays[0], rows, features)
        return omega if any(leaf.ndim for leaf in (t, s, *leaves)) else omega[0]

    def _weights(
        self, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition, features: Array | None
    ) -> Float[Array, "b *k"]:
        try:
            return self.omega_fn(s=s, t=t, c=c, features=features)
        except (TypeError, ValueError) as error:
            if c is not None:
                raise
            raise ValueError(
                f"c: expected the condition that this weight depends on, got none: {error}"
            ) from None

    def table(self, times: Any, c: Condition) -> Float[Array, "k b *d"]:
        """omega of every step of a decreasing grid of times (k + 1,): (k, b).

        c: conditions, leaves (b, ...). Raises ValueError for times that do not decrease within
        [0, 1].

        >>> import jax.numpy as jnp
        >>> from lgd import omega
        >>> model = omega.StepTable(times=(1.0, 0.5, 0.0))
        >>> guidance = omega.Guidance(model, {"values": jnp.array([[0.0, 2.0]])}, "constant(1)")
        >>> guidance.table([1.0, 0.75, 0.5, 0.0], c=jnp.array([0])).tolist()
        [[0.0], [1.0], [2.0]]
        """
        return on_grid(self.omega_fn, checked_times(times), conditions.arrays(c))

    def to_json(self, times: Any, c: Condition) -> str:
        """The weights on a grid as JSON, for tools that know nothing of this library.

        ``steps`` holds an object for every step, with its number ``step``, the times ``t`` and
        ``s``, ``sigma`` and ``logsnr`` at t, the latter limited to [-20, 20], both null where the
        noise schedule is not known, and ``omega`` and ``cfg_scale``, a number for every condition,
        in order; of k directions a list of k for every condition, without ``cfg_scale``. Raises
        ValueError as `table` does.

        >>> import json
        >>> import jax.numpy as jnp
        >>> from lgd import omega
        >>> model = omega.StepTable(times=(1.0, 0.0))
        >>> guidance = omega.Guidance(model, {"values": jnp.array([[0.5]])}, "constant(1)")
        >>> json.loads(guidance.to_json([1.0, 0.0], c=jnp.array([0])))["steps"][0]["cfg_scale"]
        [1.5]
        """
        return steps.to_json(*self._on(times, c))

    def to_csv(self, times: Any, c: Condition) -> str:
        """The same as CSV, a line for every step and condition.

        Columns are step, condition, t, s, sigma, logsnr, omega and cfg_scale; of several directions
        omega_0, omega_1 and so on, without cfg_scale. Raises ValueError as `table` does.

        >>> import jax.numpy as jnp
        >>> from lgd import omega
        >>> model = omega.StepTable(times=(1.0, 0.0))
        >>> guidance = omega.Guidance(model, {"values": jnp.array([[0.5]])}, "constant(1)")
        >>> print(guidance.to_csv([1.0, 0.0], c=jnp.array([0])).strip())
        step,condition,t,s,sigma,logsnr,omega,cfg_scale
        0,0,1.0,0.0,,,0.5,1.5
        """
        return steps.to_csv(*self._on(times, c))

    def _on(self, times: Any, c: Condition) -> tuple[np.ndarray, np.ndarray, Schedule | None]:
        grid = np.asarray(checked_times(times))
        return grid, np.asarray(self.table(grid, c)), self.schedule

    def __repr__(self) -> str:
        return self.summary

    @property
    def summary(self) -> str:
        """A description of a few lines, without arrays."""
        count = sum(np.size(leaf) for leaf in jax.tree.leaves(self.params))
        lines = [
            f"Guidance by {type(self.model).__name__}, {count} parameters, from {self.start}",
            f"  model: {_short(self.model)}",
        ]
        if self.schedule is not None:
            lines.append(f"  schedule: {_short(self.schedule)}")
        lines += [f"  {name}: {_short(value)}" for name, value in self.provenance.items()]
        if self.history:
            lines.append(f"  history: {', '.join(map(str, self.history))}")
        return "\n".join(lines)


def _times(name: str, given: Any) -> Float[Array, "*b"]:
    """Times as floats. Raises ValueError for known ones outside [0, 1]."""
    try:
        x = jnp.asarray(given if isinstance(given, jax.Array) else np.asarray(given))
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
    except (TypeError, ValueError):
        raise wrong(name, "times in [0, 1], a number or an array", given) from None
    if not isinstance(x, jax.core.Tracer) and not bool(jnp.all((x >= 0.0) & (x <= 1.0))):
        raise wrong(name, "times in [0, 1]", given)
    return x


def _check_below(s: Float[Array, "..."], t: Float[Array, "..."]) -> None:
    """Raise ValueError where s is known not to be below t."""
    if isinstance(s, jax.core.Tracer) or isinstance(t, jax.core.Tracer):
        return
    first, then = (np.asarray(x, np.float32).reshape(-1) for x in _broadcast([t, s]))
    late = np.flatnonzero(~(then < first))
    if late.size:
        raise ValueError(f"s: expected times below t, got s {then[late[0]]} and t {first[late[0]]}")


def _broadcast(arrays: list[Array]) -> list[Array]:
    """The arrays with one leading axis, of 1 where none has one."""
    lengths = {len(x) for x in arrays if x.ndim} - {1}
    if len(lengths) > 1:
        raise ValueError(f"expected arrays of one length, got {[x.shape for x in arrays]}")
    size = lengths.pop() if lengths else 1
    return [jnp.broadcast_to(x, (size, *x.shape[1:])) for x in arrays]


def _short(value: Any) -> str:
    """A repr in which long tuples are left out but for their ends."""
    if dataclasses.is_dataclass(value):
        fields = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr]
        shown = ", ".join(f"{name}={_short(field)}" for name, field in fields)
        return f"{type(value).__name__}({shown})"
    if type(value) is tuple:
        few = [_short(entry) for entry in value]
        if len(few) > _MOST_SHOWN:
            few = [*few[:2], "...", few[-1]]
        return f"({', '.join(few)})"
    return str(value) if isinstance(value, str) else repr(value)
