"""Guided sampling: a state, one pure step, and the scan that walks a grid of times.

`Walk.init` and `Walk.step` are the pair that everything is made of: `sample` is a scan of steps
from noise, jitted once for all weights and times; `unroll` is the same scan from any start,
differentiable in the rule and in the start, where each step is rematerialised, so that memory grows
by the stored states only; samplers of tilted laws are loops of their own over `Walk.step`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lgd import conditions
from lgd.diffusion import check_start
from lgd.encoders import at_least_float32
from lgd.guidance.rules import as_rule
from lgd.guidance.times import checked_times
from lgd.machinery import arguments
from lgd.sampling.arguments import (
    alike,
    check_denoiser,
    check_key,
    checked_prediction,
    checked_start,
)
from lgd.sampling.solvers import solver_of
from lgd.types import (
    Condition,
    Denoiser,
    Params,
    Prediction,
    PRNGKey,
    PyTree,
    Rule,
    Scalar,
    Solver,
    Step,
)

X = Float[Array, "b *dims"]


class State(NamedTuple):
    """Where a walk is; all leaves have the samples as leading axis, or are scalars."""

    x: Any  # (b, *dims)
    memory: PyTree  # of the solver
    rule: PyTree  # of the rule


@dataclasses.dataclass(frozen=True)
class Walk:
    """Guided steps of one model: `init` a state, then `step` as often as there are `steps`."""

    denoiser: Denoiser
    params: Params
    rule: Rule
    solver: Solver
    c: Condition

    def init(self, x: X) -> State:
        """The state at a start x (b, *dims), in float32 or wider whatever that of x."""
        x = at_least_float32(jnp.asarray(x))
        return State(x, self.solver.init(x), self.rule.init(x, self.c))

    def step(self, state: State, step: Step) -> State:
        """The state at step.s, from one at step.t.

        Times are taken in the precision of the state, and so is what rule and solver return. Raises
        ValueError for a prediction of another shape, or a state of another structure.
        """
        dtype = state.x.dtype
        step = step._replace(t=jnp.asarray(step.t, dtype), s=jnp.asarray(step.s, dtype))

        def predict(x_t: X, t: Float[Array, " b"], rule_state: PyTree) -> tuple[Prediction, PyTree]:
            result = self.rule.apply(
                self.denoiser, self.params, rule_state, x_t, step=step, t=t, c=self.c
            )
            return checked_prediction(result, x_t), result[1]

        result = self.solver.step(
            self.denoiser.schedule, predict, state.rule, state.x, state.memory, step
        )
        x, rule_state, memory = result
        return State(
            alike("x of the solver", x, state.x),
            alike("memory of the solver", memory, state.memory),
            alike("state of the rule", rule_state, state.rule),
        )


def steps(
    key: PRNGKey, times: Float[Array, " n"], churn: Scalar | None, inputs: PyTree = None
) -> Step:
    """All steps of a grid, leaves (k, ...); step i takes its noise from ``fold_in(key, i)``.

    Args:
      key: source of the noise of all steps.
      times: decreasing, (k + 1,).
      churn: in [0, 1]; None: 0, and nothing is drawn.
      inputs: what `Rule.prepare` returned, leaves (k, ...), or None.
    """
    index = jnp.arange(len(times) - 1)
    return Step(
        index=index,
        t=times[:-1],
        s=times[1:],
        is_first=index == 0,
        is_last=index == len(index) - 1,
        key=jax.vmap(lambda i: jax.random.fold_in(key, i))(index),
        churn=None if churn is None else jnp.broadcast_to(churn, index.shape),
        inputs=inputs,
    )


def unroll(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    c: Condition,
    x_t: Float[Array, "b *dims"],
    *,
    guidance: Any,
    times: ArrayLike | Sequence[float],
    churn: Scalar = 0.0,
    solver: str | Solver = "ddim",
) -> Float[Array, "b *dims"]:
    """K guided steps from x_t at times[0] to times[-1]; reverse-differentiable.

    Gradients flow to the guidance, x_t and params through every step (``lax.scan`` over
    ``jax.checkpoint``).

    Args:
      key: source of the noise of every step, for churn > 0.
      denoiser: a model.
      params: arrays of the denoiser.
      c: conditions, leaves (b, ...).
      x_t: where the walk starts, (b, *dims).
      guidance: as in `sample`; weights (num_steps, b) may be traced.
      times: decreasing, (num_steps + 1,), within [0, 1].
      churn: as in `sample`.
      solver: as in `sample`.

    Raises:
      ValueError: for shapes, times or solver settings that do not fit.
    """
    check_key(key)
    check_denoiser(denoiser)
    c = conditions.arrays(c)
    x_t, times = checked_start(x_t, c), checked_times(times)
    check_start(denoiser, times)
    solver = checked_solver(solver, churn)
    rule, inputs = as_rule(guidance).prepare(denoiser, times, c)
    walk = Walk(denoiser, params, rule, solver, c)
    end = scan(walk, x_t, steps(key, times, traced_churn(churn), inputs))[0]
    return end.astype(x_t.dtype)


def scan(walk: Walk, start: X, each: Step) -> tuple[X, Float[Array, "k b *dims"]]:
    """The final x, and x after every step."""

    @jax.checkpoint
    def body(state: State, step: Step) -> tuple[State, X]:
        state = walk.step(state, step)
        return state, state.x

    end, xs = jax.lax.scan(body, walk.init(start), each)
    return end.x, xs


def traced_churn(churn: Scalar) -> Float[Array, ""] | None:
    """A concrete 0 as None: sampling without noise compiles without any."""
    if not isinstance(churn, jax.core.Tracer) and float(churn) == 0.0:
        return None
    return jnp.asarray(churn, jnp.float32)


def checked_solver(solver: str | Solver, churn: Scalar) -> Solver:
    """The solver, which takes this churn. Raises ValueError."""
    solver = solver_of(solver)
    if isinstance(churn, jax.core.Tracer):
        return solver
    try:
        arguments.finite("churn", churn, low=0.0, high=1.0)
    except ValueError:
        raise arguments.wrong("churn", "churn in [0, 1]", churn) from None
    if not solver.takes_churn and float(churn) > 0.0:
        raise ValueError(f"expected churn = 0 with solver {solver}, got {churn}")
    return solver
