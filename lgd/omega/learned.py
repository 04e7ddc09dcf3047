"""A model with its parameters as an omega function, and as guidance with its history."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import schedules
from lgd.guidance import on_grid
from lgd.machinery import digests
from lgd.omega.model import LearnedModel
from lgd.types import Condition, OmegaFn, OmegaModel, Params, Schedule

CONVENTION = "cfg_scale = 1 + omega; x0_hat = cond + omega (cond - uncond); omega = 0: no guidance"
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
    """The omega function of a model with these parameters."""
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
        self, t: Any, s: Any = None, c: Condition = 0, *, features: Array | None = None
    ) -> Float[Array, "*b"]:
        """omega(s, t, c) for scalars or arrays, which are broadcast along the leading axis.

        Args:
          t: where steps come from, a number or (b,).
          s: where they go to; by default ``max(s_min, t - gap_min)`` of the model's support, the
            smallest step that was trained. A table over steps does not look at it.
          c: conditions, leaves (b, ...); a number is one label.
          features: features of the predictions (b, f), where the model takes them.

        Returns:
          omega (b,), or (b, k) of k directions; without the axis b if t, s and c are numbers.

        Raises:
          ValueError: for arrays of different lengths, or conditions that the model does not take.
        """
        t = _floats(t)
        support = self.model.support
        s = jnp.maximum(support.s_min, t - support.gap_min) if s is None else _floats(s)
        leaves, structure = jax.tree.flatten(_arrays(c))
        arrays = _broadcast([t, s.astype(t.dtype), *leaves])
        c = jax.tree.unflatten(structure, arrays[2:])
        omega = self.omega_fn(s=arrays[1], t=arrays[0], c=c, features=features)
        return omega if any(leaf.ndim for leaf in (t, s, *leaves)) else omega[0]

    def table(self, times: Any, c: Condition) -> Float[Array, "k b *d"]:
        """omega of every step of a decreasing grid of times (k + 1,): (k, b)."""
        return on_grid(self.omega_fn, jnp.asarray(times, jnp.float32), _arrays(c))

    def to_json(self, times: Any, c: Condition) -> str:
        """The weights on a grid as JSON, for tools that know nothing of this library.

        ``steps`` holds an object for every step, with its number ``step``, the times ``t`` and
        ``s``, ``logsnr`` at t, limited to [-20, 20] and null where the schedule is not known, and
        ``omega`` and ``cfg_scale``, a number for every condition, in order.
        """
        grid = jnp.asarray(times, jnp.float32)
        omega = np.asarray(self.table(grid, c), np.float64)
        logsnr: list[float | None] = [None] * len(omega)
        if self.schedule is not None:
            logsnr = np.asarray(schedules.clipped_logsnr(self.schedule, grid)).tolist()
        steps = [
            {
                "step": i,
                "t": float(grid[i]),
                "s": float(grid[i + 1]),
                "logsnr": logsnr[i],
                "omega": row.tolist(),
                "cfg_scale": (1.0 + row).tolist(),
            }
            for i, row in enumerate(omega)
        ]
        return json.dumps({"convention": CONVENTION, "steps": steps}, allow_nan=False)

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


def _floats(x: Any) -> Float[Array, "*b"]:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def _arrays(c: Condition) -> Condition:
    """The condition with arrays for numbers and for lists of numbers."""
    return jax.tree.map(jnp.asarray, c, is_leaf=lambda node: isinstance(node, list))


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
