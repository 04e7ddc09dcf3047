"""A trained network as a denoiser: conversions, dropout of labels, and its training loss."""

import dataclasses
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd.diffusion import Kind, expand, from_x0, noised, to_x0
from lgd.schedules import clipped_logsnr
from lgd.types import Params, PRNGKey, Schedule

Times = Literal["uniform", "logit_normal"]


@dataclasses.dataclass(frozen=True)
class NetworkDenoiser:
    """A Flax module ``(x, logsnr, labels) -> prediction`` behind the contract ``-> x0_hat``.

    The module sees x_t scaled to unit size, ``x_t / sqrt(alpha^2 + sigma^2)``, the clipped logsnr
    of t, and labels up to num_classes, which is the unconditional input.
    """

    module: nn.Module
    schedule: Schedule
    num_classes: int
    kind: Kind = "velocity"

    def init(self, key: PRNGKey, shape: tuple[int, ...]) -> Params:
        """Parameters for samples of the given shape."""
        x = jnp.zeros((1, *shape))
        return self.module.init(key, x, jnp.zeros(1), jnp.zeros(1, jnp.int32))

    def predict(
        self,
        params: Params,
        x_t: Float[Array, "b *dims"],
        *,
        t: Float[Array, " b"],
        c: Int[Array, " b"],
    ) -> Float[Array, "b *dims"]:
        """The network's own prediction, of kind ``self.kind``."""
        size = jnp.sqrt(self.schedule.alpha(t) ** 2 + self.schedule.sigma(t) ** 2)
        logsnr = clipped_logsnr(self.schedule, t)
        return self.module.apply(params, x_t / expand(size, x_t), logsnr, c)  # type: ignore[return-value]

    def apply(
        self,
        params: Params,
        x_t: Float[Array, "b *dims"],
        *,
        t: Float[Array, " b"],
        c: Int[Array, " b"],
    ) -> Float[Array, "b *dims"]:
        """``x0_hat``, shape of x_t."""
        prediction = self.predict(params, x_t, t=t, c=c)
        return to_x0(prediction, x_t, t=t, schedule=self.schedule, kind=self.kind)

    def null(self, c: Int[Array, " b"]) -> Int[Array, " b"]:
        """The label num_classes."""
        return jnp.full_like(c, self.num_classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisingLoss:
    """``E |prediction - target|^2``, in the denoiser's own kind, with labels dropped at random.

    times: "uniform" on [0, 1], or "logit_normal" (t = sigmoid(N(0, 1)), Esser et al., 2024).
    label_dropout: share of examples trained without their label, in [0, 1).
    """

    label_dropout: float = 0.1
    times: Times = "uniform"

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_dropout < 1.0:
            raise ValueError(f"expected label_dropout in [0, 1), got {self.label_dropout}")
        if self.times not in get_args(Times):
            raise ValueError(f"expected times in {get_args(Times)}, got {self.times!r}")

    def __call__(
        self,
        key: PRNGKey,
        denoiser: NetworkDenoiser,
        params: Params,
        x0: Float[Array, "b *dims"],
        c: Int[Array, " b"],
    ) -> Float[Array, ""]:
        """Mean loss of a batch."""
        time_key, eps_key, drop_key = jax.random.split(key, 3)
        t = jax.random.uniform(time_key, (len(x0),))
        if self.times == "logit_normal":
            t = jax.nn.sigmoid(jax.random.normal(time_key, (len(x0),)))
        eps = jax.random.normal(eps_key, x0.shape)
        x_t = noised(x0, eps, t=t, schedule=denoiser.schedule)
        dropped = jax.random.bernoulli(drop_key, self.label_dropout, (len(x0),))
        prediction = denoiser.predict(params, x_t, t=t, c=jnp.where(dropped, denoiser.null(c), c))
        target = from_x0(x0, x_t, t=t, schedule=denoiser.schedule, kind=denoiser.kind)
        return jnp.mean(jnp.square(prediction - target))
