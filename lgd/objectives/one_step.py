"""Objectives of one guided step from t to s: the paper's self-consistency and its relatives."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.objectives.rows import (
    Coupling,
    Info,
    Pairs,
    check_energy,
    check_step,
    draw_rows,
    error_forms,
    gram_loss,
    repeat,
    step_forms,
)
from lgd.objectives.times import TimeLaw
from lgd.omega import Support
from lgd.types import Batch, Condition, Denoiser, OmegaFn, Params, PRNGKey, RewardFn


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfConsistency:
    """Match, given x0, one guided step from t to s with direct noising to s (Alg. 1, Eq. 16-22).

    The paper's settings: beta 1.75, lam 1, 4 particles, training churn 1. With a reward R, adds
    ``-reward_weight E R(x0_hat, c)`` on the noised real data (Alg. 4).
    ``coupling="shared"`` gives proposal j and target j the same noise; then lam = 0 pairs j with j
    only, and lam > 0 pairs j with every other.
    """

    beta: float = 1.75
    lam: float = 1.0
    num_particles: int = 4
    churn: float = 1.0
    coupling: Coupling = "independent"
    time_law: TimeLaw = TimeLaw()
    reward: RewardFn | None = None
    reward_weight: float = 0.0

    group_size: ClassVar[None] = None  # takes single examples

    def __post_init__(self) -> None:
        check_energy(self.beta, self.lam, self.num_particles)
        check_step(self.churn, self.coupling)

    @property
    def support(self) -> Support:
        """Where (s, t) is seen."""
        return self.time_law.support

    @property
    def pairs(self) -> Pairs:
        """Which proposals meet which targets."""
        if self.coupling == "independent":
            return "all"
        return "matched" if self.lam == 0.0 else "off_diagonal"

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """Loss on examples x0 (b, *dims), c (b, ...)."""
        x0 = jnp.repeat(batch.x0[:, None], self.num_particles, axis=1)
        omegas = _one_for_each_group(omega_fn, batch.c, self.num_particles)
        member_c = repeat(batch.c, self.num_particles)
        return one_step_loss(self, key, omegas, denoiser, params, x0, member_c)


def l2(**settings: object) -> SelfConsistency:
    """The simple l2 objective (Eq. 21): `SelfConsistency` with beta = 2 and lam = 0."""
    return dataclasses.replace(SelfConsistency(beta=2.0, lam=0.0), **settings)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionalMarginalConsistency:
    """Match the law of one guided step from t to s with that of noised data of one condition.

    Like `SelfConsistency`, with different real x0 of the same condition in a group, so that the law
    matched is p(x_s | c) and not p(x_s | x0). A proposal never meets the target made of its own x0.
    """

    beta: float = 1.75
    lam: float = 1.0
    group_size: int = 16
    churn: float = 1.0
    time_law: TimeLaw = TimeLaw()
    reward: RewardFn | None = None
    reward_weight: float = 0.0

    coupling: ClassVar[Coupling] = "independent"
    pairs: ClassVar[Pairs] = "off_diagonal"

    def __post_init__(self) -> None:
        check_energy(self.beta, self.lam, self.group_size, pairs=self.pairs)
        check_step(self.churn, self.coupling)

    @property
    def support(self) -> Support:
        """Where (s, t) is seen."""
        return self.time_law.support

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """Loss on groups x0 (g, n, *dims), c (g, ...)."""
        omegas = _one_for_each_group(omega_fn, batch.c, self.group_size)
        member_c = repeat(batch.c, self.group_size)
        return one_step_loss(self, key, omegas, denoiser, params, batch.x0, member_c)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarginalConsistency:
    """Match the law of one guided step from t to s, over all x0 and c, with that of noised data.

    The paper's Eq. 15: num_particles different examples, each with its own condition and so its own
    omega, share (s, t) and are compared as one set with their targets. A proposal never meets the
    target made of its own x0. Weaker than `ConditionalMarginalConsistency`: laws that differ
    between conditions and agree on the whole are at distance 0.
    """

    beta: float = 1.75
    lam: float = 1.0
    num_particles: int = 16
    churn: float = 1.0
    time_law: TimeLaw = TimeLaw()
    reward: RewardFn | None = None
    reward_weight: float = 0.0

    coupling: ClassVar[Coupling] = "independent"
    pairs: ClassVar[Pairs] = "off_diagonal"
    group_size: ClassVar[None] = None  # takes single examples

    def __post_init__(self) -> None:
        check_energy(self.beta, self.lam, self.num_particles, pairs=self.pairs)
        check_step(self.churn, self.coupling)

    @property
    def support(self) -> Support:
        """Where (s, t) is seen."""
        return self.time_law.support

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """Loss on examples x0 (b, *dims), c (b, ...); num_particles must divide b."""
        b, m = len(batch.x0), self.num_particles
        if b % m:
            raise ValueError(f"expected a batch divisible by num_particles = {m}, got {b}")

        def omegas(s: Float[Array, " g"], t: Float[Array, " g"]) -> Float[Array, "g m"]:
            return omega_fn(s=jnp.repeat(s, m), t=jnp.repeat(t, m), c=batch.c).reshape(b // m, m)

        x0 = batch.x0.reshape(b // m, m, *batch.x0.shape[1:])
        return one_step_loss(self, key, omegas, denoiser, params, x0, batch.c)


GroupOmegas = Callable[[Float[Array, " g"], Float[Array, " g"]], Float[Array, "g m"]]


def _one_for_each_group(omega_fn: OmegaFn, c: Condition, m: int) -> GroupOmegas:
    """Members of a group share their condition, and so omega: evaluated once."""
    return lambda s, t: jnp.repeat(omega_fn(s=s, t=t, c=c)[:, None], m, axis=1)


def one_step_loss(
    settings: SelfConsistency | ConditionalMarginalConsistency | MarginalConsistency,
    key: PRNGKey,
    omegas: GroupOmegas,
    denoiser: Denoiser,
    params: Params,
    x0: Float[Array, "g m *dims"],
    member_c: Condition,
) -> tuple[Float[Array, ""], Info]:
    """Rows -> Gram matrix -> loss, and the reward on the same denoiser call.

    ``omegas(s, t)`` gives every member's weight (g, m), ``member_c`` its condition (g m, ...).
    """
    g, m = x0.shape[:2]
    time_key, rows_key = jax.random.split(key)
    s, t = settings.time_law.sample(time_key, g)
    rows = draw_rows(rows_key, denoiser, params, x0, member_c, t=t)
    omega = omegas(s, t)
    forms = step_forms(
        rows,
        s=s,
        t=t,
        schedule=denoiser.schedule,
        churn=settings.churn,
        coupling=settings.coupling,
    )
    per_group = gram_loss(
        forms, omega[:, :, None], beta=settings.beta, lam=settings.lam, pairs=settings.pairs
    )
    loss = jnp.mean(per_group)
    info = {"distance": loss, "omega": jnp.mean(omega)}
    if settings.reward is None:
        return loss, info
    x0_hat = x0.reshape(g, m, -1) + rows.residual + omega[:, :, None] * rows.delta
    reward = jnp.mean(settings.reward(x0_hat.reshape(g * m, *x0.shape[2:]), member_c))
    return loss - settings.reward_weight * reward, info | {"reward": reward}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidedScoreMatching:
    """``E |x0 - mix(cond, uncond, omega)|^2`` on noised real data (App. C.1): a negative control.

    For an exact denoiser cond is the best prediction there is, and omega goes to 0.
    """

    time_law: TimeLaw = TimeLaw()
    num_particles: int = 4

    group_size: ClassVar[None] = None

    @property
    def support(self) -> Support:
        """Where (s, t) is seen."""
        return self.time_law.support

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """Loss on examples x0 (b, *dims), c (b, ...)."""
        m = self.num_particles
        time_key, rows_key = jax.random.split(key)
        s, t = self.time_law.sample(time_key, len(batch.x0))
        x0 = jnp.repeat(batch.x0[:, None], m, axis=1)
        rows = draw_rows(rows_key, denoiser, params, x0, repeat(batch.c, m), t=t)
        omega = omega_fn(s=s, t=t, c=batch.c)
        weights = jnp.broadcast_to(omega[:, None, None], (len(t), m, 1))
        per_example = gram_loss(error_forms(rows), weights, beta=2.0, lam=0.0, pairs="matched")
        loss = jnp.mean(per_example)
        return loss, {"distance": loss, "omega": jnp.mean(omega)}
