"""The base of all objectives of one guided step, and what each of them answers for itself.

An objective of one step noises groups of real examples to t, calls the frozen denoiser once, and
compares one guided step from t to s with something that needs no model. A subclass says what its
groups are, which distances it takes, and how its loss follows from them; the draws of times and
rows, the weights and the reward are written here once. Online training calls the objective itself,
Gram statistics (`lgd.gram`) its `forms` and `losses`.
"""

import abc
import dataclasses
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import conditions, diffusion, omega
from lgd.data.dataset import Split
from lgd.objectives.forms import DistanceForms, SharedForms
from lgd.objectives.rows import (
    Coupling,
    Info,
    Pairs,
    Rows,
    check_energy,
    check_step,
    draw_rows,
    gram_loss,
    mixed_predictions,
    step_forms,
)
from lgd.objectives.times import TimeLaw
from lgd.objectives.weights import member_weights
from lgd.omega import Support
from lgd.types import (
    Batch,
    Condition,
    Denoiser,
    OmegaFn,
    Params,
    PRNGKey,
    RewardFn,
    Scalar,
    Schedule,
)

Members = Literal["copies", "condition", "mixed"]


class Energy(NamedTuple):
    """Settings of an objective that may be traced, and so differ within one compiled program."""

    beta: Scalar
    lam: Scalar
    churn: Scalar


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneStep(abc.ABC):
    """An objective of one guided step from t to s.

    A subclass is a frozen dataclass that adds its settings and answers the abstract members below.
    With a reward R, ``-reward_weight E R(x0_hat, c)`` is added to the loss, where x0_hat is the
    guided prediction on the noised real data (paper, Alg. 4).
    """

    time_law: TimeLaw = TimeLaw()
    reward: RewardFn | None = None
    reward_weight: float = 0.0

    # What the particles of one example of statistics may be, see `gram.Layout`; the usual first.
    members: ClassVar[tuple[Members, ...]] = ()
    # Whether the members of a group have conditions of their own.
    conditions_per_member: ClassVar[bool] = False
    times: ClassVar[tuple[float, ...]] = ()  # no grid is sampled on

    @property
    def group_size(self) -> int | None:
        """Real members that a group of a batch must hold; None: a batch of single examples."""
        return None

    @property
    def conditions_per_step(self) -> int | None:
        """Strata, at most, whose groups a step takes; None: as many as its batch holds."""
        return None

    @property
    @abc.abstractmethod
    def num_members(self) -> int:
        """Particles that are compared with one another: m."""

    @property
    @abc.abstractmethod
    def energy(self) -> Energy:
        """The settings that may be traced."""

    @property
    @abc.abstractmethod
    def frame(self) -> "OneStep":
        """The objective with fixed values for `energy`, as objectives of one program have it."""

    @abc.abstractmethod
    def groups(self, batch: Batch) -> Batch:
        """The groups of a batch: x0 (g, m, *dims), and conditions.

        Their leaves are (g, m, ...) where ``conditions_per_member``, else (g, ...). Raises
        ValueError for a batch of another shape.
        """

    @abc.abstractmethod
    def forms(
        self,
        rows: Rows,
        *,
        s: Float[Array, " g"],
        t: Float[Array, " g"],
        schedule: Schedule,
        churn: Scalar,
    ) -> DistanceForms:
        """The squared distances that are compared, as polynomials of omega.

        Args:
          rows: of the denoiser and of noise.
          s: times that the steps go to.
          t: times that they come from.
          schedule: the forward process.
          churn: of the step, in the place of that of `energy`.
        """

    @abc.abstractmethod
    def losses(
        self,
        forms: DistanceForms | SharedForms,
        omega: Float[Array, "g m k"] | Float[Array, " g"],
        *,
        beta: Scalar,
        lam: Scalar,
    ) -> Float[Array, " g"]:
        """The loss of every group, at given settings in the place of those of `energy`."""

    @property
    def support(self) -> Support:
        """Where (s, t) is seen: the support of the law of times."""
        return self.time_law.support

    def default_model(self, schedule: Schedule, c: Condition) -> omega.LearnedModel:
        """The paper's network over the support, with the encoder that fits example conditions c."""
        return omega.default_network(schedule, c, self.support)

    def prepared(
        self, split: Split, num_draws: int, *, progress: bool = True
    ) -> tuple["OneStep", Split]:
        """The objective and the data for a training of num_draws examples: both as they are."""
        return self, split

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """The mean loss of the groups of a batch, and what to log.

        Args:
          key: source of times and noise.
          omega_fn: omega(s, t, c) or omega(s, t, c, features), with values (b,), or (b, k) for the
            k directions of the denoiser; what it closes over gets the gradient.
          denoiser: the frozen model.
          params: arrays of the denoiser; they get no gradient.
          batch: examples x0 (b, *dims), c (b, ...); or with a `group_size` groups x0 (g, n, *dims),
            c (g, n, ...).

        Returns:
          The loss, and ``distance`` (the loss without the reward), ``omega`` (the mean weight of
          the first direction, and "omega <name>" of further ones) and ``reward`` if there is one.

        Raises:
          ValueError: for a batch of another shape, or an omega of another number of directions.
        """
        x0, c = self.groups(batch)
        g, m = x0.shape[:2]
        member_c = conditions.flatten(c) if self.conditions_per_member else conditions.repeat(c, m)
        time_key, rows_key = jax.random.split(key)
        s, t = self.time_law.sample(time_key, g)
        rows, features = draw_rows(rows_key, denoiser, params, x0, member_c, t=t)
        names = diffusion.direction_names(denoiser)
        weights = member_weights(
            omega_fn,
            c,
            s=s,
            t=t,
            num_members=m,
            num_directions=len(names),
            per_member=self.conditions_per_member,
            features=features,
        )
        beta, lam, churn = self.energy
        forms = self.forms(rows, s=s, t=t, schedule=denoiser.schedule, churn=churn)
        loss = jnp.mean(self.losses(forms, weights, beta=beta, lam=lam))
        info = {"distance": loss} | _mean_weights(weights, names)
        if self.reward is None:
            return loss, info
        x0_hat = mixed_predictions(x0, rows, weights).reshape(g * m, *x0.shape[2:])
        reward = jnp.mean(self.reward(x0_hat, member_c))
        return loss - self.reward_weight * reward, info | {"reward": reward}


def _mean_weights(weights: Float[Array, "g m k"], names: tuple[str, ...]) -> Info:
    """The mean weight of every direction: "omega", and "omega <name>" of the further ones."""
    labels = ("omega", *(f"omega {name}" for name in names[1:]))
    means = jnp.mean(weights, axis=(0, 1))
    return {label: means[k] for k, label in enumerate(labels)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConsistency(OneStep):
    """An objective that compares laws after one guided step with an energy distance.

    Proposals x~_j are particles noised to t and taken to s by one guided step of the bridge kernel
    at ``churn``; targets x_k are particles noised to s directly (paper, Alg. 1)::

        mean_{j,k} |x~_j - x_k|^beta - lam/2 mean_{j != k} |x~_j - x~_k|^beta
    """

    beta: float = 1.75
    lam: float = 1.0
    churn: float = 1.0

    def __post_init__(self) -> None:
        check_energy(self.beta, self.lam, self.num_members, pairs=self.pairs)
        check_step(self.churn, self.coupling)

    @property
    def coupling(self) -> Coupling:
        """Whether proposals and targets have noises of their own or share them."""
        return "independent"

    @property
    def pairs(self) -> Pairs:
        """Which proposals meet which targets: none meets the one made of its own x0."""
        return "off_diagonal"

    @property
    def energy(self) -> Energy:
        """The settings that may be traced."""
        return Energy(self.beta, self.lam, self.churn)

    @property
    def frame(self) -> "OneStep":
        """The objective at fixed beta, lam and churn; the pairs it compares stay the same."""
        lam = 0.0 if self.pairs == "matched" else 1.0  # the one choice that depends on lam
        return dataclasses.replace(self, beta=1.0, lam=lam, churn=0.0)

    def forms(
        self,
        rows: Rows,
        *,
        s: Float[Array, " g"],
        t: Float[Array, " g"],
        schedule: Schedule,
        churn: Scalar,
    ) -> DistanceForms:
        """Squared distances of proposals and targets, as polynomials of omega.

        Args:
          rows: of the denoiser and of noise.
          s: times that the steps go to.
          t: times that they come from.
          schedule: the forward process.
          churn: of the step.
        """
        return step_forms(rows, s=s, t=t, schedule=schedule, churn=churn, coupling=self.coupling)

    def losses(
        self,
        forms: DistanceForms | SharedForms,
        omega: Float[Array, "g m k"] | Float[Array, " g"],
        *,
        beta: Scalar,
        lam: Scalar,
    ) -> Float[Array, " g"]:
        """The energy distance of every group, without the term of the targets alone."""
        return gram_loss(forms, omega, beta=beta, lam=lam, pairs=self.pairs)
