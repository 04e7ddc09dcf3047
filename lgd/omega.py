"""Learned guidance weights omega(s, t, c): the paper's network, and tables.

Every model is a frozen dataclass of settings with three pure functions: ``init(key) -> params``,
``apply(params, *, s, t, c) -> (b,)`` and ``project(params)``, and lies in [0, omega_max]: the
one-step objectives are surrogates that are biased low, and their unconstrained optimum is negative
at small s even for an exact denoiser. Queries outside the `Support` a model was trained on are
moved into it.
"""

import dataclasses
import functools
import itertools
import math
from typing import Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd import schedules
from lgd.types import Condition, OmegaFn, OmegaModel, Params, PRNGKey, Schedule

Conditioning = Literal["class", "vector", "none"]
Output = Literal["projected", "relu", "softplus"]


class Support(NamedTuple):
    """Where (s, t) was seen in training: s >= s_min, t <= t_max, gap_min <= t - s <= gap_max."""

    s_min: float = 0.0
    t_max: float = 1.0
    gap_min: float = 0.0
    gap_max: float = 1.0

    def clamp(
        self, s: Float[Array, " b"], t: Float[Array, " b"]
    ) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """The nearest supported pair that keeps t, where the denoiser is called, if it can."""
        t = jnp.clip(t, self.s_min + self.gap_min, self.t_max)
        s = jnp.clip(s, jnp.maximum(self.s_min, t - self.gap_max), t - self.gap_min)
        return s, t


def grid_support(times: tuple[float, ...]) -> Support:
    """The support of a model trained on the steps of one decreasing grid of times."""
    gaps = [t - s for t, s in itertools.pairwise(times)]
    return Support(s_min=times[-1], t_max=times[0], gap_min=min(gaps), gap_max=max(gaps))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """The paper's MLP (App. D): both times as logsnr through a 2-layer MLP, plus the condition.

    Starts at omega = init_omega everywhere, with every layer receiving gradients from the second
    step on. ``output``: "projected" clips to [0, omega_max] and lets gradients back in (see
    `projected_clip`); "relu" is min(relu(z), omega_max), as in the paper, which dies where an
    update overshoots 0; "softplus" is omega_max tanh(softplus(z) / omega_max), never exactly 0.
    ``condition``: "class" takes labels (b,) below num_classes, "vector" takes (b, e) embeddings,
    "none" ignores c. ``num_features`` > 0: `apply` also takes as many numbers for every query, such
    as `guidance.pair_features`.
    """

    schedule: Schedule
    num_classes: int = 0
    condition: Conditioning = "class"
    width: int = 64
    depth: int = 6
    output: Output = "projected"
    init_omega: float = 1.0
    omega_max: float = 10.0
    support: Support = Support()
    num_features: int = 0

    def __post_init__(self) -> None:
        _check_range(self.init_omega, self.omega_max)
        if self.num_features < 0:
            raise ValueError(f"expected num_features >= 0, got {self.num_features}")
        if self.output not in get_args(Output):
            raise ValueError(f"expected output in {get_args(Output)}, got {self.output!r}")
        if self.condition not in get_args(Conditioning):
            expected = get_args(Conditioning)
            raise ValueError(f"expected condition in {expected}, got {self.condition!r}")
        if self.condition == "class" and self.num_classes < 1:
            raise ValueError(f"expected num_classes >= 1, got {self.num_classes}")
        if self.width < 1 or self.depth < 1:
            raise ValueError(f"expected width, depth >= 1, got {self.width} and {self.depth}")

    @property
    def _module(self) -> "_OmegaMLP":
        return _OmegaMLP(self.num_classes, self.width, self.depth, self._initial_logit())

    def init(self, key: PRNGKey, c: Condition | None = None) -> Params:
        """Parameters; a vector-conditioned network needs an example c (1, e) for its width."""
        if self.condition == "vector" and c is None:
            raise ValueError(
                "expected an example condition c (b, e) for a vector-conditioned model"
            )
        example = jnp.zeros(1, jnp.int32) if c is None else c
        features = jnp.zeros((1, self.num_features)) if self.num_features else None
        return self._module.init(key, jnp.zeros((1, 2)), self._conditioning(example), features)

    def apply(
        self,
        params: Params,
        *,
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        c: Condition,
        features: Float[Array, "b f"] | None = None,
    ) -> Float[Array, " b"]:
        """omega(s, t, c) or omega(s, t, c, features) in [0, omega_max], (b,)."""
        got = 0 if features is None else features.shape[-1]
        if got != self.num_features:
            raise ValueError(f"expected {self.num_features} features, got {got}")
        s, t = self.support.clamp(s, t)
        logsnrs = jnp.stack([schedules.clipped_logsnr(self.schedule, u) for u in (s, t)], axis=-1)
        inputs = (logsnrs, self._conditioning(c), features)
        z: Array = self._module.apply(params, *inputs)  # type: ignore[assignment]
        return self._bounded(z)

    def project(self, params: Params) -> Params:
        """The output map keeps the range; parameters are free."""
        return params

    def _conditioning(self, c: Condition) -> Condition | None:
        return None if self.condition == "none" else c

    def _bounded(self, z: Float[Array, " b"]) -> Float[Array, " b"]:
        if self.output == "projected":
            return projected_clip(z, 0.0, self.omega_max)
        if self.output == "relu":
            return jnp.minimum(nn.relu(z), self.omega_max)
        return self.omega_max * jnp.tanh(nn.softplus(z) / self.omega_max)

    def _initial_logit(self) -> float:
        """The z that `_bounded` maps to init_omega."""
        if self.output != "softplus":
            return self.init_omega
        softplus = self.omega_max * math.atanh(self.init_omega / self.omega_max)
        return softplus + math.log(-math.expm1(-softplus))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def projected_clip(z: Float[Array, "*s"], lo: float, hi: float) -> Float[Array, "*s"]:
    """``clip(z, lo, hi)`` whose gradient is cut only where a descent step would leave the range.

    Outside (lo, hi) a cotangent that points back inside passes unchanged, as in a projected
    gradient method: a value that has reached 0 can still rise.
    """
    return jnp.clip(z, lo, hi)


def _projected_clip_fwd(
    z: Float[Array, "*s"], lo: float, hi: float
) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    return jnp.clip(z, lo, hi), z


def _projected_clip_bwd(
    lo: float, hi: float, z: Float[Array, "*s"], cotangent: Float[Array, "*s"]
) -> tuple[Float[Array, "*s"]]:
    leaving = ((z <= lo) & (cotangent > 0.0)) | ((z >= hi) & (cotangent < 0.0))
    return (jnp.where(leaving, 0.0, cotangent),)


projected_clip.defvjp(_projected_clip_fwd, _projected_clip_bwd)


class _OmegaMLP(nn.Module):
    """(b, 2) logsnrs and a condition to (b,) logits, a constant at the start."""

    num_classes: int
    width: int
    depth: int
    initial_logit: float

    @nn.compact
    def __call__(
        self,
        logsnrs: Float[Array, "b 2"],
        c: Int[Array, " b"] | Float[Array, "b e"] | None,
        features: Float[Array, "b f"] | None,
    ) -> Float[Array, " b"]:
        h = nn.Dense(self.width)(nn.silu(nn.Dense(self.width)(logsnrs / 5.0)))
        if c is not None and c.ndim == 1:
            h = h + nn.Embed(self.num_classes, self.width)(c)
        elif c is not None:
            h = h + nn.Dense(self.width)(c)
        if features is not None:
            h = h + nn.Dense(self.width, name="features")(features)
        for _ in range(self.depth):
            h = nn.silu(nn.Dense(self.width)(h))
        start = nn.initializers.constant(self.initial_logit)
        return nn.Dense(1, kernel_init=nn.initializers.zeros, bias_init=start)(h)[:, 0]


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
        _check_range(self.init_omega, self.omega_max)
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
        _check_range(self.init_omega, self.omega_max)
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


LearnedModel = Network | StepTable | BinTable


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerDirection:
    """A model for each of several directions: omega (b, k).

    The first multiplies ``cond - uncond``, the others the further directions of statistics or of
    `sampler.sample_adaptive`. Parameters are a tuple, one entry for each model.
    """

    models: tuple[OmegaModel, ...]

    def __post_init__(self) -> None:
        if len({each for each in map(_num_features, self.models) if each}) > 1 or not self.models:
            raise ValueError(f"expected models that agree on num_features, got {self.models}")

    @property
    def num_features(self) -> int:
        """Of the models that take features; 0: none does."""
        return max(map(_num_features, self.models))

    def init(self, key: PRNGKey) -> Params:
        """Parameters of every model."""
        keys = jax.random.split(key, len(self.models))
        return tuple(model.init(each) for model, each in zip(self.models, keys, strict=True))

    def apply(
        self,
        params: Params,
        *,
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        c: Condition,
        features: Float[Array, "b f"] | None = None,
    ) -> Float[Array, "b k"]:
        """omega of every direction."""
        each = []
        for model, own in zip(self.models, params, strict=True):
            extra = {"features": features} if _num_features(model) else {}
            each.append(model.apply(own, s=s, t=t, c=c, **extra))
        return jnp.stack(each, axis=-1)

    def project(self, params: Params) -> Params:
        """Every model's own."""
        return tuple(model.project(own) for model, own in zip(self.models, params, strict=True))


def bind(model: OmegaModel, params: Params) -> OmegaFn:
    """The omega function of a model with these parameters; of features where the model is."""
    if _num_features(model):

        def omega_of_features(
            *, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition, features: Array
        ) -> Array:
            return model.apply(params, s=s, t=t, c=c, features=features)  # type: ignore[call-arg]

        return omega_of_features

    def omega(*, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition) -> Array:
        return model.apply(params, s=s, t=t, c=c)

    return omega


def _num_features(model: OmegaModel) -> int:
    return getattr(model, "num_features", 0)


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


def _check_range(init_omega: float, omega_max: float) -> None:
    if not 0.0 < init_omega < omega_max:
        raise ValueError(
            f"expected 0 < init_omega < omega_max, got {init_omega} and omega_max {omega_max}"
        )
