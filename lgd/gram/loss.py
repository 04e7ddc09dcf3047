"""One-step objectives on statistics: the same rows -> Gram matrix -> loss, with fresh noise.

Statistics in device memory are `Examples`. A batch of them becomes `Rows` in few dimensions
(`redrawn_rows`), of which every objective's loss has the law that it has on the particles.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd import guidance
from lgd.gram.layout import (
    Layout,
    Members,
    Statistics,
    StatisticsError,
    pack,
    schedule_fits,
    unpack,
)
from lgd.objectives import (
    ConditionalMarginalConsistency,
    GuidedScoreMatching,
    MarginalConsistency,
    Rows,
    SelfConsistency,
    StepLaw,
    error_forms,
    gram_loss,
    repeat,
    step_forms,
)
from lgd.objectives.forms import DistanceForms, SharedForms, factor, redraw
from lgd.types import Condition, OmegaFn, PRNGKey, Scalar, Schedule

OneStep = (
    SelfConsistency | ConditionalMarginalConsistency | MarginalConsistency | GuidedScoreMatching
)
_CHUNK = 65536  # examples factored at once


class Examples(NamedTuple):
    """Statistics on the device; ``lower`` holds packed factors L of the Gram matrices L L^T."""

    t: Float[Array, " n"]
    c: Condition
    lower: Float[Array, "n p"]
    features: Float[Array, "n m f"]

    def at(self, index: Int[Array, " g"] | slice) -> "Examples":
        """Some of them."""
        return jax.tree.map(lambda leaf: leaf[index], self)


class Energy(NamedTuple):
    """The settings of an objective that may be traced, and so differ within one program."""

    beta: Scalar
    lam: Scalar
    churn: Scalar


def examples(statistics: Statistics) -> Examples:
    """Factor every Gram matrix in float64 on the host, and put everything on the device."""
    layout = statistics.layout
    lower = np.empty_like(statistics.gram)
    for start in range(0, statistics.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        half = unpack(statistics.gram[part].astype(np.float64), layout.num_rows)
        whole = half + np.swapaxes(np.tril(half, -1), 1, 2)
        lower[part] = pack(factor(whole, layout.dim))
    return Examples(*jax.device_put((statistics.t, statistics.c, lower, statistics.features)))


def redrawn_rows(key: PRNGKey, batch: Examples, layout: Layout, *, num_particles: int) -> Rows:
    """Rows of a batch in few dimensions, with fresh noise; of the first num_particles of each."""
    m, blocks = layout.num_particles, layout.blocks
    lower = unpack(batch.lower, layout.num_rows)
    known, fresh = redraw(key, lower, count=2 * num_particles, dim=layout.dim)
    each = known.reshape(len(known), blocks, m, -1)[:, :, :num_particles]
    if layout.members == "copies":
        each = jnp.concatenate([jnp.zeros_like(each[:, :1]), each], axis=1)
    elif num_particles < m:  # a subset has its own centre
        centre = jnp.mean(each[:, 0], axis=1, keepdims=True)
        each = each.at[:, 0].set(each[:, 0] - centre)
    delta = each[:, 2:-1].reshape(len(known), -1, each.shape[-1])
    z, eps_target = jnp.split(fresh, 2, axis=1)
    return Rows(each[:, 0], each[:, 1], delta, each[:, -1], z, eps_target)


def forms_of(
    objective: OneStep,
    rows: Rows,
    *,
    s: Float[Array, " g"],
    t: Float[Array, " g"],
    schedule: Schedule,
    churn: Scalar,
) -> DistanceForms:
    """Squared distances that the objective compares, as polynomials of omega."""
    if isinstance(objective, GuidedScoreMatching):
        return error_forms(rows)
    return step_forms(rows, s=s, t=t, schedule=schedule, churn=churn, coupling=objective.coupling)


def loss_of(
    objective: OneStep,
    forms: DistanceForms | SharedForms,
    omega: Float[Array, "g m k"] | Float[Array, " g"],
    *,
    beta: Scalar,
    lam: Scalar,
) -> Float[Array, " g"]:
    """Loss of every example."""
    if isinstance(objective, GuidedScoreMatching):
        return gram_loss(forms, omega, beta=2.0, lam=0.0, pairs="matched")
    return gram_loss(forms, omega, beta=beta, lam=lam, pairs=objective.pairs)


def energy_of(objective: OneStep) -> Energy:
    """Its settings; guided score matching has none of them."""
    if isinstance(objective, GuidedScoreMatching):
        return Energy(2.0, 0.0, 0.0)
    return Energy(objective.beta, objective.lam, objective.churn)


def frame_of(objective: OneStep) -> OneStep:
    """The objective without the settings of `Energy`: what one compiled program can share."""
    if isinstance(objective, GuidedScoreMatching):
        return objective
    matched = objective.pairs == "matched"  # the one choice that hangs on lam
    return dataclasses.replace(objective, beta=1.0, lam=0.0 if matched else 1.0, churn=0.0)


def particles_of(objective: OneStep) -> int:
    """Particles of one example of the objective."""
    if isinstance(objective, ConditionalMarginalConsistency):
        return objective.group_size
    return objective.num_particles


def weights_of(
    omega_fn: OmegaFn,
    batch: Examples,
    layout: Layout,
    *,
    s: Float[Array, " g"],
    num_particles: int,
) -> Float[Array, "g m k"]:
    """omega of every particle and direction, from a function of (s, t, c) or also of features.

    One value for an example serves all its particles, unless they have conditions or features of
    their own. A function of values (b,) guides along the first direction only; one for several
    gives (b, k).
    """
    g, m, k = len(batch.t), num_particles, len(layout.directions)
    takes_features = guidance.takes_features(omega_fn)
    if takes_features and not layout.has_features:
        raise StatisticsError("features: expected them in the statistics for this omega, got none")
    each = m if takes_features or layout.members == "mixed" else 1
    c = batch.c
    if layout.members == "mixed":
        c = jax.tree.map(lambda leaf: leaf[:, :m].reshape(g * m, *leaf.shape[2:]), c)
    elif each > 1:
        c = repeat(c, m)
    extra = {"features": batch.features[:, :m].reshape(g * m, -1)} if takes_features else {}
    omega = omega_fn(s=jnp.repeat(s, each), t=jnp.repeat(batch.t, each), c=c, **extra)
    omega = omega.reshape(g, each, -1)
    if omega.shape[-1] not in (1, k):
        raise StatisticsError(f"directions: expected 1 or {k} values, got {omega.shape[-1]}")
    omega = jnp.pad(omega, ((0, 0), (0, 0), (0, k - omega.shape[-1])))
    return jnp.broadcast_to(omega, (g, m, k))


def prepared(
    statistics: Statistics, objective: OneStep, schedule: Schedule, law: StepLaw | None = None
) -> tuple[Statistics, Float[np.ndarray, " n"]]:
    """The examples at times of the law, and their weights in it, mean 1.

    law: of (s, t); the objective's by default. Raises StatisticsError for statistics that do not
    fit the objective, the schedule or the law.
    """
    check_fits(objective, statistics.layout)
    schedule_fits(statistics, schedule)
    weights = relative_weights(statistics, objective.time_law if law is None else law)
    inside = np.flatnonzero(weights > 0.0)
    return statistics.take(inside), weights[inside] / weights[inside].mean()


def relative_weights(statistics: Statistics, law: StepLaw) -> Float[np.ndarray, " n"]:
    """Density ratio of the law to the collection's, mean 1: float64; 0 where the law has no mass.

    Raises StatisticsError where the law has mass that was not collected.
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
    ours = np.asarray(law.density(t), np.float64)
    theirs = np.maximum(np.asarray(collected.density(t), np.float64), 1e-12)
    ratio = np.where(ours > 0.0, ours / theirs, 0.0)
    if not ratio.any():
        raise StatisticsError(f"law: expected examples at times of {law}, got none")
    return ratio / ratio.mean()


def members_of(objective: OneStep) -> tuple[Members, ...]:
    """What the particles of one example may be for this objective; the usual one first.

    Raises StatisticsError for an objective that needs more than one step.
    """
    kinds: dict[type, tuple[Members, ...]] = {
        SelfConsistency: ("copies",),
        ConditionalMarginalConsistency: ("condition",),
        MarginalConsistency: ("mixed",),
        GuidedScoreMatching: ("copies", "condition", "mixed"),
    }
    name = type(objective).__name__
    if type(objective) not in kinds:
        raise StatisticsError(f"objective: expected one of one step, got {name}")
    return kinds[type(objective)]


def check_fits(objective: OneStep, layout: Layout) -> None:
    """Raise StatisticsError unless these statistics can stand for the particles it compares."""
    if getattr(objective, "reward", None) is not None:
        raise StatisticsError("reward: expected none (it needs predictions), got one")
    name, fitting = type(objective).__name__, members_of(objective)
    if layout.members not in fitting:
        raise StatisticsError(
            f"members: expected {' or '.join(fitting)} for {name}, got {layout.members}"
        )
    if particles_of(objective) > layout.num_particles:
        raise StatisticsError(
            f"{name}: expected at most the {layout.num_particles} particles collected, "
            f"got {particles_of(objective)}"
        )
