"""The held-out loss of any schedule, without a denoiser call, and where schedules differ in it."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd import conditions
from lgd import schedules as forward_processes
from lgd.gram.layout import Layout, Statistics, StatisticsError
from lgd.gram.loss import Examples, examples, prepared, redrawn_rows, weights_of
from lgd.machinery.digests import describe
from lgd.machinery.progress import bar
from lgd.objectives import OneStep, StepLaw
from lgd.types import Condition, OmegaFn, PRNGKey, Schedule

_CHUNK = 8192  # examples scored at once


class DifferenceMap(NamedTuple):
    """The contribution of every bin of (s, t) to a difference of losses, which is their sum.

    It is NaN in a bin without data.
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

    The loss of an example is a mean over draws of s and of noise. ``weights`` are those of the law
    of t.
    """

    names: tuple[str, ...]
    losses: Float[np.ndarray, "draws schedules n"]  # float32; means are taken in float64
    s: Float[np.ndarray, "draws n"]
    t: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]  # mean 1
    source: Int[np.ndarray, " n"]  # the same for examples of one x0, which are not independent
    c: Condition

    def per_example(self, name: str) -> Float[np.ndarray, " n"]:
        """The weighted losses of a schedule, whose mean is `mean`."""
        losses = self.losses[:, self.names.index(name)]
        return self.weights * losses.mean(axis=0, dtype=np.float64)

    def mean(self, name: str) -> float:
        """The loss of a schedule."""
        return float(self.per_example(name).mean())

    def standard_error(self, name: str) -> float:
        """Standard error of `mean` by the choice of x0: examples of one x0 count as one."""
        return _clustered_error(self.per_example(name), self.source)

    def difference(self, name: str, other: str) -> tuple[float, float]:
        """Mean loss of ``name`` less that of ``other``, on the same draws, and its error."""
        gaps = self.per_example(name) - self.per_example(other)
        return float(gaps.mean()), _clustered_error(gaps, self.source)

    @property
    def labels(self) -> Int[np.ndarray, " n"] | None:
        """Labels of the examples, or None where their conditions are something else."""
        labels = conditions.labels_of(self.c)
        return None if labels is None else np.asarray(labels)

    def difference_by_class(self, name: str, other: str) -> ClassDifferences:
        """The `difference` within every label. Raises StatisticsError without `labels`."""
        if self.labels is None:
            raise StatisticsError("c: expected one label an example, got other conditions")
        present = np.unique(self.labels)
        gaps = self.per_example(name) - self.per_example(other)
        means, errors = np.zeros(len(present)), np.zeros(len(present))
        for i, label in enumerate(present):
            inside = self.labels == label
            scaled = gaps[inside] / self.weights[inside].mean()
            means[i], errors[i] = scaled.mean(), _clustered_error(scaled, self.source[inside])
        return ClassDifferences(present, means, errors)

    def difference_map(self, name: str, other: str, *, num_bins: int = 20) -> DifferenceMap:
        """The `difference`, split over num_bins equal bins of s and as many of t."""
        i, j = self.names.index(name), self.names.index(other)
        gaps = self.weights * (self.losses[:, i].astype(np.float64) - self.losses[:, j])
        t = np.broadcast_to(self.t, self.s.shape)
        edges = [np.linspace(v.min(), v.max() + 1e-6, num_bins + 1) for v in (self.s, t)]
        place = self.s.ravel(), t.ravel()
        sums = np.histogram2d(*place, bins=edges, weights=gaps.ravel())[0]
        counts = np.histogram2d(*place, bins=edges)[0]
        return DifferenceMap(np.where(counts > 0, sums / gaps.size, np.nan), *edges)


def _clustered_error(values: Float[np.ndarray, " n"], source: Int[np.ndarray, " n"]) -> float:
    """Standard error of a mean, from the squares of residuals summed by source."""
    _, cluster = np.unique(source, return_inverse=True)
    sums = np.bincount(cluster, values - values.mean())
    correction = len(sums) / max(len(sums) - 1, 1)
    return float(np.sqrt(correction * np.sum(sums**2)) / len(values))


def schedule_behind(statistics: Statistics) -> Schedule:
    """The forward process that statistics were collected with, by their fingerprint.

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
      objective: whose loss.
      schedule: the forward process of the denoiser.
      law: of (s, t); that of the objective by default.
      num_draws: of s and of noise, for every example.
      seed: of these draws.
      progress: show a bar.

    Raises:
      StatisticsError: for statistics that do not fit the objective or the law.
      ValueError: for an omega of another number of directions.
    """
    law = objective.time_law if law is None else law
    statistics, weights = prepared(statistics, objective, schedule, law)
    data, chunks = examples(statistics), _equal_chunks(statistics.size)
    losses, times = [], []
    with bar("score schedules", num_draws * len(chunks), show=progress) as advance:
        for draw in range(num_draws):
            parts: list[tuple[np.ndarray, np.ndarray]] = []
            for number, chunk in enumerate(chunks):
                part = data.at(jnp.asarray(chunk, jnp.int32))
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), draw), number)
                s_key, rows_key = jax.random.split(key)
                s = law.sample_s(s_key, part.t)
                values = _losses_of(
                    rows_key, part, s, schedules, objective, statistics.layout, schedule
                )
                parts.append((values, np.asarray(s)))
                advance("")
            losses.append(np.concatenate([value for value, _ in parts], axis=1))
            times.append(np.concatenate([s for _, s in parts]))
    return Scores(
        tuple(schedules),
        np.stack(losses)[..., : statistics.size],
        np.stack(times)[..., : statistics.size],
        statistics.t,
        weights,
        statistics.source,
        statistics.c,
    )


def _losses_of(
    key: PRNGKey,
    batch: Examples,
    s: Float[Array, " g"],
    schedules: Mapping[str, OmegaFn],
    objective: OneStep,
    layout: Layout,
    schedule: Schedule,
) -> Float[np.ndarray, "schedules g"]:
    """The loss of every example of a batch under every schedule, on the same noise."""
    omegas = [
        weights_of(omega_fn, batch, layout, s=s, num_particles=objective.num_members)
        for omega_fn in schedules.values()
    ]
    losses = _losses(
        key,
        batch,
        s,
        jnp.stack(omegas),
        jnp.asarray(objective.energy, jnp.float32),
        objective=objective.frame,
        layout=layout,
        schedule=schedule,
    )
    return np.asarray(losses)


def _equal_chunks(size: int) -> list[Int[np.ndarray, " g"]]:
    """The indices 0 to size - 1 in parts of one length, so that one program serves them all.

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
    """The loss of every example at the weights of every schedule."""
    beta, lam, churn = energy
    rows = redrawn_rows(key, batch, layout, num_particles=objective.num_members)
    forms = objective.forms(rows, s=s, t=batch.t, schedule=schedule, churn=churn)

    def losses(omega: Float[Array, "g m k"]) -> Float[Array, " g"]:
        return objective.losses(forms, omega, beta=beta, lam=lam)

    return jax.lax.map(losses, omegas)
