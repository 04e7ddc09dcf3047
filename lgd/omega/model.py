"""The contract of learned guidance weights."""

from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

from lgd.omega.support import Support
from lgd.types import Condition, OmegaFn, OmegaModel, Params, PRNGKey

Model = TypeVar("Model", bound="LearnedModel")


@runtime_checkable
class LearnedModel(OmegaModel, Protocol):
    """A model that says how to begin and how to train it: a frozen dataclass without arrays."""

    @property
    def support(self) -> Support:
        """Where (s, t) is seen in training."""

    @property
    def default_num_steps(self) -> int:
        """Steps of a training that suit it."""

    @property
    def default_learning_rate(self) -> float:
        """Learning rate of Adam that suits it."""

    def started(self: Model, key: PRNGKey, omega_fn: OmegaFn, c: Condition) -> tuple[Model, Params]:
        """The model, and parameters that equal a schedule as nearly as they can.

        c: conditions at hand, such as one of every stratum.
        """

    def tabulated(self) -> "LearnedModel | None":
        """The table in whose parameters schedules to start from are compared; None: it has none.

        Its `started` gives the parameters of a schedule, so that one compiled loss serves all.
        """

    def start_candidates(self, named: Mapping[str, OmegaFn]) -> Mapping[str, OmegaFn]:
        """The schedules that the model can start from."""

    def thin(self: Model) -> Model:
        """The model without its width, equal for models that differ in width only."""

    def wider(self: Model, other: Model) -> Model:
        """The wider of two models whose `thin` are equal; those of the narrower fit into it.

        Parameters of the narrower, with zeros after them, are parameters of the same function.
        """
