"""Denoisers with a defect whose best guidance weight is known."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.diffusion import checked_denoiser, denoise_pair, expand
from lgd.machinery.arguments import finite, one_of
from lgd.types import Condition, Denoiser, Params, Schedule

Kind = Literal["along", "across", "path"]

_BIAS = 6.0  # of the last coordinate above the time, in units of the noise below it
_GATE = 3.0  # what counts as off the data, in the same units


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planted:
    """A denoiser of vectors (d,) with a planted defect of size delta.

    Objectives that learn guidance can be judged by it: the weight that mends most is known. With
    ``Delta = cond - uncond`` of the exact denoiser, of which uncond is kept where not said:

    along: ``cond - delta Delta``, as of a network that listens too little to its condition. The
    repair is exact, and omega is ``delta / (1 - delta)`` for all (s, t, c).

    across: ``R`` turns every pair of coordinates by a right angle, and ``delta R Delta`` is added
    to both halves. It is orthogonal to Delta, so that no weight mends it, and omega is 0.

    path: above the time ``until`` both halves are wrong in the last coordinate, in which classes
    must not differ and data must be narrow, by as much as real data never are. So the sampler
    leaves the data, and there, below that time, is the defect of ``along``. Real noised data show
    no defect; on the path omega is 0 above that time and ``delta / (1 - delta)`` below.

    Args:
      denoiser: an exact one, for example a `GaussianMixture`.
      delta: size of the defect, in [0, 1).
      kind: "along", "across" or "path".
      until: time of the kind path, in (0, 1).

    >>> import jax.numpy as jnp, lgd
    >>> exact = lgd.denoisers.GaussianMixture((0, 1), schedule=lgd.schedules.rectified_flow())
    >>> params = exact.params(jnp.array([[-2.0], [2.0]]), variances=1.0)
    >>> planted = lgd.denoisers.Planted(denoiser=exact, delta=0.5)
    >>> planted.best_omega(t=0.5)
    1.0
    >>> planted.apply(params, jnp.zeros((1, 1)), t=jnp.ones(1), c=jnp.array([1])).tolist()
    [[1.0]]
    """

    denoiser: Denoiser
    delta: float
    kind: Kind = "along"
    until: float = 0.5

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        checked_denoiser(self.denoiser)
        one_of("kind", self.kind, ("along", "across", "path"))
        if not finite("delta", self.delta, low=0.0) < 1.0:
            raise ValueError(f"delta: expected a number in [0, 1), got {self.delta:g}")
        if not 0.0 < finite("until", self.until) < 1.0:
            raise ValueError(f"until: expected a time in (0, 1), got {self.until:g}")

    @property
    def schedule(self) -> Schedule:
        """The forward process."""
        return self.denoiser.schedule

    def best_omega(self, t: float) -> float:
        """The weight that mends the defect of a step from t, along the path of the sampler."""
        if self.kind == "across" or (self.kind == "path" and t > self.until):
            return 0.0
        return self.delta / (1.0 - self.delta)

    def null(self, c: Condition) -> Condition:
        """The unconditional input of the exact denoiser."""
        return self.denoiser.null(c)

    def apply(
        self, params: Params, x_t: Float[Array, "b d"], *, t: Float[Array, " b"], c: Condition
    ) -> Float[Array, "b d"]:
        """The conditional half of `pair`."""
        return self.pair(params, x_t, t=t, c=c)[0]

    def pair(
        self, params: Params, x_t: Float[Array, "b d"], *, t: Float[Array, " b"], c: Condition
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """The conditional and the unconditional ``x0_hat`` with the defect."""
        cond, uncond = denoise_pair(self.denoiser, params, x_t, t=t, c=c)
        delta = cond - uncond
        if self.kind == "along":
            return cond - self.delta * delta, uncond
        if self.kind == "across":
            turned = self.delta * _turned(delta)
            return cond + turned, uncond + turned
        early = t > self.until
        sigma = self.schedule.sigma(t)
        is_off = ~early & (x_t[:, -1] > _GATE * sigma)
        cond = cond - expand(jnp.where(is_off, self.delta, 0.0), cond) * delta
        bias = jnp.where(early, self._bias, 0.0)
        return cond.at[:, -1].add(bias), uncond.at[:, -1].add(bias)

    @property
    def _bias(self) -> Float[Array, ""]:
        at = jnp.float32(self.until)
        return _BIAS * self.schedule.sigma(at) / self.schedule.alpha(at)


def _turned(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Every pair of coordinates turned by a right angle; an odd last one becomes 0."""
    pairs = x[:, : x.shape[1] // 2 * 2].reshape(len(x), -1, 2)
    turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(len(x), -1)
    return jnp.pad(turned, ((0, 0), (0, x.shape[1] - turned.shape[1])))
