"""A network as a denoiser: its inputs, the meaning of its output, its unconditional input."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd.denoisers.layers import Conditions
from lgd.diffusion import KINDS, Kind, checked_schedule, expand, latest_time, to_x0
from lgd.machinery.arguments import one_of, positive_int
from lgd.schedules import clipped_logsnr, rates
from lgd.types import Params, PRNGKey, Schedule

_SMALLEST_SCALE = 1e-6  # floor of what a scale divides by


@dataclasses.dataclass(frozen=True)
class NetworkDenoiser:
    """Denoiser made of a Flax module ``(x, logsnr, c) -> output``.

    The module takes x_t at unit scale, ``x_t / sqrt(alpha^2 + sigma^2)``, the clipped logsnr of t,
    and c. Its output times `output_scale` is a prediction of ``kind``, from which x0_hat follows.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from lgd import denoisers, schedules
    >>> module = denoisers.ResidualMLP(num_classes=10, width=8, depth=1)
    >>> denoiser = denoisers.NetworkDenoiser(module, schedules.rectified_flow(), num_classes=10)
    >>> c = jnp.array([3, 5])
    >>> denoiser.null(c).tolist()  # the unconditional input
    [10, 10]
    >>> key, x_t, t = jax.random.key(0), jnp.zeros((2, 28, 28, 1)), jnp.full(2, 0.5)
    >>> def x0_hat(key, x_t, t, c):
    ...     return denoiser.apply(denoiser.init(key, x_t.shape[1:]), x_t, t=t, c=c)
    >>> jax.eval_shape(x0_hat, key, x_t, t, c).shape  # shapes alone, without computation
    (2, 28, 28, 1)

    Args:
      module: the network, with shapes as in `ResidualMLP`, `UNet` or `DiT`.
      schedule: the noise schedule it is trained on.
      num_classes: number of labels; conditions are labels (b,) below it, and num_classes is the
        unconditional input. None: conditions are vectors (b, e), never all zeros, and zeros are
        the unconditional input.
      kind: what the module predicts, one of `diffusion.KINDS`.

    Raises:
      ValueError: for another kind.
    """

    module: nn.Module
    schedule: Schedule
    num_classes: int | None
    kind: Kind = "velocity"

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        object.__setattr__(self, "schedule", checked_schedule(self.schedule))
        if self.num_classes is not None:
            positive_int("num_classes", self.num_classes)

    def init(self, key: PRNGKey, shape: tuple[int, ...], c: Conditions | None = None) -> Params:
        """Return new parameters for examples of a shape (*dims).

        Args:
          key: for the draws of the parameters.
          shape: shape of one example.
          c: an example condition (1, e), needed if conditions are vectors.

        Raises:
          ValueError: without c where conditions are vectors.
        """
        if c is None and self.num_classes is None:
            raise ValueError("expected c, a vector (1, e) like the conditions to come, got None")
        c = jnp.zeros(1, jnp.int32) if c is None else c
        return self.module.init(key, jnp.zeros((1, *shape)), jnp.zeros(1), c)

    def output(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Conditions
    ) -> Float[Array, "b *dims"]:
        """Return the output of the module: a prediction of ``kind`` divided by `output_scale`."""
        size = jnp.sqrt(self.schedule.alpha(t) ** 2 + self.schedule.sigma(t) ** 2)
        logsnr = clipped_logsnr(self.schedule, t)
        return self.module.apply(params, x_t / expand(size, x_t), logsnr, c)  # type: ignore[return-value]

    @property
    def t_max(self) -> float:
        """The latest time at which x0 follows from the output, see `diffusion.latest_time`."""
        return latest_time(self.schedule, self.kind)

    def prediction(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Conditions
    ) -> Float[Array, "b *dims"]:
        """Return the prediction of ``kind``, of the shape of x_t."""
        scale = output_scale(t, schedule=self.schedule, kind=self.kind)
        return expand(scale, x_t) * self.output(params, x_t, t=t, c=c)

    def apply(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Conditions
    ) -> Float[Array, "b *dims"]:
        """Return x0_hat, of the shape of x_t."""
        prediction = self.prediction(params, x_t, t=t, c=c)
        return to_x0(prediction, x_t, t=t, schedule=self.schedule, kind=self.kind)

    def null(self, c: Conditions) -> Conditions:
        """Return the unconditional input: labels num_classes, or zeros where c are vectors."""
        if self.num_classes is None:
            return jnp.zeros_like(c)
        return unconditional_labels(c, self.num_classes)


def unconditional_labels(c: Int[Array, " b"], label: int) -> Int[Array, " b"]:
    """Return the label for every one of c. Raises ValueError where their dtype cannot hold it."""
    if not jnp.issubdtype(c.dtype, jnp.integer) or label > jnp.iinfo(c.dtype).max:
        raise ValueError(f"c: expected integers that hold the null label {label}, got {c.dtype}")
    return jnp.full_like(c, label)


def output_scale(t: Float[Array, " b"], *, schedule: Schedule, kind: Kind) -> Float[Array, " b"]:
    """Return the scale (b,) of predictions of a kind when data and noise have unit scale.

    ``x0, eps: 1; v: sqrt(alpha^2 + sigma^2); velocity: sqrt((alpha'^2 + sigma'^2) / 2); score:
    1 / sigma``. Networks predict in units of it, so that their outputs have unit scale. With "v" on
    the EDM schedule this is the preconditioning of Karras et al. (2022, arXiv 2206.00364, Table 1)
    with sigma_data = 1 and the opposite sign of the output. A velocity of rectified flow has
    scale 1.
    """
    if kind == "v":
        return jnp.sqrt(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
    if kind == "velocity":
        alpha_rate, sigma_rate = rates(schedule, t)
        return jnp.maximum(jnp.sqrt(0.5 * (alpha_rate**2 + sigma_rate**2)), _SMALLEST_SCALE)
    if kind == "score":
        return 1.0 / jnp.maximum(schedule.sigma(t), _SMALLEST_SCALE)
    return jnp.ones_like(t)
