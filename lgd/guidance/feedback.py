"""Feedback guidance (FBG; arXiv 2506.06085): the weight follows the posterior along the path."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.diffusion import denoise_pair, expand
from lgd.guidance.mixing import mix
from lgd.guidance.of_pair import B, OfPair, X, inner, like
from lgd.guidance.rules import rule
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, Scalar, Schedule, Step

_SMALLEST = 1e-30  # of 1 - pi inside a logarithm


class Feedback(NamedTuple):
    """log q, and of the last step cond - uncond and the middle of the two means that it had."""

    log_q: Any  # (b,)
    delta: Any  # (b, *dims)
    centre: Any  # (b, *dims), of x_s / alpha_s


@rule
class FeedbackGuidance(OfPair):
    """`Cfg` of ``omega + (1 - pi) / (q - (1 - pi))``, q an estimate of p(c | x_t) / p(c).

    It assumes that the network has learned ``pi p(x | c) + (1 - pi) p(x)``. In y = x / alpha, with
    tau = sigma / alpha and r = tau_s / tau_t, after the step from t to s ::

        mean_j = r^2 y_t + (1 - r^2) x0_hat_j      j: cond, uncond
        var = (tau_t^2 - tau_s^2) r^2
        log q += offset - temperature / (2 var) (|y_s - mean_cond|^2 - |y_s - mean_uncond|^2)

    from log q = 0, kept where the scale is at most ``largest`` and below ``highest``. At
    temperature 1 and offset 0 this is Bayes' rule on paths of churn 1; on others a heuristic.
    Solvers of two stages keep the q of the first.

    omega: added to it, as in `Cfg`; 0 in the paper, an interval in its hybrid. pi = 1: no guidance
    but omega. t0, t1: shares of the grid from the clean end, which stand for an offset of
    ``log(3 (1 - pi) / 2) / ((1 - t0) k)``, k steps, and a temperature of ``|2 var(t1) offset /
    10|``, var between the starts of steps. The paper has pi .999, t0 .556, t1 .429 for EDM2 and
    .85, .75, .5 for Stable Diffusion, largest 10 and highest 3.

    Raises:
      ValueError: for values out of range: pi in (0, 1]; with t0 and t1, which come together, in
        (1/3, 1).
    """

    omega: Any = 0.0
    pi: Scalar = 0.999
    temperature: Scalar = 1.0
    offset: Scalar = 0.0
    largest: Scalar = 10.0
    highest: Scalar = 3.0
    t0: Scalar | None = None
    t1: Scalar | None = None

    def _check(self) -> None:
        by_times = self.t0 is not None
        if by_times != (self.t1 is not None):
            raise ValueError("t0, t1: expected both of them or none, got one")
        low, high = (0.334, 1.0 - 1e-6) if by_times else (1e-6, 1.0)
        arguments.finite("pi", self.pi, low=low, high=high)
        arguments.finite("temperature", self.temperature, low=0.0)
        arguments.finite("offset", self.offset)
        arguments.finite("largest", self.largest, low=1.001)
        arguments.finite("highest", self.highest, low=0.0)
        if by_times:
            arguments.finite("t0", self.t0, low=0.0, high=0.999)
            arguments.finite("t1", self.t1, low=0.0, high=1.0)

    def _ready(self, denoiser: Denoiser, times: Float[Array, " n"]) -> Any:
        if self.t0 is None or self.t1 is None:
            return super()._ready(denoiser, times)
        count = len(times) - 1
        t0, t1, pi = like(times, self.t0, self.t1, self.pi)
        offset = jnp.log(1.5 * (1.0 - pi)) / ((1.0 - t0) * count)
        place = 1.0 - jnp.arange(count, dtype=times.dtype) / count  # of the starts of steps
        variance = _variance(times[1:], times[:-1], denoiser.schedule)
        temperature = jnp.abs(0.2 * offset * jnp.interp(t1, place[::-1], variance[::-1]))
        return dataclasses.replace(
            self, omega=None, temperature=temperature, offset=offset, t0=None, t1=None
        )

    def init(self, x: X, c: Condition) -> Feedback:
        """q = 1."""
        return Feedback(jnp.zeros(len(x), x.dtype), jnp.zeros_like(x), jnp.zeros_like(x))

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: Feedback,
        x_t: X,
        *,
        step: Step,
        t: B,
        c: Condition,
    ) -> tuple[Prediction, Feedback]:
        """The guided prediction at x_t, and what is known after it."""
        schedule = denoiser.schedule
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
        added = step.inputs.astype(x_t.dtype)
        is_later_stage = t != step.t
        updated = self._updated(state, x_t, t, schedule)
        log_q = jnp.where(step.is_first | is_later_stage, state.log_q, updated)
        (pi,) = like(x_t, self.pi)
        log_q = self._bounded(log_q, added)
        weight = added + (1.0 - pi) / (jnp.exp(log_q) - (1.0 - pi))
        delta, centre = cond - uncond, _centre(x_t, 0.5 * (cond + uncond), t, step, schedule)
        return Prediction(mix(cond, uncond, weight)), Feedback(log_q, delta, centre)

    def _updated(self, state: Feedback, x_t: X, t: B, schedule: Schedule) -> B:
        """log q after the step that led to x_t: the difference of the squares, multiplied out."""
        temperature, offset = like(x_t, self.temperature, self.offset)
        alpha = schedule.alpha(t)
        y = x_t / expand(jnp.where(alpha > 0.0, alpha, 1.0), x_t)
        moved = jnp.exp(schedule.logsnr(t)) * inner(state.delta, y - state.centre)
        return state.log_q + temperature * moved + offset

    def _bounded(self, log_q: B, added: B) -> B:
        pi, largest, highest = like(log_q, self.pi, self.largest, self.highest)
        largest = jnp.maximum(largest - added, 1.001)
        lowest = jnp.log(jnp.maximum(1.0 - pi, _SMALLEST) * largest / (largest - 1.0))
        return jnp.minimum(jnp.maximum(log_q, lowest), highest)


def _lost(s: B, t: B, schedule: Schedule) -> B:
    """``1 - r^2``."""
    return -jnp.expm1(schedule.logsnr(t) - schedule.logsnr(s))


def _variance(s: B, t: B, schedule: Schedule) -> B:
    """``(tau_t^2 - tau_s^2) r^2 = tau_s^2 (1 - r^2)``."""
    return jnp.exp(-schedule.logsnr(s)) * _lost(s, t, schedule)


def _centre(x_t: X, x0: X, t: B, step: Step, schedule: Schedule) -> X:
    """``r^2 x_t / alpha_t + (1 - r^2) x0``, also where alpha is 0."""
    s = jnp.full_like(t, step.s)
    ratio = jnp.exp(-schedule.logsnr(s)) * schedule.alpha(t) / schedule.sigma(t) ** 2
    return expand(ratio, x_t) * x_t + expand(_lost(s, t, schedule), x_t) * x0
