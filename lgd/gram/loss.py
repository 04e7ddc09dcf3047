"""One-step objectives on statistics: the same rows -> Gram matrix -> loss, with fresh noise.

Statistics in device memory are `Examples`. A batch of them becomes `Rows` in few dimensions
(`redrawn_rows`), whose losses have the law that those of the particles have.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd import conditions, guidance
from lgd.gram.layout import Layout, Statistics, StatisticsError, pack, schedule_fits, unpack
from lgd.gram.redraw import factor, redraw
from lgd.objectives import OneStep, Rows, StepLaw, member_weights
from lgd.types import Condition, OmegaFn, PRNGKey, Schedule

_CHUNK = 65536  # examples factored at once
_EXAMPLE_CONDITIONS = 1024


class Examples(NamedTuple):
    """Statistics on the device; ``lower`` holds packed factors L of the Gram matrices L L^T."""

    t: Float[Array, " n"]
    c: Condition
    lower: Float[Array, "n p"]
    features: Float[Array, "n m f"]

    def at(self, index: Int[Array, " g"] | slice) -> "Examples":
        """The examples at an index."""
        return jax.tree.map(lambda leaf: leaf[index], self)


def examples(statistics: Statistics) -> Examples:
    """Statistics with every Gram matrix factored in float64 on the host, put on the device."""
    layout = statistics.layout
    lower = np.empty_like(statistics.gram)
    for start in range(0, statistics.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        half = unpack(statistics.gram[part].astype(np.float64), layout.num_rows)
        whole = half + np.swapaxes(np.tril(half, -1), 1, 2)
        lower[part] = pack(factor(whole, layout.dim))
    return Examples(*jax.device_put((statistics.t, statistics.c, lower, statistics.features)))


def example_conditions(statistics: Statistics) -> Condition:
    """Conditions of the first examples, leaves (k, ...), to make parameters of a model with."""
    some = conditions.take(statistics.c, slice(_EXAMPLE_CONDITIONS))
    return conditions.flatten(some) if statistics.layout.members == "mixed" else some


def redrawn_rows(key: PRNGKey, batch: Examples, layout: Layout, *, num_particles: int) -> Rows:
    """Rows of a batch in few dimensions, with fresh noise.

    Args:
      key: source of the noise.
      batch: examples on the device.
      layout: of the statistics that they come from.
      num_particles: how many particles of each example are taken, the first ones.
    """
    m, blocks = layout.num_particles, layout.blocks
    lower = unpack(batch.lower, layout.num_rows)
    known, fresh = redraw(key, lower, count=2 * num_particles, dim=layout.dim)
    rows = known.reshape(len(known), blocks, m, -1)[:, :, :num_particles]
    if layout.members == "copies":
        rows = jnp.concatenate([jnp.zeros_like(rows[:, :1]), rows], axis=1)
    elif num_particles < m:  # a subset has another centre
        centre = jnp.mean(rows[:, 0], axis=1, keepdims=True)
        rows = rows.at[:, 0].set(rows[:, 0] - centre)
    delta = rows[:, 2:-1].reshape(len(known), -1, rows.shape[-1])
    z, eps_target = jnp.split(fresh, 2, axis=1)
    return Rows(rows[:, 0], rows[:, 1], delta, rows[:, -1], z, eps_target)


def weights_of(
    omega_fn: OmegaFn,
    batch: Examples,
    layout: Layout,
    *,
    s: Float[Array, " g"],
    num_particles: int,
) -> Float[Array, "g m k"]:
    """Guidance weights of every particle and direction, see `objectives.member_weights`.

    Args:
      omega_fn: omega(s, t, c), or also of features, with values (b,) or (b, k).
      batch: examples on the device.
      layout: of the statistics that they come from.
      s: times that the steps go to.
      num_particles: how many particles of each example are taken, the first ones.

    Raises:
      StatisticsError: where omega_fn takes features, and none were collected.
      ValueError: if omega_fn gives another number of directions.
    """
    if guidance.takes_features(omega_fn) and not layout.has_features:
        raise StatisticsError("features: expected them in the statistics for this omega, got none")
    per_member, c = layout.members == "mixed", batch.c
    if per_member:
        c = jax.tree.map(lambda leaf: leaf[:, :num_particles], c)
    return member_weights(
        omega_fn,
        c,
        s=s,
        t=batch.t,
        num_members=num_particles,
        num_directions=len(layout.directions),
        per_member=per_member,
        features=batch.features[:, :num_particles],
    )


def prepared(
    statistics: Statistics, objective: OneStep, schedule: Schedule, law: StepLaw | None = None
) -> tuple[Statistics, Float[np.ndarray, " n"]]:
    """The examples at times where a law has mass, and their weights in it, mean 1.

    Args:
      statistics: what `collect` gathered.
      objective: what they are to serve.
      schedule: the forward process of the denoiser.
      law: of (s, t); that of the objective by default.

    Raises:
      StatisticsError: for statistics that do not fit the objective, the schedule or the law.
    """
    check_fits(objective, statistics.layout)
    schedule_fits(statistics, schedule)
    weights = relative_weights(statistics, objective.time_law if law is None else law)
    inside = np.flatnonzero(weights > 0.0)
    return statistics.take(inside), weights[inside] / weights[inside].mean()


def relative_weights(statistics: Statistics, law: StepLaw) -> Float[np.ndarray, " n"]:
    """Density of t under a law over that under the law of the collection, mean 1, in float64.

    It is 0 where the law has no mass. Raises StatisticsError where the law has mass at times that
    were not collected, or none at those of the examples.
    """
    collected, support = statistics.law, law.support
    low, high = support.s_min + support.gap_min, support.t_max
    inner = np.linspace(low + 1e-3 * (high - low), high - 1e-3 * (high - low), 257)
    grid = jnp.asarray(inner, jnp.float32)
    missed = np.asarray((law.density(grid) > 0.0) & (collected.density(grid) == 0.0))
    if missed.any():
        raise StatisticsError(
            f"law: expected times within those of {collected}, got {inner[missed][0]:.4g} "
            f"to {inner[missed][-1]:.4g} beside them"
        )
    t = jnp.asarray(statistics.t)
    density = np.asarray(law.density(t), np.float64)
    collected_density = np.maximum(np.asarray(collected.density(t), np.float64), 1e-12)
    ratio = np.where(density > 0.0, density / collected_density, 0.0)
    if not ratio.any():
        raise StatisticsError(f"law: expected examples at times of {law}, got none")
    return ratio / ratio.mean()


def check_fits(objective: OneStep, layout: Layout) -> None:
    """Raise StatisticsError unless statistics of a layout hold the particles of an objective."""
    if objective.reward is not None:
        raise StatisticsError("reward: expected none (it needs predictions), got one")
    name = type(objective).__name__
    if layout.members not in objective.members:
        expected = " or ".join(objective.members) or "no statistics"
        raise StatisticsError(f"members: expected {expected} for {name}, got {layout.members}")
    if objective.num_members > layout.num_particles:
        raise StatisticsError(
            f"{name}: expected at most the {layout.num_particles} particles collected, "
            f"got {objective.num_members}"
        )
