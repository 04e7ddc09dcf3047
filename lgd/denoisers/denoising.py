"""Training of a denoiser: its loss, the distribution of times, augmentations of images."""

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
    """Mean squared error ``E |output - target|^2`` of a network, with conditions dropped at random.

    The target is `scaled_target` in the denoiser's prediction kind. All randomness is a function of
    the key. Dropping conditions trains the unconditional prediction in the same network (Ho &
    Salimans, 2022, arXiv 2207.12598).

    Args:
      label_dropout: share of examples trained without their condition, in [0, 1).
      times: "uniform" on [0, 1), or "logit_normal", ``t = sigmoid(location + scale N(0, 1))``
        (Esser et al., 2024, arXiv 2403.03206, Eq. 19).
      times_location: location of "logit_normal"; above 0: more noise. With location 0 and scale 1
        half of all times lie in (0.34, 0.66).
      times_scale: scale of "logit_normal", above 0.
      flip: whether images (b, h, w, channels) are mirrored with probability 1/2; see `augmented`.
      shift: largest number of pixels that images (b, h, w, channels) are moved along each axis.

    Raises:
      ValueError: for a field outside its range.
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
        """Return the mean loss of a batch, over examples and entries.

        Args:
          key: for times, noise, dropped conditions and augmentations.
          denoiser: the denoiser that is trained.
          params: its parameters.
          x0: examples (b, *dims).
          c: their conditions, labels (b,) or vectors (b, e).
        """
        time_key, eps_key, drop_key, augment_key = jax.random.split(key, 4)
        x0 = augmented(augment_key, x0, flip=self.flip, shift=self.shift)
        t = self.draw_times(time_key, len(x0))
        eps = jax.random.normal(eps_key, x0.shape)
        x_t = noised(x0, eps, t=t, schedule=denoiser.schedule)
        dropped = jax.random.bernoulli(drop_key, self.label_dropout, (len(x0),))
        output = denoiser.output(params, x_t, t=t, c=_where(dropped, denoiser.null(c), c))
        target = scaled_target(x0, eps, t=t, schedule=denoiser.schedule, kind=denoiser.kind)
        return jnp.mean(jnp.square(output - target))

    def draw_times(self, key: PRNGKey, count: int) -> Float[Array, " b"]:
        """Return times (count,) in [0, 1]; both ends may occur, and the loss is finite there."""
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
    """Return the exact prediction of a kind, divided by `output_scale`, (b, *dims).

    It is computed from eps, not from x_t as in `diffusion.from_x0`, so it is exact at t = 0, where
    the latter divides by sigma = 0. The loss of "score" is therefore that of "eps", with the usual
    weight sigma^2.

    Args:
      x0: examples (b, *dims).
      eps: standard normal noise (b, *dims).
      t: times (b,) in [0, 1].
      schedule: the noise schedule.
      kind: what the network predicts, one of `diffusion.KINDS`.
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
    """Return images mirrored with probability 1/2 and moved by -shift to shift pixels a side.

    With flip = False and shift = 0 x is returned as it is, whatever its shape.

    Raises:
      ValueError: for x that is not (b, h, w, channels), if it is to be changed.
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
    """Return x with the images where ``which`` is true mirrored left to right."""
    return _where(which, x[:, :, ::-1], x)


def shifted(x: Float[Array, "b h w k"], by: Int[Array, "b 2"]) -> Float[Array, "b h w k"]:
    """Return images moved by (rows down, columns right); border pixels fill the gap."""
    rows, columns = (
        jnp.clip(jnp.arange(size)[None] - by[:, axis, None], 0, size - 1)
        for axis, size in enumerate(x.shape[1:3])
    )
    x = jnp.take_along_axis(x, rows[:, :, None, None], axis=1)
    return jnp.take_along_axis(x, columns[:, None, :, None], axis=2)


def _where(which: Bool[Array, " b"], x: Array, y: Array) -> Array:
    """Return examples of x where ``which`` is true, else of y."""
    return jnp.where(which.reshape(-1, *(1,) * (x.ndim - 1)), x, y)
