"""A trained network as a denoiser: what it is given, what its output means, its null input."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.denoisers.layers import Conditions
from lgd.diffusion import KINDS, Kind, expand, to_x0
from lgd.schedules import clipped_logsnr, rates
from lgd.types import Params, PRNGKey, Schedule

_SMALLEST_SCALE = 1e-6  # floor of what a scale divides by


@dataclasses.dataclass(frozen=True)
class NetworkDenoiser:
    """A Flax module ``(x, logsnr, c) -> output`` behind the contract ``-> x0_hat``.

    The module sees x_t scaled to unit size, ``x_t / sqrt(alpha^2 + sigma^2)``, the clipped logsnr
    of t, and c. Its output times `output_scale` is a prediction of ``kind``.

    num_classes: c are labels below it, (b,), and it is the unconditional input; None: c are vectors
    (b, e), and zeros are the unconditional input. A vector that is a condition is never all zeros.
    """

    module: nn.Module
    schedule: Schedule
    num_classes: int | None
    kind: Kind = "velocity"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"expected kind in {KINDS}, got {self.kind!r}")

    def init(self, key: PRNGKey, shape: tuple[int, ...], c: Conditions | None = None) -> Params:
        """Parameters for samples of the given shape; c (1, e): a vector like those to come."""
        if c is None and self.num_classes is None:
            raise ValueError("expected c, a vector (1, e) like the conditions to come, got None")
        c = jnp.zeros(1, jnp.int32) if c is None else c
        return self.module.init(key, jnp.zeros((1, *shape)), jnp.zeros(1), c)

    def output(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Conditions
    ) -> Float[Array, "b *dims"]:
        """What the module returns: a prediction of ``kind`` in units of `output_scale`."""
        size = jnp.sqrt(self.schedule.alpha(t) ** 2 + self.schedule.sigma(t) ** 2)
        logsnr = clipped_logsnr(self.schedule, t)
        return self.module.apply(params, x_t / expand(size, x_t), logsnr, c)  # type: ignore[return-value]

    def apply(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Conditions
    ) -> Float[Array, "b *dims"]:
        """``x0_hat``, shape of x_t."""
        scale = output_scale(t, schedule=self.schedule, kind=self.kind)
        prediction = expand(scale, x_t) * self.output(params, x_t, t=t, c=c)
        return to_x0(prediction, x_t, t=t, schedule=self.schedule, kind=self.kind)

    def null(self, c: Conditions) -> Conditions:
        """The label num_classes, or zeros for vectors."""
        return jnp.full_like(c, 0 if self.num_classes is None else self.num_classes)


def output_scale(t: Float[Array, " b"], *, schedule: Schedule, kind: Kind) -> Float[Array, " b"]:
    """Size of a prediction for data and noise of unit size, so that outputs have unit size too.

    ``x0, eps: 1; v: sqrt(alpha^2 + sigma^2); velocity: sqrt((alpha'^2 + sigma'^2) / 2); score:
    1 / sigma``. With `v` on the EDM schedule this is the preconditioning of Karras et al. (2022),
    Table 1, with sigma_data = 1 and the output's sign changed. On rectified flow a velocity's is 1.
    """
    if kind == "v":
        return jnp.sqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
    if kind == "velocity":
        alpha_rate, sigma_rate = rates(schedule, t)
        return jnp.maximum(jnp.sqrt(0.5 * (alpha_rate**2 + sigma_rate**2)), _SMALLEST_SCALE)
    if kind == "score":
        return 1.0 / jnp.maximum(schedule.sigma(t), _SMALLEST_SCALE)
    return jnp.ones_like(t)
