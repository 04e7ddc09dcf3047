"""What a model is asked in a check: examples with noise at a few times."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lgd import conditions
from lgd.diffusion import Kind, denoise_pair, noised, t_max
from lgd.machinery import processes
from lgd.types import Condition, Denoiser, Params, Predicts, Schedule

RATIOS = (0.35, 0.6, 1.0, 1.7, 2.8)  # sigma / alpha in units of the data's standard deviation
ENDS = (0.02, 0.98)  # further times

Ask = Callable[[Any, Any, Condition], np.ndarray]  # (x_t, t, c) -> prediction, all of rows


class Probe(NamedTuple):
    """Examples with noise: rows (k n, ...) are n examples at each of k times, the ends last."""

    x0: Any
    x_t: Any
    t: Any
    c: Condition
    num_examples: int  # n

    def by_time(self, values: Any) -> np.ndarray:
        """Values of rows as (k, n, ...)."""
        values = np.asarray(values)
        return values.reshape(-1, self.num_examples, *values.shape[1:])


def probe_of(x0: np.ndarray, c: Condition, schedule: Schedule) -> Probe:
    """The rows that ask about examples (n, *dims) with conditions of leaves (n, ...)."""
    x0 = np.asarray(x0, np.float32)
    times = np.array([*_moderate_times(schedule, float(x0.std())), *ENDS], np.float32)
    rows, t = np.tile(np.arange(len(x0)), len(times)), np.repeat(times, len(x0))
    eps = np.random.default_rng(0).standard_normal((len(t), *x0.shape[1:]), np.float32)
    x_t = noised(jnp.asarray(x0[rows]), jnp.asarray(eps), t=jnp.asarray(t), schedule=schedule)
    return Probe(x0[rows], np.asarray(x_t), t, conditions.take(c, rows), len(x0))


def _moderate_times(schedule: Schedule, std: float) -> np.ndarray:
    """Where sigma / alpha is nearest to `RATIOS` times the standard deviation of the data."""
    grid = np.linspace(0.0, 1.0, 1001, dtype=np.float32)[1:-1]
    t = jnp.asarray(grid)
    ratio = np.asarray(schedule.sigma(t) / schedule.alpha(t), np.float64)
    gaps = np.log(ratio)[None] - np.log(np.asarray(RATIOS) * max(std, 1e-6))[:, None]
    return grid[np.abs(gaps).argmin(axis=1)]


def kind_of(denoiser: Denoiser) -> Kind:
    """What the output of a denoiser means; "x0" where it does not say."""
    return denoiser.kind if isinstance(denoiser, Predicts) else "x0"


def asking(denoiser: Denoiser, params: Params) -> Ask:
    """The output of a denoiser as a function of (x_t, t, c), compiled once."""
    predict = denoiser.prediction if isinstance(denoiser, Predicts) else denoiser.apply

    @jax.jit
    def ask(params: Params, x_t: Array, t: Array, c: Condition) -> Array:
        return predict(params, x_t, t=t, c=c)

    def asked(x_t: Any, t: Any, c: Condition) -> np.ndarray:
        return np.asarray(processes.to_host(ask(params, x_t, np.asarray(t, np.float32), c)))

    return asked


def halves(denoiser: Denoiser, params: Params, probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """The conditional and the unconditional x0_hat of the rows."""
    latest = np.float32(t_max(denoiser))

    @jax.jit
    def ask(params: Params, x_t: Array, t: Array, c: Condition) -> tuple[Array, Array]:
        return denoise_pair(denoiser, params, x_t, t=t, c=c)

    asked = ask(params, probe.x_t, np.minimum(probe.t, latest), probe.c)
    cond, uncond = processes.to_host(asked)
    return np.asarray(cond), np.asarray(uncond)
