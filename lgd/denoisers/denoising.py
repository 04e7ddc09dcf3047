"""How a network learns to denoise: its loss, the law of times, augmentations."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lgd.denoisers.layers import Conditions, check_images
from lgd.denoisers.network import NetworkDenoiser, output_scale
from lgd.diffusion import Kind, expand, noised
from lgd.schedules import rates
from lgd.types import Params, PRNGKey, Schedule

Times = Literal["uniform", "logit_normal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisingLoss:
    """``E |output - target|^2``, in the denoiser's kind, with conditions dropped at random.

    The target is that of `scaled_target`. Everything random is a function of the key alone.

    label_dropout: share of examples trained without their condition, in [0, 1).
    times: "uniform" on [0, 1), or "logit_normal": t = sigmoid(location + scale N(0, 1)) (Esser et
      al., 2024); location 0, scale 1: half of all times in (0.34, 0.66); location > 0: more noise.
    flip: mirror images with probability 1/2; shift: move images by up to so many pixels each way.
      Both are for images (b, h, w, channels); see `augmented`.
    """

    label_dropout: float = 0.1
    times: Times = "uniform"
    times_location: float = 0.0
    times_scale: float = 1.0
    flip: bool = False
    shift: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_dropout < 1.0:
            raise ValueError(f"expected label_dropout in [0, 1), got {self.label_dropout}")
        if self.times not in get_args(Times):
            raise ValueError(f"expected times in {get_args(Times)}, got {self.times!r}")
        if not self.times_scale > 0.0:
            raise ValueError(f"expected times_scale > 0, got {self.times_scale}")
        if self.shift < 0:
            raise ValueError(f"expected shift >= 0, got {self.shift}")

    def __call__(
        self,
        key: PRNGKey,
        denoiser: NetworkDenoiser,
        params: Params,
        x0: Float[Array, "b *dims"],
        c: Conditions,
    ) -> Float[Array, ""]:
        """Mean loss of a batch."""
        time_key, eps_key, drop_key, augment_key = jax.random.split(key, 4)
        x0 = augmented(augment_key, x0, flip=self.flip, shift=self.shift)
        t = self.draw_times(time_key, len(x0))
        eps = jax.random.normal(eps_key, x0.shape)
        x_t = noised(x0, eps, t=t, schedule=denoiser.schedule)
        dropped = jax.random.bernoulli(drop_key, self.label_dropout, (len(x0),))
        output = denoiser.output(params, x_t, t=t, c=_chosen(dropped, denoiser.null(c), c))
        target = scaled_target(x0, eps, t=t, schedule=denoiser.schedule, kind=denoiser.kind)
        return jnp.mean(jnp.square(output - target))

    def draw_times(self, key: PRNGKey, count: int) -> Float[Array, " b"]:
        """Times of a batch, in [0, 1]; both ends may come, and are safe."""
        if self.times == "uniform":
            return jax.random.uniform(key, (count,))
        normal = jax.random.normal(key, (count,))
        return jax.nn.sigmoid(self.times_location + self.times_scale * normal)


def scaled_target(
    x0: Float[Array, "b *dims"],
    eps: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    schedule: Schedule,
    kind: Kind,
) -> Float[Array, "b *dims"]:
    """The prediction of a kind that means x0, over `output_scale`; x0 and eps in unit size.

    From eps itself rather than from x_t, as `from_x0` has to: exact at t = 0, where that divides by
    sigma = 0. So the loss of "score" is that of "eps", weighted by sigma^2 as usual.
    """
    if kind == "x0":
        return x0
    if kind == "eps":
        return eps
    if kind == "score":
        return -eps
    if kind == "v":
        on_x0, on_eps = -schedule.sigma(t), schedule.alpha(t)
    else:
        on_x0, on_eps = rates(schedule, t)
    scale = output_scale(t, schedule=schedule, kind=kind)
    return expand(on_x0 / scale, x0) * x0 + expand(on_eps / scale, x0) * eps


def augmented(
    key: PRNGKey, x: Float[Array, "b *dims"], *, flip: bool, shift: int
) -> Float[Array, "b *dims"]:
    """Images mirrored with probability 1/2 and moved by -shift to shift pixels along each axis.

    False and 0: x. Raises ValueError for what is not (b, h, w, channels).
    """
    if not flip and shift == 0:
        return x
    check_images(x.shape)
    flip_key, shift_key = jax.random.split(key)
    if flip:
        x = flipped(x, jax.random.bernoulli(flip_key, 0.5, (len(x),)))
    if shift > 0:
        x = shifted(x, jax.random.randint(shift_key, (len(x), 2), -shift, shift + 1))
    return x


def flipped(x: Float[Array, "b h w k"], which: Bool[Array, " b"]) -> Float[Array, "b h w k"]:
    """The images named, mirrored left to right."""
    return _chosen(which, x[:, :, ::-1], x)


def shifted(x: Float[Array, "b h w k"], by: Int[Array, "b 2"]) -> Float[Array, "b h w k"]:
    """Images moved down and right by so many pixels; what they leave repeats the border."""
    rows, columns = (
        jnp.clip(jnp.arange(size)[None] - by[:, axis, None], 0, size - 1)
        for axis, size in enumerate(x.shape[1:3])
    )
    x = jnp.take_along_axis(x, rows[:, :, None, None], axis=1)
    return jnp.take_along_axis(x, columns[:, None, :, None], axis=2)


def _chosen(which: Bool[Array, " b"], x: Array, y: Array) -> Array:
    """Examples of x where ``which``, else of y."""
    return jnp.where(which.reshape(-1, *(1,) * (x.ndim - 1)), x, y)
