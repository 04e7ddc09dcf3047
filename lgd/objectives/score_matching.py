"""Guided score matching: a negative control."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.objectives.forms import DistanceForms, SharedForms
from lgd.objectives.one_step import Energy, Members, OneStep
from lgd.objectives.rows import Rows, error_forms, gram_loss
from lgd.types import Batch, Scalar, Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidedScoreMatching(OneStep):
    """``E |x0 - mix(cond, uncond, omega)|^2`` on noised real data (App. C.1): a negative control.

    For an exact denoiser cond is the best prediction there is, and omega goes to 0.
    """

    num_particles: int = 4

    members: ClassVar[tuple[Members, ...]] = ("copies", "condition", "mixed")

    @property
    def num_members(self) -> int:
        """Noisings of one example."""
        return self.num_particles

    @property
    def energy(self) -> Energy:
        """A squared error, of no step: beta 2, lam 0, churn 0."""
        return Energy(2.0, 0.0, 0.0)

    @property
    def frame(self) -> "OneStep":
        """The objective itself, which has none of the settings of `energy`."""
        return self

    def groups(self, batch: Batch) -> Batch:
        """Copies of every example."""
        return Batch(jnp.repeat(batch.x0[:, None], self.num_particles, axis=1), batch.c)

    def forms(
        self,
        rows: Rows,
        *,
        s: Float[Array, " g"],
        t: Float[Array, " g"],
        schedule: Schedule,
        churn: Scalar,
    ) -> DistanceForms:
        """Squared errors of the guided predictions.

        Args:
          rows: of the denoiser; their noises are not used.
          s: not used.
          t: not used.
          schedule: not used.
          churn: not used.
        """
        return error_forms(rows)

    def losses(
        self,
        forms: DistanceForms | SharedForms,
        omega: Float[Array, "g m k"] | Float[Array, " g"],
        *,
        beta: Scalar,
        lam: Scalar,
    ) -> Float[Array, " g"]:
        """The mean squared error of every group; beta and lam are not used."""
        return gram_loss(forms, omega, beta=2.0, lam=0.0, pairs="matched")
