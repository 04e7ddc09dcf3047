"""The held-out loss of any schedule, without a denoiser call, and where schedules differ in it."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd import schedules as forward_processes
from lgd.gram.layout import Layout, Statistics, StatisticsError, describe
from lgd.gram.loss import (
    Examples,
    OneStep,
    energy_of,
    examples,
    forms_of,
    frame_of,
    loss_of,
    particles_of,
    prepared,
    redrawn_rows,
    weights_of,
)
from lgd.machinery.progress import bar
from lgd.objectives import StepLaw
from lgd.types import Condition, OmegaFn, PRNGKey, Schedule

_CHUNK = 8192  # examples scored at once


class DifferenceMap(NamedTuple):
    """What each bin of (s, t) adds to a difference of losses; the bins add up to it.

    nan where a bin has no data.
    """

    values: Float[np.ndarray, "s t"]
    s_edges: Float[np.ndarray, " s_edges"]
    t_edges: Float[np.ndarray, " t_edges"]


class ClassDifferences(NamedTuple):
    """Differences of losses within every class that the examples have."""

    labels: Int[np.ndarray, " k"]
    means: Float[np.ndarray, " k"]
    standard_errors: Float[np.ndarray, " k"]


class Scores(NamedTuple):
    """Losses of schedules on the same examples, times and noise.

    An example's loss is a mean over draws of s and of noise. ``weights`` are those of the law of t.
    """

    names: tuple[str, ...]
    losses: Float[np.ndarray, "draws schedules n"]  # float32; means are taken in float64
    s: Float[np.ndarray, "draws n"]
    t: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]  # mean 1
    source: Int[np.ndarray, " n"]  # examples of one x0 are alike, and not independent
    c: Condition

    def per_example(self, name: str) -> Float[np.ndarray, " n"]:
        """Weighted losses, whose mean is `mean`."""
        losses = self.losses[:, self.names.index(name)]
        return self.weights * losses.mean(axis=0, dtype=np.float64)

    def mean(self, name: str) -> float:
        """The loss of a schedule."""
        return float(self.per_example(name).mean())

    def standard_error(self, name: str) -> float:
        """Of `mean`, for the choice of x0: examples of one x0 count as one."""
        return _clustered_error(self.per_example(name), self.source)

    def difference(self, name: str, other: str) -> tuple[float, float]:
        """Mean of ``name`` less that of ``other`` on the same draws, and its standard error."""
        gaps = self.per_example(name) - self.per_example(other)
        return float(gaps.mean()), _clustered_error(gaps, self.source)

    @property
    def labels(self) -> Int[np.ndarray, " n"] | None:
        """Classes of the examples, or None where conditions are something else."""
        c = np.asarray(self.c) if isinstance(self.c, np.ndarray | jax.Array) else None
        is_labels = c is not None and c.ndim == 1 and np.issubdtype(c.dtype, np.integer)
        return c if is_labels else None

    def difference_by_class(self, name: str, other: str) -> ClassDifferences:
        """`difference` within every class. Raises StatisticsError without `labels`."""
        if self.labels is None:
            raise StatisticsError("c: expected one label an example, got other conditions")
        present = np.unique(self.labels)
        gaps = self.per_example(name) - self.per_example(other)
        found = []
        for label in present:
            mine = self.labels == label
            own = gaps[mine] / self.weights[mine].mean()
            found.append((own.mean(), _clustered_error(own, self.source[mine])))
        means, errors = np.transpose(found)
        return ClassDifferences(present, means, errors)

    def difference_map(self, name: str, other: str, *, num_bins: int = 20) -> DifferenceMap:
        """`difference`, split over num_bins equal bins of s and as many of t."""
        i, j = self.names.index(name), self.names.index(other)
        gaps = self.weights * (self.losses[:, i].astype(np.float64) - self.losses[:, j])
        t = np.broadcast_to(self.t, self.s.shape)
        edges = [np.linspace(v.min(), v.max() + 1e-6, num_bins + 1) for v in (self.s, t)]
        place = self.s.ravel(), t.ravel()
        sums = np.histogram2d(*place, bins=edges, weights=gaps.ravel())[0]
        counts = np.histogram2d(*place, bins=edges)[0]
        return DifferenceMap(np.where(counts > 0, sums / gaps.size, np.nan), *edges)


def _clustered_error(values: Float[np.ndarray, " n"], source: Int[np.ndarray, " n"]) -> float:
    """Standard error of the mean: the summed squares of residuals summed by source."""
    _, cluster = np.unique(source, return_inverse=True)
    sums = np.bincount(cluster, values - values.mean())
    correction = len(sums) / max(len(sums) - 1, 1)
    return float(np.sqrt(correction * np.sum(sums**2)) / len(values))


def schedule_behind(statistics: Statistics) -> Schedule:
    """The forward process that statistics were collected with, from their fingerprint.

    Raises StatisticsError unless it is one of `lgd.schedules.BY_NAME` with its default settings.
    """
    known = [make() for make in forward_processes.BY_NAME.values()]
    collected = statistics.fingerprint["schedule"]
    for schedule in known:
        if describe(schedule) == collected:
            return schedule
    raise StatisticsError(
        f"schedule: expected one of {', '.join(map(describe, known))}, got {collected}; "
        "lgd.gram.score takes any other as an argument"
    )


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
    law = objective.time_law if law is None else law
    statistics, weights = prepared(statistics, objective, schedule, law)
    data, m = examples(statistics), particles_of(objective)
    energy = energy_of(objective)
    losses, times = [], []
    chunks = _equal_chunks(statistics.size)
    with bar("score schedules", num_draws * len(chunks), show=progress) as advance:
        for draw in range(num_draws):
            parts: list[tuple[np.ndarray, np.ndarray]] = []
            for number, chunk in enumerate(chunks):
                part = data.at(jnp.asarray(chunk, jnp.int32))
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), draw), number)
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
    losses, times = ([each[..., : statistics.size] for each in found] for found in (losses, times))
    return Scores(
        tuple(schedules),
        np.stack(losses),
        np.stack(times),
        statistics.t,
        weights,
        statistics.source,
        statistics.c,
    )


def _equal_chunks(size: int) -> list[Int[np.ndarray, " g"]]:
    """Indices of 0 to size in parts of one length, so that one program serves them all.

    The last example fills up the last part.
    """
    count = -(-size // _CHUNK)
    length = -(-size // count)
    return list(np.minimum(np.arange(count * length), size - 1).reshape(count, length))


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
