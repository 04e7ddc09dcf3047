"""The paper's network for omega(s, t, c)."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import schedules
from lgd.diffusion import checked_schedule
from lgd.encoders import Encoder, at_least_float32, for_condition
from lgd.guidance import HandMade, on_grid
from lgd.machinery.arguments import having, whole
from lgd.omega.support import Support, check_range, check_support
from lgd.omega.tables import StepTable
from lgd.types import Condition, OmegaFn, Params, PRNGKey, PyTree, Schedule

Output = Literal["projected", "relu", "softplus"]

_FINE_TIMES = tuple(np.linspace(1.0, 0.0, 65).tolist())
_MEAN_TIMES = 33  # of the grid over which a schedule is averaged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """The paper's MLP (App. D): both times as logsnr through a 2-layer MLP, plus the condition.

    Starts at omega = init_omega everywhere, with every layer receiving gradients from the second
    step on. ``encoder`` takes in the condition, see `lgd.encoders`. ``output``: "projected" clips
    to [omega_min, omega_max] and lets gradients back in (see `projected_clip`); "relu" is
    min(relu(z), omega_max), as in the paper, which dies where an update overshoots 0; "softplus" is
    omega_max tanh(softplus(z) / omega_max), never exactly 0; only "projected" takes an
    ``omega_min`` below 0, down to -1. ``num_features`` > 0: `apply` also takes as many numbers for
    every query, such as `guidance.pair_features`.
    """

    schedule: Schedule
    encoder: Encoder
    width: int = 64
    depth: int = 6
    output: Output = "projected"
    init_omega: float = 1.0
    omega_max: float = 10.0
    omega_min: float = 0.0
    support: Support = Support()
    num_features: int = 0

    num_directions = 1
    default_num_steps = 300  # of a training
    default_learning_rate = 3e-3

    def __post_init__(self) -> None:
        check_range(self.omega_min, self.init_omega, self.omega_max)
        check_support(self.support)
        having("schedule", self.schedule, ("logsnr",), "a noise schedule, see lgd.schedules")
        having("encoder", self.encoder, ("check", "embed"), "an encoder, see lgd.encoders")
        whole("num_features", self.num_features, low=0)
        if self.output not in get_args(Output):
            raise ValueError(f"expected output in {get_args(Output)}, got {self.output!r}")
        if self.omega_min < 0.0 and self.output != "projected":
            raise ValueError(
                f"omega_min: expected 0 with output={self.output!r}, got {self.omega_min}"
            )
        whole("width", self.width, low=1)
        whole("depth", self.depth, low=1)

    @property
    def _module(self) -> "_OmegaMLP":
        return _OmegaMLP(self.encoder, self.width, self.depth, self._initial_logit())

    def init(self, key: PRNGKey, c: Condition) -> Params:
        """Parameters for conditions like these examples, leaves (1, ...) or more.

        Raises ValueError for a condition that the encoder does not take.
        """
        self.encoder.check(c)
        example = jax.tree.map(lambda leaf: leaf[:1], c)
        features = jnp.zeros((1, self.num_features)) if self.num_features else None
        return self._module.init(key, *_float32((jnp.zeros((1, 2)), example, features)))

    def apply(
        self,
        params: Params,
        *,
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        c: Condition,
        features: Float[Array, "b f"] | None = None,
    ) -> Float[Array, " b"]:
        """omega(s, t, c) or omega(s, t, c, features) in [omega_min, omega_max], (b,).

        Raises ValueError for a condition that the encoder does not take.
        """
        got = 0 if features is None else features.shape[-1]
        if got != self.num_features:
            raise ValueError(f"expected {self.num_features} features, got {got}")
        self.encoder.check(c)
        s, t = self.support.clamp(at_least_float32(s), at_least_float32(t))
        logsnrs = jnp.stack([schedules.clipped_logsnr(self.schedule, u) for u in (s, t)], axis=-1)
        z: Array = self._module.apply(*_float32((params, logsnrs, c, features)))  # type: ignore[assignment]
        return self._bounded(z).astype(t.dtype)

    def project(self, params: Params) -> Params:
        """The output map keeps the range; parameters are free."""
        return params

    def started(self, key: PRNGKey, omega_fn: OmegaFn, c: Condition) -> tuple["Network", Params]:
        """The network that starts at the mean of a schedule over times and conditions c."""
        mean = float(jnp.mean(on_grid(omega_fn, jnp.linspace(1.0, 0.0, _MEAN_TIMES), c)))
        model = dataclasses.replace(
            self, init_omega=min(max(mean, self.omega_min + 0.01), 0.99 * self.omega_max)
        )
        return model, model.init(key, c)

    def tabulated(self) -> StepTable:
        """A fine table, one row for all conditions, in which start schedules are compared."""
        return StepTable(times=_FINE_TIMES)

    def start_candidates(self, named: Mapping[str, OmegaFn]) -> Mapping[str, OmegaFn]:
        """The constants among start schedules, since a network starts as one."""
        return {
            name: fn for name, fn in named.items() if isinstance(fn, HandMade) and not fn.varies
        }

    def thin(self) -> "Network":
        """The network without its width, equal for networks that differ in width only."""
        return dataclasses.replace(self, width=1)

    def wider(self, other: "Network") -> "Network":
        """The wider of two networks; the first where they are as wide as each other."""
        return max(self, other, key=lambda network: network.width)

    def _bounded(self, z: Float[Array, " b"]) -> Float[Array, " b"]:
        if self.output == "projected":
            return projected_clip(z, self.omega_min, self.omega_max)
        if self.output == "relu":
            return jnp.minimum(nn.relu(z), self.omega_max)
        return self.omega_max * jnp.tanh(nn.softplus(z) / self.omega_max)

    def _initial_logit(self) -> float:
        """The z that `_bounded` maps to init_omega."""
        if self.output != "softplus":
            return self.init_omega
        softplus = self.omega_max * math.atanh(self.init_omega / self.omega_max)
        return softplus + math.log(-math.expm1(-softplus))


def _float32(tree: PyTree) -> PyTree:
    """The tree with all floats in float32, in which the network computes."""

    def cast(leaf: Any) -> Any:
        return leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def default_network(schedule: Schedule, c: Condition, support: Support) -> Network:
    """The paper's network with the encoder that fits example conditions.

    >>> import numpy as np
    >>> from lgd import omega, schedules
    >>> network = omega.default_network(schedules.cosine(), np.array([0, 1, 2]), omega.Support())
    >>> network.encoder
    Labels(num_classes=3)
    """
    encoder = for_condition(c)
    return Network(schedule=checked_schedule(schedule), encoder=encoder, support=support)


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

    encoder: Encoder
    width: int
    depth: int
    initial_logit: float

    @nn.compact
    def __call__(
        self,
        logsnrs: Float[Array, "b 2"],
        c: Condition,
        features: Float[Array, "b f"] | None,
    ) -> Float[Array, " b"]:
        h = nn.Dense(self.width)(nn.silu(nn.Dense(self.width)(logsnrs / 5.0)))
        h = h + self.encoder.embed(c, self.width)
        if features is not None:
            h = h + nn.Dense(self.width, name="features")(at_least_float32(features))
        for _ in range(self.depth):
            h = nn.silu(nn.Dense(self.width)(h))
        start = nn.initializers.constant(self.initial_logit)
        return nn.Dense(1, kernel_init=nn.initializers.zeros, bias_init=start)(h)[:, 0]
