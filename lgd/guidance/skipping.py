"""Sampling steps that ask for the unconditional half only where omega is not 0.

What is guided when is known before sampling, from the table of omega. The conditional half runs on
all b samples; the unconditional one on as many rows as the step's size says, gathered, and
scattered back. A denoiser that makes both halves itself is asked for the pairs of these rows, and
for the conditional half of the others. Sizes are few and static, so that one compiled scan holds a
branch for each.
"""

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd import conditions
from lgd.diffusion import denoise_pair, expand
from lgd.types import Condition, Denoiser, MakesPair, Params, Prediction, PyTree, Step

WASTE = 0.05  # most of the rows promised by omega = 0 that rounding to few sizes may cost

X = Float[Array, "b *dims"]


class Order(NamedTuple):
    """The samples of every step, guided ones first, and which size of the plan the step takes."""

    rows: Any  # (k, b) int32; of one step (b,)
    size: Any  # (k,) int32; of one step ()


class Plan(NamedTuple):
    """The calls that a table of omega leaves to compute."""

    order: Order
    sizes: tuple[int, ...]  # unconditional rows of a step, increasing

    def rows_of_steps(self) -> Int[np.ndarray, " k"]:
        """Unconditional rows that every step computes."""
        return np.asarray(self.sizes)[self.order.size]


def plan(
    omegas: Float[Array, "k b"] | Float[np.ndarray, "k b"], calls: Int[np.ndarray, " k"]
) -> Plan:
    """The rows to guide at every step; calls: calls of the network at every step.

    Raises ValueError where omegas are traced.
    """
    if isinstance(omegas, jax.core.Tracer):
        raise ValueError("expected concrete omegas where calls are skipped, got traced ones")
    still = np.asarray(omegas) == 0.0
    guided = np.sum(~still, axis=1)
    sizes = few_sizes(guided, still.shape[1], calls)
    rows = np.argsort(still, axis=1, kind="stable").astype(np.int32)
    return Plan(Order(rows, np.searchsorted(sizes, guided).astype(np.int32)), sizes)


def few_sizes(
    guided: Int[np.ndarray, " k"], batch: int, calls: Int[np.ndarray, " k"]
) -> tuple[int, ...]:
    """A few sizes, to one of which every number of guided rows is rounded up.

    Neighbours are joined, the cheapest first, while the rows wasted in all calls are at most
    `WASTE` of the ``batch - guided`` rows that need none.
    """
    values, place = np.unique(guided, return_inverse=True)
    sizes, each = values.tolist(), np.bincount(place, weights=calls).tolist()  # calls of a size
    budget = WASTE * float(np.sum(calls * (batch - guided)))
    while len(sizes) > 1:
        gaps = [b - a for a, b in itertools.pairwise(sizes)]
        costs = [gap * count for gap, count in zip(gaps, each[:-1], strict=True)]
        cheapest = int(np.argmin(costs))
        budget -= costs[cheapest]
        if budget < 0.0:
            break
        each[cheapest + 1] += each[cheapest]
        del sizes[cheapest], each[cheapest]
    return tuple(sizes)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Skipping:
    """Classifier-free guidance whose unconditional half runs on as few rows as a step needs.

    Inputs of a step are omega (b,) and an `Order`. sizes: rows that the unconditional half may
    have.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise ValueError unless sizes increase from 0 or more."""
        increase = all(a < b for a, b in itertools.pairwise(self.sizes))
        if not self.sizes or min(self.sizes) < 0 or not increase:
            raise ValueError(f"expected increasing sizes >= 0, got {self.sizes}")

    def calls(self, num_directions: int) -> int:
        """Network rows for each sample and call where nothing is left out."""
        return 2

    def prepare(
        self, denoiser: Denoiser, times: Float[Array, " n"], c: Condition
    ) -> tuple["Skipping", PyTree]:
        """Raise ValueError: its inputs are made from those of another rule."""
        raise ValueError("expected skip=True, got a rule that skips already")

    def init(self, x: X, c: Condition) -> None:
        """No state."""

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: None,
        x_t: X,
        *,
        step: Step,
        t: Float[Array, " b"],
        c: Condition,
    ) -> tuple[Prediction, None]:
        """``cond + omega (cond - uncond)``, with the second term on the first ``size`` rows."""
        omega, order = step.inputs
        branches = [
            functools.partial(_guided, size, denoiser, c=c, omega=omega, rows=order.rows)
            for size in self.sizes
        ]
        if len(branches) == 1:
            return Prediction(branches[0](params, x_t, t)), None
        return Prediction(jax.lax.switch(order.size, branches, params, x_t, t)), None


def _guided(
    size: int,
    denoiser: Denoiser,
    params: Params,
    x_t: X,
    t: Float[Array, " b"],
    *,
    c: Condition,
    omega: Float[Array, " b"],
    rows: Int[Array, " b"],
) -> X:
    """The guided prediction of b + size rows. Samples beyond the first ``size`` have omega = 0."""
    if size == 0:
        return denoiser.apply(params, x_t, t=t, c=c).astype(x_t.dtype)
    some, others = rows[:size], rows[size:]

    if not isinstance(denoiser, MakesPair):  # one batch of both halves
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c, rows=some)
        return cond.at[some].add(_moved(omega[some], cond[some], uncond))
    pair = denoise_pair(denoiser, params, x_t[some], t=t[some], c=conditions.take(c, some))
    x0_hat = jnp.zeros_like(x_t).at[some].set(pair[0] + _moved(omega[some], *pair))
    if others.size:
        plain = denoiser.apply(params, x_t[others], t=t[others], c=conditions.take(c, others))
        x0_hat = x0_hat.at[others].set(plain.astype(x_t.dtype))
    return x0_hat


def _moved(omega: Float[Array, " r"], cond: X, uncond: X) -> X:
    """``omega (cond - uncond)``."""
    return expand(omega.astype(uncond.dtype), uncond) * (cond - uncond)


def rows_per_sample(plan: Plan, calls: Int[np.ndarray, " k"]) -> float:
    """Network rows computed in all steps, over the number of samples."""
    batch = plan.order.rows.shape[1]
    return float(np.sum(calls * (batch + plan.rows_of_steps())) / batch)
