"""Models for several directions, and models bound to their parameters."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.omega.network import Network
from lgd.omega.tables import BinTable, StepTable
from lgd.types import Condition, OmegaFn, OmegaModel, Params, PRNGKey

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


class Guidance(NamedTuple):
    """A learned guidance weight; ``omega_fn`` is what `guidance.on_grid` takes."""

    model: LearnedModel
    params: Params
    start: str  # the schedule that training started from

    @property
    def omega_fn(self) -> OmegaFn:
        """omega(s, t, c)."""
        return bind(self.model, self.params)
