"""A model for each of several directions."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.guidance.weights import omega_function
from lgd.machinery.arguments import having
from lgd.omega.model import LearnedModel
from lgd.omega.support import Support
from lgd.types import Condition, OmegaFn, Params, PRNGKey

_EXPECTED = "models, for example lgd.omega.StepTable(times=(1.0, 0.5, 0.0))"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerDirection:
    """A model for each of several directions, tables and networks alike: omega (b, k).

    The first multiplies ``cond - uncond``, the others the further directions of a denoiser, see
    `lgd.diffusion.predictions`. Parameters are a tuple, one entry for each model.
    """

    models: tuple[LearnedModel, ...]

    def __post_init__(self) -> None:
        for model in self.models:
            having("models", model, ("num_features", "num_directions", "started"), _EXPECTED)
        numbers = {model.num_features for model in self.models} - {0}
        if len(numbers) > 1 or not self.models:
            raise ValueError(f"expected models that agree on num_features, got {self.models}")
        if any(model.num_directions != 1 for model in self.models):
            raise ValueError(f"expected models of one direction each, got {self.models}")

    @property
    def num_features(self) -> int:
        """Number of features of the models that take them; 0: none does."""
        return max(model.num_features for model in self.models)

    @property
    def num_directions(self) -> int:
        """Number of models."""
        return len(self.models)

    @property
    def support(self) -> Support:
        """Where (s, t) is seen in training: the support of the first model."""
        return self.models[0].support

    @property
    def default_num_steps(self) -> int:
        """Steps of a training: as many as the slowest model needs."""
        return max(model.default_num_steps for model in self.models)

    @property
    def default_learning_rate(self) -> float:
        """The learning rate that all models bear."""
        return min(model.default_learning_rate for model in self.models)

    def init(self, key: PRNGKey, c: Condition) -> Params:
        """Parameters of every model."""
        pairs = zip(self.models, self._keys(key), strict=True)
        return tuple(model.init(model_key, c) for model, model_key in pairs)

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
        omegas = []
        for model, model_params in zip(self.models, params, strict=True):
            extra = {"features": features} if model.num_features else {}
            omegas.append(model.apply(model_params, s=s, t=t, c=c, **extra))
        return jnp.stack(omegas, axis=-1)

    def project(self, params: Params) -> Params:
        """Every entry projected by its model."""
        pairs = zip(self.models, params, strict=True)
        return tuple(model.project(model_params) for model, model_params in pairs)

    def started(
        self, key: PRNGKey, omega_fn: OmegaFn, c: Condition
    ) -> tuple["PerDirection", Params]:
        """Every model started from its direction of a schedule.

        A schedule (b,) is one of the first direction; the others start from 0.
        """
        models, params, omega_fn = [], [], omega_function(omega_fn)
        for k, (model, model_key) in enumerate(zip(self.models, self._keys(key), strict=True)):
            model, model_params = model.started(model_key, _Direction(omega_fn, k), c)
            models.append(model)
            params.append(model_params)
        return PerDirection(models=tuple(models)), tuple(params)

    def tabulated(self) -> "PerDirection | None":
        """The tables of all models; None where one has none."""
        tables = [model.tabulated() for model in self.models]
        known = tuple(table for table in tables if table is not None)
        return PerDirection(models=known) if len(known) == len(tables) else None

    def start_candidates(self, named: Mapping[str, OmegaFn]) -> Mapping[str, OmegaFn]:
        """The schedules that all models can start from."""
        for model in self.models:
            named = model.start_candidates(named)
        return named

    def thin(self) -> "PerDirection":
        """All models without their width."""
        return PerDirection(models=tuple(model.thin() for model in self.models))

    def wider(self, other: "PerDirection") -> "PerDirection":
        """The wider one of every pair of models."""
        pairs = zip(self.models, other.models, strict=True)
        return PerDirection(models=tuple(model.wider(another) for model, another in pairs))

    def _keys(self, key: PRNGKey) -> PRNGKey:
        return jax.random.split(key, len(self.models))


def repeated(model: LearnedModel, number: int) -> LearnedModel:
    """A model of one direction for each of ``number`` directions; itself where there is one."""
    return model if number == 1 else PerDirection(models=(model,) * number)


@dataclasses.dataclass(frozen=True)
class _Direction:
    """The weight of one direction of a schedule (b,) or (b, k)."""

    whole: OmegaFn
    index: int
    num_features = 0

    def __call__(
        self, *, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition
    ) -> Float[Array, " b"]:
        omega = self.whole(s=s, t=t, c=c)
        if omega.ndim > 1:
            return omega[:, self.index]
        return omega if self.index == 0 else jnp.zeros_like(omega)
