"""The contract of an objective: what teaches omega, and what it answers for itself."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float

from lgd.data.dataset import Split
from lgd.objectives.rows import Info
from lgd.omega import LearnedModel, Support
from lgd.types import Batch, Condition, Denoiser, OmegaFn, Params, PRNGKey, RewardFn, Schedule


@runtime_checkable
class TakesReward(Protocol):
    """An objective from which a weighted reward is subtracted."""

    @property
    def reward(self) -> RewardFn | None:
        """R(x0, c); None: no reward."""

    @property
    def reward_weight(self) -> float:
        """Weight of the reward."""


@runtime_checkable
class Objective(Protocol):
    """A loss of an omega function: a frozen dataclass of settings."""

    @property
    def support(self) -> Support:
        """The range of (s, t) where omega is evaluated."""

    @property
    def group_size(self) -> int | None:
        """Real members that a group of a batch must hold; None: a batch of single examples."""

    @property
    def conditions_per_step(self) -> int | None:
        """Strata, at most, whose groups a step takes; None: as many as its batch holds."""

    @property
    def times(self) -> tuple[float, ...]:
        """The grid that is sampled on; () if there is none."""

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """The loss, and what to log."""

    def default_model(self, schedule: Schedule, c: Condition) -> LearnedModel:
        """The model that suits the objective and conditions like these examples."""

    def prepared(
        self, split: Split, num_draws: int, *, progress: bool = True
    ) -> tuple["Objective", Split]:
        """The objective and the data for a training of num_draws examples."""
