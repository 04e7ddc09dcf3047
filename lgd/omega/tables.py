"""Tables of guidance weights over class and step, or over class, s and t."""

import dataclasses
import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd.omega.support import Support, check_range, grid_support
from lgd.types import Condition, OmegaFn, Params, PRNGKey


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTable:
    """One value for each class and step of a grid of times, interpolated linearly in t.

    Trained by projected gradients: after each update the values are clipped to [0, omega_max],
    so that a weight that has reached 0 can still rise. num_classes = 0: one row for all classes.
    ``support`` is the grid's.
    """

    times: tuple[float, ...]
    num_classes: int = 0
    init_omega: float = 1.0
    omega_max: float = 10.0

    def __post_init__(self) -> None:
        check_range(self.init_omega, self.omega_max)
        if len(self.times) < 2 or any(t <= s for t, s in itertools.pairwise(self.times)):
            raise ValueError(f"expected at least two decreasing times, got {self.times}")

    @property
    def support(self) -> Support:
        """Range of times of the grid."""
        return grid_support(self.times)

    def init(self, key: PRNGKey) -> Params:
        """``{"values": (max(num_classes, 1), num_steps)}``, every entry init_omega."""
        shape = (max(self.num_classes, 1), len(self.times) - 1)
        return {"values": jnp.full(shape, self.init_omega, jnp.float32)}

    def tabulate(self, omega_fn: OmegaFn) -> Params:
        """Parameters that hold the values of a schedule on the grid, clipped to the range."""
        rows, steps = max(self.num_classes, 1), len(self.times) - 1
        c = jnp.repeat(jnp.arange(rows, dtype=jnp.int32), steps)
        times = jnp.asarray(self.times)
        t, s = jnp.tile(times[:-1], rows), jnp.tile(times[1:], rows)
        return self.project({"values": omega_fn(s=s, t=t, c=c).reshape(rows, steps)})

    def apply(
        self, params: Params, *, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition
    ) -> Float[Array, " b"]:
        """omega at the start t of the step; s is ignored. (b,)."""
        lower, upper, weight = _locate(t, jnp.asarray(self.times[-2::-1], t.dtype))
        values = jnp.asarray(params["values"])[:, ::-1]  # ascending in t
        row = _rows(self.num_classes, c, t)
        return (1.0 - weight) * values[row, lower] + weight * values[row, upper]

    def project(self, params: Params) -> Params:
        """Values clipped to [0, omega_max]."""
        return {"values": jnp.clip(params["values"], 0.0, self.omega_max)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinTable:
    """One value for each class, s-bin and t-bin of the support, bilinear between bin centres.

    Projected like `StepTable`. num_classes = 0: one table for all classes.
    """

    support: Support = Support()
    num_classes: int = 0
    num_bins: int = 10
    init_omega: float = 1.0
    omega_max: float = 10.0

    def __post_init__(self) -> None:
        check_range(self.init_omega, self.omega_max)
        if self.num_bins < 2:
            raise ValueError(f"expected num_bins >= 2, got {self.num_bins}")

    def init(self, key: PRNGKey) -> Params:
        """``{"values": (max(num_classes, 1), num_bins, num_bins)}``, every entry init_omega."""
        shape = (max(self.num_classes, 1), self.num_bins, self.num_bins)
        return {"values": jnp.full(shape, self.init_omega, jnp.float32)}

    def tabulate(self, omega_fn: OmegaFn) -> Params:
        """Parameters that hold the values of a schedule at the bin centres, clipped to the range.

        Centres with s >= t take the value for the smallest supported step.
        """
        shape = (max(self.num_classes, 1), self.num_bins, self.num_bins)
        s_centres, t_centres = self.bin_centres()
        c, s, t = (
            jnp.broadcast_to(axis, shape).reshape(-1)
            for axis in (
                jnp.arange(shape[0], dtype=jnp.int32)[:, None, None],
                s_centres[None, :, None],
                t_centres[None, None, :],
            )
        )
        s, t = self.support.clamp(s, t)
        return self.project({"values": omega_fn(s=s, t=t, c=c).reshape(shape)})

    def apply(
        self, params: Params, *, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition
    ) -> Float[Array, " b"]:
        """omega(s, t, c), (b,)."""
        s, t = self.support.clamp(s, t)
        s_centres, t_centres = self.bin_centres()
        s_lo, s_hi, s_weight = _locate(s, s_centres.astype(s.dtype))
        t_lo, t_hi, t_weight = _locate(t, t_centres.astype(t.dtype))
        row, values = _rows(self.num_classes, c, t), jnp.asarray(params["values"])
        at_s_lo = (1.0 - t_weight) * values[row, s_lo, t_lo] + t_weight * values[row, s_lo, t_hi]
        at_s_hi = (1.0 - t_weight) * values[row, s_hi, t_lo] + t_weight * values[row, s_hi, t_hi]
        return (1.0 - s_weight) * at_s_lo + s_weight * at_s_hi

    def project(self, params: Params) -> Params:
        """Values clipped to [0, omega_max]."""
        return {"values": jnp.clip(params["values"], 0.0, self.omega_max)}

    def bin_centres(self) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Centres of the s-bins and of the t-bins, ascending."""
        lo, hi, gap = self.support.s_min, self.support.t_max, self.support.gap_min
        fractions = (jnp.arange(self.num_bins) + 0.5) / self.num_bins
        width = hi - gap - lo
        return lo + width * fractions, lo + gap + width * fractions


def _locate(
    x: Float[Array, " b"], knots: Float[Array, " n"]
) -> tuple[Int[Array, " b"], Int[Array, " b"], Float[Array, " b"]]:
    """Neighbouring knots (ascending) of x and the weight of the upper one; clamped at the ends."""
    position = jnp.interp(x, knots, jnp.arange(len(knots), dtype=x.dtype))
    lower = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, max(len(knots) - 2, 0))
    upper = jnp.minimum(lower + 1, len(knots) - 1)
    return lower, upper, position - lower


def _rows(num_classes: int, c: Condition, t: Float[Array, " b"]) -> Int[Array, " b"]:
    return c if num_classes else jnp.zeros(t.shape, jnp.int32)
