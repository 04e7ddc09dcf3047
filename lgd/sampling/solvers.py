"""Solvers: one step of a sampler each, as pairs of pure functions (`lgd.types.Solver`).

A solver is given ``predict(x_t, t, rule_state) -> (Prediction, rule_state)``. A rule advances once
a step, at the first stage of the solver; the state after further stages is dropped.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd.diffusion import bridge_coefficients, bridge_mean, bridge_step, expand, from_x0
from lgd.machinery.arguments import wrong
from lgd.types import Predict, Prediction, PyTree, Schedule, Solver, Step

X = Float[Array, "b *dims"]


@dataclasses.dataclass(frozen=True)
class Ddim:
    """Churned DDIM (paper, Eq. 2): one draw of the bridge kernel. Euler, for rectified flow.

    Where a prediction has an eps of its own, the kernel is asked with ``alpha_t x0 + sigma_t eps``
    in the place of x_t, so that noise is put back by it.
    """

    @property
    def takes_churn(self) -> bool:
        """True: DDIM draws noise at churn > 0."""
        return True

    def calls(self, num_steps: int) -> Int[np.ndarray, " k"]:
        """One prediction a step."""
        return np.ones(num_steps, np.int64)

    def init(self, x: X) -> None:
        """No memory."""

    def step(
        self,
        schedule: Schedule,
        predict: Predict,
        rule_state: PyTree,
        x: X,
        memory: None,
        step: Step,
    ) -> tuple[X, PyTree, None]:
        """x at step.s."""
        t, s = jnp.full(len(x), step.t), jnp.full(len(x), step.s)
        prediction, rule_state = predict(x, t, rule_state)
        if prediction.eps is not None:
            alpha, sigma = (
                expand(f(t).astype(x.dtype), x) for f in (schedule.alpha, schedule.sigma)
            )
            x = alpha * prediction.x0 + sigma * prediction.eps
        if step.churn is None:
            scale = bridge_coefficients(t, s, schedule=schedule, churn=jnp.zeros(()))
            moved = bridge_mean(scale, x, prediction.x0)
        else:
            moved = bridge_step(
                step.key, x, prediction.x0, t=t, s=s, schedule=schedule, churn=step.churn
            )
        return _ending(step, moved, prediction.x0), rule_state, None


@dataclasses.dataclass(frozen=True)
class Heun:
    """Heun's method in t on ``dx/dt = alpha' x0_hat + sigma' eps_hat``, predicted by DDIM.

    The last step of the grid is that of DDIM. For rectified flow this is the textbook method; cf.
    Karras et al. (2022), Alg. 1.
    """

    @property
    def takes_churn(self) -> bool:
        """False: this solver is deterministic."""
        return False

    def calls(self, num_steps: int) -> Int[np.ndarray, " k"]:
        """Two predictions a step, one at the last."""
        return np.append(np.full(num_steps - 1, 2), 1)

    def init(self, x: X) -> None:
        """No memory."""

    def step(
        self,
        schedule: Schedule,
        predict: Predict,
        rule_state: PyTree,
        x: X,
        memory: None,
        step: Step,
    ) -> tuple[X, PyTree, None]:
        """x at step.s."""
        t, s = jnp.full(len(x), step.t), jnp.full(len(x), step.s)
        prediction, rule_state = predict(x, t, rule_state)
        estimate = _x0_only(prediction, self)
        scale = bridge_coefficients(t, s, schedule=schedule, churn=jnp.zeros(()))
        predicted = _ending(step, bridge_mean(scale, x, estimate), estimate)

        def corrected() -> X:
            drift = functools.partial(from_x0, schedule=schedule, kind="velocity")
            second = predict(predicted, s, rule_state)[0].x0
            slopes = drift(estimate, x, t=t) + drift(second, predicted, t=s)
            return x + 0.5 * (step.s - step.t) * slopes

        return jax.lax.cond(step.is_last, lambda: predicted, corrected), rule_state, None


@dataclasses.dataclass(frozen=True)
class HeunEdm:
    """Heun's method in ``r = sigma / alpha`` on ``d(x / alpha)/dr = eps_hat``, predicted by DDIM.

    The last step of the grid is that of DDIM. The method of EDM (Karras et al., 2022, Alg. 1) and
    of diffusers' Heun, for any schedule. A step from alpha = 0 is that of DDIM too.
    """

    @property
    def takes_churn(self) -> bool:
        """False: this solver is deterministic."""
        return False

    def calls(self, num_steps: int) -> Int[np.ndarray, " k"]:
        """Two predictions a step, one at the last."""
        return np.append(np.full(num_steps - 1, 2), 1)

    def init(self, x: X) -> None:
        """No memory."""

    def step(
        self,
        schedule: Schedule,
        predict: Predict,
        rule_state: PyTree,
        x: X,
        memory: None,
        step: Step,
    ) -> tuple[X, PyTree, None]:
        """x at step.s."""
        t, s = jnp.full(len(x), step.t), jnp.full(len(x), step.s)
        prediction, rule_state = predict(x, t, rule_state)
        estimate = _x0_only(prediction, self)
        scale = bridge_coefficients(t, s, schedule=schedule, churn=jnp.zeros(()))
        predicted = _ending(step, bridge_mean(scale, x, estimate), estimate)

        def corrected() -> X:
            noise = functools.partial(from_x0, schedule=schedule, kind="eps")
            second = predict(predicted, s, rule_state)[0].x0
            slope = 0.5 * (noise(estimate, x, t=t) + noise(second, predicted, t=s))
            alpha = schedule.alpha(step.t)
            shrink = schedule.alpha(step.s) / jnp.where(alpha > 0.0, alpha, 1.0)
            change = (schedule.sigma(step.s) - shrink * schedule.sigma(step.t)) * slope
            return jnp.where(alpha > 0.0, shrink * x + change, predicted)

        return jax.lax.cond(step.is_last, lambda: predicted, corrected), rule_state, None


class _Previous(NamedTuple):
    """What the multistep solver remembers: the last x0_hat and its ``logsnr / 2``."""

    estimate: X
    half_logsnr: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class DpmSolver2M:
    """DPM-Solver++(2M) (Lu et al., 2022, Alg. 2): DDIM with x0_hat extrapolated in logsnr.

    First order at both ends of the grid. Steps of infinite logsnr (t = 1 or s = 0) are first order
    by themselves, and so is the one after.
    """

    @property
    def takes_churn(self) -> bool:
        """False: this solver is deterministic."""
        return False

    def calls(self, num_steps: int) -> Int[np.ndarray, " k"]:
        """One prediction a step."""
        return np.ones(num_steps, np.int64)

    def init(self, x: X) -> _Previous:
        """Nothing seen yet."""
        return _Previous(jnp.zeros_like(x), jnp.zeros((), x.dtype))

    def step(
        self,
        schedule: Schedule,
        predict: Predict,
        rule_state: PyTree,
        x: X,
        memory: _Previous,
        step: Step,
    ) -> tuple[X, PyTree, _Previous]:
        """x at step.s."""
        t, s = jnp.full(len(x), step.t), jnp.full(len(x), step.s)
        prediction, rule_state = predict(x, t, rule_state)
        estimate = _x0_only(prediction, self)
        now, then = (0.5 * schedule.logsnr(u) for u in (step.t, step.s))
        at_end = step.is_first | step.is_last
        weight = jnp.where(at_end, 0.0, 0.5 * (then - now) / (now - memory.half_logsnr))
        extrapolated = estimate + weight.astype(x.dtype) * (estimate - memory.estimate)
        scale = bridge_coefficients(t, s, schedule=schedule, churn=jnp.zeros(()))
        moved = bridge_mean(scale, x, extrapolated)
        return _ending(step, moved, estimate), rule_state, _Previous(estimate, now)


SOLVERS: dict[str, Solver] = {
    "ddim": Ddim(),
    "heun": Heun(),
    "heun_edm": HeunEdm(),
    "dpmpp_2m": DpmSolver2M(),
}


def solver_of(solver: Any) -> Solver:
    """A solver by its name in `SOLVERS`, or one of your own. Raises ValueError."""
    if isinstance(solver, str) and solver in SOLVERS:
        return SOLVERS[solver]
    if isinstance(solver, str | type) or not isinstance(solver, Solver):
        raise wrong("solver", f"solver in {tuple(SOLVERS)} or a Solver", solver)
    return solver


def _x0_only(prediction: Prediction, solver: Solver) -> X:
    if prediction.eps is not None:
        raise ValueError(f"expected a rule without an eps of its own for {solver}, got one")
    return prediction.x0


def _ending(step: Step, moved: X, estimate: X) -> X:
    """Data time 0 is reached by returning x0_hat, also where sigma(0) > 0 (EDM)."""
    return jnp.where(step.s == 0.0, estimate, moved)
