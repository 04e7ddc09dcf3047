"""The held-out loss of any schedule, without a denoiser call."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd.objectives import StepLaw
from lgd.progress import bar
from lgd.statistics.layout import Layout, Statistics, schedule_fits
from lgd.statistics.loss import (
    Examples,
    OneStep,
    check_fits,
    energy_of,
    examples,
    forms_of,
    frame_of,
    loss_of,
    particles_of,
    redrawn_rows,
    relative_weights,
    weights_of,
)
from lgd.types import OmegaFn, PRNGKey, Schedule

_CHUNK = 2048  # examples scored at once


class Scores(NamedTuple):
    """Losses of schedules on the same examples, times and noise.

    An example's loss is a mean over draws of s and of noise. ``weights`` are those of the law of t.
    """

    names: tuple[str, ...]
    losses: Float[np.ndarray, "draws schedules n"]
    s: Float[np.ndarray, "draws n"]
    t: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]  # mean 1
    source: Int[np.ndarray, " n"]  # examples of one x0 are alike, and not independent

    def per_example(self, name: str) -> Float[np.ndarray, " n"]:
        """Weighted losses, whose mean is `mean`."""
        return self.weights * self.losses[:, self.names.index(name)].mean(axis=0)

    def mean(self, name: str) -> float:
        """The loss of a schedule."""
        return float(self.per_example(name).mean())

    def standard_error(self, name: str) -> float:
        """Of `mean`, for the choice of x0: examples of one x0 count as one."""
        return self._error(self.per_example(name))

    def difference(self, name: str, other: str) -> tuple[float, float]:
        """Mean of ``name`` less that of ``other`` on the same draws, and its standard error."""
        gaps = self.per_example(name) - self.per_example(other)
        return float(gaps.mean()), self._error(gaps)

    def _error(self, values: Float[np.ndarray, " n"]) -> float:
        """Square root of the summed squares of cluster sums of residuals, over n."""
        _, cluster = np.unique(self.source, return_inverse=True)
        sums = np.bincount(cluster, values - values.mean())
        correction = len(sums) / max(len(sums) - 1, 1)
        return float(np.sqrt(correction * np.sum(sums**2)) / len(values))


def score(
    statistics: Statistics,
    schedules: Mapping[str, OmegaFn],
    *,
    objective: OneStep,
    schedule: Schedule,
    law: StepLaw | None = None,
    num_draws: int = 4,
    seed: int = 0,
    progress: bool = False,
) -> Scores:
    """Losses of omega functions on statistics, all on the same draws.

    Args:
      statistics: held out, which omega was not fitted to.
      schedules: omega functions by name, of (s, t, c), and of features where these were collected.
      objective: whose loss; its law of times is replaced by ``law`` where that is given.
      schedule: the denoiser's.
      law: of (s, t).
      num_draws: of s and of noise, for every example.
      seed: of these draws.
      progress: show a bar.

    Raises:
      StatisticsError: for statistics that do not fit the objective or the law.
    """
    check_fits(objective, statistics.layout)
    schedule_fits(statistics, schedule)
    law = objective.time_law if law is None else law
    weights = relative_weights(statistics, law)
    inside = np.flatnonzero(weights > 0.0)
    statistics, weights = statistics.take(inside), weights[inside]
    data, m = examples(statistics), particles_of(objective)
    energy = energy_of(objective)
    losses, times = [], []
    chunks = range(0, statistics.size, _CHUNK)
    with bar("score schedules", num_draws * len(chunks), show=progress) as advance:
        for draw in range(num_draws):
            parts: list[tuple[np.ndarray, np.ndarray]] = []
            for start in chunks:
                part = data.at(slice(start, start + _CHUNK))
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), draw), start)
                s_key, rows_key = jax.random.split(key)
                s = law.sample_s(s_key, part.t)
                each = [
                    weights_of(fn, part, statistics.layout, s=s, num_particles=m)
                    for fn in schedules.values()
                ]
                values = _losses(
                    rows_key,
                    part,
                    s,
                    jnp.stack(each),
                    jnp.asarray(energy, jnp.float32),
                    objective=frame_of(objective),
                    layout=statistics.layout,
                    schedule=schedule,
                )
                parts.append((np.asarray(values), np.asarray(s)))
                advance("")
            losses.append(np.concatenate([value for value, _ in parts], axis=1))
            times.append(np.concatenate([s for _, s in parts]))
    return Scores(
        tuple(schedules),
        np.stack(losses).astype(np.float64),
        np.stack(times),
        statistics.t,
        weights / weights.mean(),
        statistics.source,
    )


@functools.partial(jax.jit, static_argnames=("objective", "layout", "schedule"))
def _losses(
    key: PRNGKey,
    batch: Examples,
    s: Float[Array, " g"],
    omegas: Float[Array, "schedules g m k"],
    energy: Float[Array, "3"],
    *,
    objective: OneStep,
    layout: Layout,
    schedule: Schedule,
) -> Float[Array, "schedules g"]:
    beta, lam, churn = energy
    rows = redrawn_rows(key, batch, layout, num_particles=particles_of(objective))
    forms = forms_of(objective, rows, s=s, t=batch.t, schedule=schedule, churn=churn)

    def one(omega: Float[Array, "g m k"]) -> Float[Array, " g"]:
        return loss_of(objective, forms, omega, beta=beta, lam=lam)

    return jax.lax.map(one, omegas)
