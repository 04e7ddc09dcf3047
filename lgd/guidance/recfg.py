"""ReCFG (arXiv 2410.18737): guidance that is rectified by a table from data."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd import encoders
from lgd.diffusion import add_noise, denoise_pair, expand, from_x0
from lgd.guidance.of_pair import B, OfPair, X
from lgd.guidance.rules import rule
from lgd.guidance.times import checked_times
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, PRNGKey, PyTree, Rule, Step


@rule
class ReCfg(OfPair):
    """``eps = (1 + omega) eps_c - omega q eps_u``, q of every step, label and entry.

    ``q = E[eps_c eps_u] / E[eps_u^2]`` over noised data of the label. In x0, without a division by
    alpha: ``cond + omega (Delta - slope eps_u)``, where ``slope = E[Delta eps_u] / E[eps_u^2] =
    (1 - q) sigma / alpha`` is what Delta = cond - uncond has of eps_u. omega = 0: no guidance;
    slope = 0: `Cfg`. Conditions are integer labels; one outside the table gets NaN. Solvers of
    several stages take the slope of the step.

    slopes: (k, labels, *dims), made by `recfg_slopes`. times: the grid (k + 1,) they were made for.

    Raises:
      ValueError: for another number of slopes than of steps, and later for another grid, or
        conditions that are no labels.
    """

    slopes: Float[Array, "k labels *dims"]
    times: Float[Array, " n"]

    def _check(self) -> None:
        if len(self.slopes) != len(self.times) - 1:
            expected = f"slopes of the {len(self.times) - 1} steps of times"
            raise ValueError(f"slopes: expected {expected}, got {len(self.slopes)}")

    def prepare(
        self, denoiser: Denoiser, times: Float[Array, " n"], c: Condition
    ) -> tuple[Rule, PyTree]:
        """The rule without its weights, and these for every step."""
        encoders.check_labels(c, self.slopes.shape[1])
        traced = any(isinstance(grid, jax.core.Tracer) for grid in (times, self.times))
        same = len(times) == len(self.times)
        if not same or not (traced or bool(jnp.allclose(times, self.times, rtol=0.0, atol=1e-5))):
            got = f"another of {len(times) - 1} steps"
            raise ValueError(f"times: expected the grid that the slopes were made for, got {got}")
        return super().prepare(denoiser, times, c)

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
        eps = from_x0(uncond, x_t, t=t, schedule=denoiser.schedule, kind="eps")
        of_step = self.slopes[step.index].astype(x_t.dtype)
        label = jnp.where((c < 0) | (c >= len(of_step)), len(of_step), c)
        slope = of_step.at[label].get(mode="fill", fill_value=jnp.nan)
        omega = expand(step.inputs.astype(x_t.dtype), x_t)
        return Prediction(cond + omega * (cond - uncond - slope * eps)), None


def recfg_slopes(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    x0: Float[Array, "n *dims"],
    c: Int[Array, " n"],
    *,
    times: Any,
    num_labels: int,
) -> Float[Array, "k labels *dims"]:
    """The slopes of `ReCfg`: of every step, label and entry, from examples noised once a step.

    A label without examples takes the mean of the others.

    Args:
      key: source of the noise.
      denoiser: a frozen model.
      params: arrays of the denoiser.
      x0: examples (n, *dims), which are taken through the network together; the paper has 500 of
        each of 100 classes.
      c: their labels (n,).
      times: the grid of the sampler, (k + 1,).
      num_labels: number of labels of the table.

    Raises:
      ValueError: for labels outside, or times that do not decrease.
    """
    arguments.prng_key("key", key)
    encoders.check_labels(c, arguments.positive_int("num_labels", num_labels))
    grid, x0, c = checked_times(times)[:-1], jnp.asarray(x0), jnp.asarray(c)
    keys = jax.random.split(key, len(grid))

    def slopes(key: PRNGKey, time: Float[Array, ""]) -> Float[Array, "labels *dims"]:
        t = jnp.full(len(x0), time)
        x_t = add_noise(key, x0, t=t, schedule=denoiser.schedule)
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
        eps = from_x0(uncond, x_t, t=t, schedule=denoiser.schedule, kind="eps")
        together, alone = (
            jax.ops.segment_sum(each, c, num_labels) for each in ((cond - uncond) * eps, eps * eps)
        )
        seen = jnp.bincount(c, length=num_labels).reshape(-1, *(1,) * (x0.ndim - 1)) > 0
        of_label = jnp.where(seen, together / jnp.maximum(alone, 1e-12), 0.0)
        return jnp.where(seen, of_label, of_label.sum(axis=0, keepdims=True) / seen.sum())

    return jax.jit(lambda: jax.lax.map(lambda each: slopes(*each), (keys, grid)))()
