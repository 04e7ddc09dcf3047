"""Self-consistency and its relatives, which differ in the groups whose laws they compare."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from lgd import conditions
from lgd.objectives.one_step import Members, StepConsistency
from lgd.objectives.rows import Coupling, Pairs
from lgd.objectives.times import TimeLaw
from lgd.types import Batch, RewardFn

_PAPER_TIMES = TimeLaw()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfConsistency(StepConsistency):
    """One guided step from t to s against direct noising to s, both given x0 (Alg. 1, Eq. 16-22).

    The settings of the paper: beta 1.75, lam 1, 4 particles, churn 1. ``coupling="shared"`` gives
    proposal j and target j the same noise; then lam = 0 pairs j with j only, and lam > 0 pairs j
    with every other.
    """

    num_particles: int = 4
    coupling: Coupling = "independent"

    members: ClassVar[tuple[Members, ...]] = ("copies",)

    @property
    def num_members(self) -> int:
        """Noisings of one example."""
        return self.num_particles

    @property
    def pairs(self) -> Pairs:
        """Which proposals meet which targets: all of them where their noises are independent."""
        if self.coupling == "independent":
            return "all"
        return "matched" if self.lam == 0.0 else "off_diagonal"

    def groups(self, batch: Batch) -> Batch:
        """Copies of every example."""
        return Batch(jnp.repeat(batch.x0[:, None], self.num_particles, axis=1), batch.c)


def l2(
    *,
    num_particles: int = 4,
    churn: float = 1.0,
    coupling: Coupling = "independent",
    time_law: TimeLaw = _PAPER_TIMES,
    reward: RewardFn | None = None,
    reward_weight: float = 0.0,
) -> SelfConsistency:
    """The simple l2 objective (Eq. 21): `SelfConsistency` with beta = 2 and lam = 0.

    Args:
      num_particles: noisings of one example.
      churn: of the step.
      coupling: whether proposals and targets have noises of their own or share them.
      time_law: of (s, t).
      reward: R(x0_hat, c), see `OneStep`.
      reward_weight: of its mean, which is subtracted from the loss.
    """
    return SelfConsistency(
        beta=2.0,
        lam=0.0,
        num_particles=num_particles,
        churn=churn,
        coupling=coupling,
        time_law=time_law,
        reward=reward,
        reward_weight=reward_weight,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionalMarginalConsistency(StepConsistency):
    """The law p(x_s | c) of one guided step from t to s against that of noised data.

    Like `SelfConsistency`, with different real x0 in a group, drawn from one stratum of the data
    (for labels: of one class). Every member has its own condition and so its own omega. A proposal
    never meets the target made of its own x0.
    """

    group_size: int = 16

    members: ClassVar[tuple[Members, ...]] = ("condition",)
    conditions_per_member: ClassVar[bool] = True

    @property
    def num_members(self) -> int:
        """Real examples of a group."""
        return self.group_size

    def groups(self, batch: Batch) -> Batch:
        """The groups as they are. Raises ValueError for another size."""
        if batch.x0.shape[1] != self.group_size:
            raise ValueError(f"expected groups of {self.group_size}, got {batch.x0.shape[1]}")
        return batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarginalConsistency(StepConsistency):
    """The law of one guided step from t to s, over all x0 and c, against that of noised data.

    Eq. 15 of the paper: num_particles different examples, each with its own condition and so its
    own omega, share (s, t) and are compared as one set with their targets. A proposal never meets
    the target made of its own x0. Weaker than `ConditionalMarginalConsistency`: laws that differ
    between conditions and agree on the whole are at distance 0.
    """

    num_particles: int = 16

    members: ClassVar[tuple[Members, ...]] = ("mixed",)
    conditions_per_member: ClassVar[bool] = True

    @property
    def num_members(self) -> int:
        """Real examples that are compared as one set."""
        return self.num_particles

    def groups(self, batch: Batch) -> Batch:
        """num_particles examples after another. Raises ValueError where they do not divide b."""
        b, m = len(batch.x0), self.num_particles
        if b % m:
            raise ValueError(f"expected a batch divisible by num_particles = {m}, got {b}")
        x0 = batch.x0.reshape(b // m, m, *batch.x0.shape[1:])
        return Batch(x0, conditions.reshape(batch.c, b // m, m))
