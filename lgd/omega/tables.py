"""Tables of guidance weights over rows and step, or over rows, s and t."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd import conditions
from lgd.encoders import at_least_float32, shown
from lgd.guidance.weights import omega_function
from lgd.machinery.arguments import whole, wrong
from lgd.omega.rows import One, Rows
from lgd.omega.support import Support, check_range, check_support, checked_grid, grid_support
from lgd.types import Condition, OmegaFn, Params, PRNGKey

Table = TypeVar("Table", bound="_Table")

VALUES = "values"  # the weights among the parameters of a table


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Table(abc.ABC):
    """The base of all tables: values (rows, *axes) within [omega_min, omega_max].

    Trained by projected gradients: after each update the values are clipped to the range, so that a
    weight that has reached its end can still turn back. ``omega_min`` below 0, down to -1, lets
    weights be negative, which is right where the objective is unbiased.
    """

    rows: Rows = One()
    init_omega: float = 1.0
    omega_max: float = 10.0
    omega_min: float = 0.0

    num_features = 0  # features of the predictions that `apply` takes
    num_directions = 1
    default_num_steps = 200  # of a training
    default_learning_rate = 0.1

    def __post_init__(self) -> None:
        check_range(self.omega_min, self.init_omega, self.omega_max)

    @property
    @abc.abstractmethod
    def _axes(self) -> tuple[int, ...]:
        """Shape of the values of one row."""

    @abc.abstractmethod
    def _query(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """The times (s, t) of the values of one row, flattened."""

    @abc.abstractmethod
    def _read(self, values: "_Values", s: Float[Array, " b"], t: Float[Array, " b"]) -> Array:
        """The weights at (s, t), (b,), interpolated between the values of every query's row."""

    def init(self, key: PRNGKey, c: Condition) -> Params:
        """``{"values": (rows, *axes)}``, every entry init_omega, and what the rows need."""
        values = jnp.full((self.rows.count, *self._axes), self.init_omega, jnp.float32)
        return {VALUES: values} | self.rows.init(key, c)

    def apply(
        self, params: Params, *, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition
    ) -> Float[Array, " b"]:
        """omega(s, t, c), float32 or wider; NaN for a condition that has no row.

        Raises ValueError for conditions without a row whose values are known.
        """
        s, t = at_least_float32(s), at_least_float32(t)
        expected = (self.rows.count, *self._axes)
        known = isinstance(params, Mapping) and VALUES in params
        if not known or np.shape(params[VALUES]) != expected:
            raise wrong("params", f"a dict of {VALUES!r} {expected}", params)
        values = _Values(jnp.asarray(params[VALUES], t.dtype), self.rows(params, c, t))
        return self._read(values, s, t)

    def project(self, params: Params) -> Params:
        """Values clipped to [omega_min, omega_max]."""
        return params | {VALUES: jnp.clip(params[VALUES], self.omega_min, self.omega_max)}

    def tabulate(self, omega_fn: OmegaFn, c: Condition) -> Params:
        """Parameters that hold the values of a schedule, clipped to the range.

        Args:
          omega_fn: a function of (s, t, c), (b,).
          c: one condition for every row, in their order.

        Raises:
          ValueError: for other conditions.
        """
        omega_fn = omega_function(omega_fn)
        count, own = self.rows.count, self.rows.init(jax.random.key(0), c)
        if conditions.size(c) != count or _differ(c, self.rows.examples(own, c)):
            raise ValueError(f"expected one condition for every row of {self.rows}, got {shown(c)}")
        s, t = self._query()
        times = {"s": jnp.tile(s, count), "t": jnp.tile(t, count)}
        omega = omega_fn(**times, c=conditions.repeat(c, len(t)))
        values = omega.astype(jnp.float32).reshape(count, *self._axes)
        return self.project({VALUES: values} | own)

    def started(self: Table, key: PRNGKey, omega_fn: OmegaFn, c: Condition) -> tuple[Table, Params]:
        """The table, and parameters that equal a schedule at its knots, within the range.

        c: the conditions at hand, from which each row takes one.
        """
        params = self.init(key, c)
        return self, self.tabulate(omega_fn, self.rows.examples(params, c))

    def tabulated(self: Table) -> Table:
        """The table itself."""
        return self

    def start_candidates(self, named: Mapping[str, OmegaFn]) -> Mapping[str, OmegaFn]:
        """All of the start schedules."""
        return named

    def thin(self: Table) -> Table:
        """The table itself, which has no width."""
        return self

    def wider(self: Table, other: Table) -> Table:
        """The table itself, which has no width."""
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTable(_Table):
    """One value for each row and step of a grid of times, interpolated linearly in t.

    Trained by projected gradients: after each update the values are clipped to [omega_min,
    omega_max], so that a weight that has reached 0 can still rise. ``rows`` says which conditions
    share a row; by default all do. ``support`` is the grid's.
    """

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "times", checked_grid(self.times))

    @property
    def support(self) -> Support:
        """Range of times of the grid."""
        return grid_support(self.times)

    @property
    def _axes(self) -> tuple[int, ...]:
        return (len(self.times) - 1,)

    def _query(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        times = jnp.asarray(self.times, jnp.float32)
        return times[1:], times[:-1]

    def _read(self, values: "_Values", s: Float[Array, " b"], t: Float[Array, " b"]) -> Array:
        """The weight at the start t of the step; s is ignored."""
        lower, upper, weight = _locate(t, jnp.asarray(self.times[-2::-1], t.dtype))
        ascending = values.flipped()
        return (1.0 - weight) * ascending.at(lower) + weight * ascending.at(upper)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinTable(_Table):
    """One value for each row, s-bin and t-bin of the support, bilinear between bin centres.

    Projected like `StepTable`. ``rows`` says which conditions share a table; by default all do.
    """

    support: Support = Support()
    num_bins: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_support(self.support)
        whole("num_bins", self.num_bins, low=2)

    @property
    def _axes(self) -> tuple[int, ...]:
        return (self.num_bins, self.num_bins)

    def _query(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Pairs of bin centres; those with s >= t are the smallest supported step to t."""
        s, t = self.bin_centres()
        return self.support.clamp(jnp.repeat(s, len(t)), jnp.tile(t, len(s)))

    def _read(self, values: "_Values", s: Float[Array, " b"], t: Float[Array, " b"]) -> Array:
        s, t = self.support.clamp(s, t)
        s_centres, t_centres = self.bin_centres()
        s_lo, s_hi, s_weight = _locate(s, s_centres.astype(s.dtype))
        t_lo, t_hi, t_weight = _locate(t, t_centres.astype(t.dtype))
        at_s_lo = (1.0 - t_weight) * values.at(s_lo, t_lo) + t_weight * values.at(s_lo, t_hi)
        at_s_hi = (1.0 - t_weight) * values.at(s_hi, t_lo) + t_weight * values.at(s_hi, t_hi)
        return (1.0 - s_weight) * at_s_lo + s_weight * at_s_hi

    def bin_centres(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Centres of the s-bins and of the t-bins, ascending."""
        lo, hi, gap = self.support.s_min, self.support.t_max, self.support.gap_min
        fractions = (jnp.arange(self.num_bins, dtype=jnp.float32) + 0.5) / self.num_bins
        width = hi - gap - lo
        return lo + width * fractions, lo + gap + width * fractions


@dataclasses.dataclass(frozen=True)
class _Values:
    """The values of a table, and the row that every query reads."""

    values: Float[Array, "r *axes"]
    row: Int[Array, " b"]

    def flipped(self) -> "_Values":
        return _Values(self.values[:, ::-1], self.row)

    def at(self, *index: Int[Array, " b"]) -> Float[Array, " b"]:
        """Values at an index along the other axes; NaN beyond the last row."""
        return self.values.at[(self.row, *index)].get(mode="fill", fill_value=jnp.nan)


def _differ(c: Condition, other: Condition) -> bool:
    """Whether two conditions of one structure are known to have different values."""
    leaves = jax.tree.leaves((c, other))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return False
    same = jax.tree.map(np.array_equal, c, other)
    return not all(jax.tree.leaves(same))


def _locate(
    x: Float[Array, " b"], knots: Float[Array, " n"]
) -> tuple[Int[Array, " b"], Int[Array, " b"], Float[Array, " b"]]:
    """Neighbouring knots (ascending) of x and the weight of the upper one; clamped at the ends."""
    position = jnp.interp(x, knots, jnp.arange(len(knots), dtype=x.dtype))
    lower = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, max(len(knots) - 2, 0))
    upper = jnp.minimum(lower + 1, len(knots) - 1)
    return lower, upper, position - lower.astype(position.dtype)
