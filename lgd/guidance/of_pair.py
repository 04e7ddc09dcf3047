"""What rules of one weight share: the weight, the pair of predictions, and the space they act in.

A rule of a paper derives from the class whose formula it fills in: `Weighted`, a weight that looks
at the predictions; `Combined`, a point of the plane of cond and uncond; or `OfPair` itself.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.diffusion import KINDS, Kind, denoise_pair, expand, from_x0, latest_time, to_x0
from lgd.encoders import at_least_float32
from lgd.guidance.mixing import mix
from lgd.guidance.rules import Cfg, rule
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, PyTree, Rule, Scalar, Step

X = Float[Array, "b *dims"]
B = Float[Array, " b"]


@rule
class OfPair:
    """A rule of one weight for each sample, known before sampling, and two predictions a call.

    omega: as in `Cfg`, of one direction; None in a prepared rule, whose steps hold it.
    """

    omega: Any

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        if self.omega is not None:
            Cfg(self.omega)
        self._check()

    def _check(self) -> None:
        """Raise ValueError for fields of its own out of range."""

    def calls(self, num_directions: int) -> int:
        """Two network rows for each sample and call."""
        return 2

    def prepare(
        self, denoiser: Denoiser, times: Float[Array, " n"], c: Condition
    ) -> tuple[Rule, PyTree]:
        """The rule without its weights, and these for every step."""
        _, omegas = Cfg(self.omega).prepare(denoiser, times, c)
        if omegas is None or omegas.ndim != 2:
            name = type(self).__name__
            raise ValueError(f"expected omega of (s, t, c), (b,), for {name}, got another")
        return self._ready(denoiser, times), omegas

    def _ready(self, denoiser: Denoiser, times: Float[Array, " n"]) -> Any:
        """The rule as it walks over a grid of times."""
        return dataclasses.replace(self, omega=None)

    def init(self, x: X, c: Condition) -> PyTree:
        """No state."""

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: PyTree,
        x_t: X,
        *,
        step: Step,
        t: B,
        c: Condition,
    ) -> tuple[Prediction, PyTree]:
        """The guided prediction at x_t, and the state after it."""
        raise NotImplementedError


@rule
class InSpace(OfPair):
    """A rule in the space of one kind of prediction, P, of which x0-predictions are another.

    kind: one of `diffusion.KINDS`; None: what the denoiser says that it predicts, its ``kind``, and
    x0 where it says nothing.
    """

    kind: Kind | None = dataclasses.field(default=None, kw_only=True)
    _moves_predictions = False  # P by more than a multiple of P_c - P_u, and so back to x0

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range, or another kind."""
        if self.kind is not None:
            arguments.one_of("kind", self.kind, KINDS)
        super().__post_init__()

    def _ready(self, denoiser: Denoiser, times: Float[Array, " n"]) -> Any:
        kind: Any = getattr(denoiser, "kind", "x0") if self.kind is None else self.kind
        if self._moves_predictions:
            check_means_x0(kind, denoiser, times)
        return dataclasses.replace(self, omega=None, kind=kind)

    def _own(self, denoiser: Denoiser, x_t: X, t: B, *x0: X) -> tuple[X, ...]:
        """x0-predictions at x_t as predictions of the kind."""
        assert self.kind is not None
        space: dict[str, Any] = {"t": t, "schedule": denoiser.schedule, "kind": self.kind}
        return tuple(from_x0(each, x_t, **space) for each in x0)

    def _origin(self, denoiser: Denoiser, x_t: X, t: B) -> X:
        """The x0 that a prediction of 0 means."""
        assert self.kind is not None
        zero = jnp.zeros_like(x_t)
        return to_x0(zero, x_t, t=t, schedule=denoiser.schedule, kind=self.kind)

    def _shift(self, denoiser: Denoiser, moved: X, x_t: X, t: B) -> X:
        """The move of x0 that a move of P means: the kinds are affine in one another."""
        assert self.kind is not None
        zero = jnp.zeros_like(x_t)
        return to_x0(moved, zero, t=t, schedule=denoiser.schedule, kind=self.kind)


@rule
class Weighted(InSpace):
    """``x0_hat = cond + w (cond - uncond)``, with w of omega, P_c and P_u: `weight`."""

    def weight(self, cond: X, uncond: X, omega: B) -> B:
        """w (b,), of predictions of the kind."""
        raise NotImplementedError

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: None,
        x_t: X,
        *,
        step: Step,
        t: B,
        c: Condition,
    ) -> tuple[Prediction, None]:
        """The guided prediction at x_t."""
        pair = denoise_pair(denoiser, params, x_t, t=t, c=c)
        own_cond, own_uncond = self._own(denoiser, x_t, t, *pair)
        weight = self.weight(own_cond, own_uncond, step.inputs.astype(x_t.dtype))
        return Prediction(mix(*pair, weight)), None


@rule
class Combined(InSpace):
    """``P = P_c + a (P_c - P_u) + b P_u``, with a and b of omega, P_c and P_u: `coefficients`.

    In x0: ``x0_hat = cond + a (cond - uncond) + b (uncond - origin)``, origin the x0 that P = 0
    means. Raises ValueError for a grid that starts where it means none.
    """

    _moves_predictions = True

    def coefficients(self, cond: X, uncond: X, omega: B) -> tuple[B, B]:
        """(a, b), each (b,), of predictions of the kind."""
        raise NotImplementedError

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: None,
        x_t: X,
        *,
        step: Step,
        t: B,
        c: Condition,
    ) -> tuple[Prediction, None]:
        """The guided prediction at x_t."""
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
        own_cond, own_uncond = self._own(denoiser, x_t, t, cond, uncond)
        a, b = self.coefficients(own_cond, own_uncond, step.inputs.astype(x_t.dtype))
        further = expand(b, x_t) * (uncond - self._origin(denoiser, x_t, t))
        return Prediction(cond + expand(a, x_t) * (cond - uncond) + further), None


def check_means_x0(kind: Kind, denoiser: Denoiser, times: Float[Array, " n"]) -> None:
    """Raise ValueError for times, not traced, that start where P of a kind means no x0."""
    latest = latest_time(denoiser.schedule, kind)
    if not isinstance(times, jax.core.Tracer) and float(times[0]) > latest:
        raise ValueError(
            f"times: expected a first time <= {latest:g} for a rule on predictions of {kind}, "
            f"which mean no x0 where alpha is nearly 0, got {float(times[0]):g}"
        )


def inner(x: X, y: X) -> B:
    """Inner products over all axes but the first, in float32 or wider, in the dtype of x."""
    flat = [at_least_float32(v.reshape(len(v), -1)) for v in (x, y)]
    return jnp.sum(flat[0] * flat[1], axis=-1).astype(x.dtype)


def size(x: X) -> B:
    """Norms over all axes but the first, at least 1e-12, so that gradients are finite at 0."""
    return jnp.sqrt(jnp.maximum(inner(x, x), 1e-24))


def share(x: X, y: X) -> B:
    """``<x, y> / |y|^2``: how much of y is in x; 0 where y = 0."""
    return inner(x, y) / jnp.maximum(inner(y, y), 1e-24)


def like(x: X, *values: Scalar) -> tuple[Array, ...]:
    """Numbers of a rule in the dtype of x."""
    return tuple(jnp.asarray(value, x.dtype) for value in values)
