"""The paper's network for omega(s, t, c)."""

import dataclasses
import functools
import math
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd import schedules
from lgd.omega.support import Support, check_range
from lgd.types import Condition, Params, PRNGKey, Schedule

Conditioning = Literal["class", "vector", "none"]


Output = Literal["projected", "relu", "softplus"]


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
        check_range(self.init_omega, self.omega_max)
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
