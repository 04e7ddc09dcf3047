"""Redrawn losses of statistics against those of particles, compared in law.

Frozen rows of 16 examples stand for a denoiser's. Losses and gradients in omega on fresh noise of
R^d are compared with those on redrawn noise, in mean and variance. A test and a benchmark draw.
"""

import functools
import itertools
from collections.abc import Callable
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import objectives, schedules
from lgd.gram.layout import Layout, Members, pack
from lgd.gram.loss import Examples, redrawn_rows
from lgd.gram.redraw import factor
from lgd.objectives import Rows, SelfConsistency
from lgd.objectives.forms import gram_matrix
from lgd.objectives.rows import Coupling, Pairs
from lgd.types import PRNGKey

GROUPS, PARTICLES, BATCHES = 16, 4, 40
FLOW = schedules.rectified_flow()
T = np.linspace(0.15, 0.9, GROUPS, dtype=np.float32)
COUPLINGS: tuple[Coupling, ...] = get_args(Coupling)
SETTINGS = list(itertools.product(COUPLINGS, (0.0, 1.0), (0.0, 1.0)))
NO_NOISE = np.asarray([coupling == "shared" and churn == 0.0 for coupling, _, churn in SETTINGS])
POWER_GAP = 2.33  # standard errors behind the limit from which a difference is seen 99 times of 100


def frozen_rows(dim: int, members: Members, num_directions: int) -> list[Array]:
    """Return rows as a frozen denoiser might give them: correlated, and of unequal size."""
    rng = np.random.default_rng(0)
    shape = (GROUPS, PARTICLES, dim)
    centred = rng.normal(size=shape) * (members != "copies")
    eps = rng.normal(size=shape)
    residual = 0.5 * eps + 0.3 * rng.normal(size=shape)
    deltas = [
        0.4 * residual / (k + 1) + 0.2 * rng.normal(size=shape) for k in range(num_directions)
    ]
    centred = centred - centred.mean(axis=1, keepdims=True)
    blocks = (centred, residual, np.concatenate(deltas, axis=1), eps)
    return [jnp.asarray(block, jnp.float32) for block in blocks]


def as_examples(
    blocks: list[Array], *, members: Members, claimed_dim: int | None = None
) -> tuple[Examples, Layout]:
    """Return those rows as examples on the device, perhaps of another number of dimensions."""
    kept = blocks[1:] if members == "copies" else blocks
    matrix = np.asarray(gram_matrix(jnp.concatenate(kept, axis=1)), np.float64)
    num_directions = blocks[2].shape[1] // PARTICLES
    layout = Layout(
        members=members,
        num_particles=PARTICLES,
        dim=blocks[1].shape[-1] if claimed_dim is None else claimed_dim,
        directions=("uncond", "weaker")[:num_directions],
    )
    lower = jnp.asarray(pack(factor(matrix, layout.dim)), jnp.float32)
    none = jnp.zeros((GROUPS, PARTICLES, 0))
    return Examples(jnp.asarray(T), jnp.zeros(GROUPS, jnp.int32), lower, none), layout


def losses_and_gradients(rows: Rows, omega: Float[Array, "g m k"]) -> Float[Array, "8 g n"]:
    """Return a loss and its 1 + m k derivatives, for all SETTINGS (coupling, lam, churn)."""
    t = jnp.asarray(T)

    def of_setting(
        lam: Float[Array, ""], churn: Float[Array, ""], *, coupling: Coupling, pairs: Pairs
    ) -> Float[Array, "g n"]:
        step = {"s": 0.6 * t, "t": t, "schedule": FLOW, "churn": churn, "coupling": coupling}
        forms = objectives.step_forms(rows, **step)  # type: ignore[arg-type]

        def total(omega: Array) -> tuple[Array, Array]:
            values = objectives.gram_loss(forms, omega, beta=1.75, lam=lam, pairs=pairs)
            return jnp.sum(values), values

        gradient, values = jax.grad(total, has_aux=True)(omega)
        return jnp.concatenate([values[:, None], gradient.reshape(GROUPS, -1)], axis=1)

    def pairs_of(setting: tuple[Coupling, float, float]) -> tuple[Coupling, Pairs]:
        return setting[0], SelfConsistency(coupling=setting[0], lam=setting[1]).pairs

    losses = []
    for (coupling, pairs), settings in itertools.groupby(SETTINGS, pairs_of):
        numbers = jnp.asarray([setting[1:] for setting in settings])
        of_each = functools.partial(of_setting, coupling=coupling, pairs=pairs)
        losses.append(jax.vmap(of_each)(numbers[:, 0], numbers[:, 1]))
    return jnp.concatenate(losses)


Moments = list[Float[np.ndarray, "batches 8 g n"]]


def moments(
    rows_of: Callable[[PRNGKey], Rows], omega: Float[Array, "g m k"], *, seed: int, batch: int
) -> Moments:
    """Return means and variances over the ``batch`` draws of each of `BATCHES` batches."""

    @jax.jit
    def of_batch(key: PRNGKey) -> tuple[Array, Array]:
        losses = jax.vmap(lambda key: losses_and_gradients(rows_of(key), omega))(
            jax.random.split(key, batch)
        )
        return jnp.mean(losses, axis=0), jnp.var(losses, axis=0, ddof=1)

    each = [of_batch(key) for key in jax.random.split(jax.random.key(seed), BATCHES)]
    return [np.stack(values).astype(np.float64) for values in zip(*each, strict=True)]


def relative_gaps(ours: Moments, theirs: Moments) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return by what: the relative difference of each setting (8,), and its standard error.

    Of batches projected on the average of both, so that all examples and particles count.
    """
    parts = {"loss": (0, slice(0, 1)), "gradient": (0, slice(1, None))}
    parts |= {f"variance of {name}": (1, where) for name, (_, where) in parts.items()}
    gaps = {}
    for name, (moment, where) in parts.items():
        pair = [each[moment][..., where] for each in (ours, theirs)]
        middle = 0.5 * (pair[0].mean(axis=0) + pair[1].mean(axis=0))
        size = np.maximum(np.sum(middle**2, axis=(1, 2)), 1e-12)
        along = [np.sum(each * middle[None], axis=(2, 3)) / size[None] for each in pair]
        variance = along[0].var(axis=0, ddof=1) + along[1].var(axis=0, ddof=1)
        gap = along[0].mean(axis=0) - along[1].mean(axis=0)
        gaps[name] = gap, np.sqrt(variance / BATCHES)
    return gaps


def weights(num_directions: int) -> Float[Array, "g m k"]:
    """Return another omega for every particle and direction."""
    shape = (GROUPS, PARTICLES, num_directions)
    return jnp.asarray(np.random.default_rng(1).uniform(0.0, 2.0, shape), jnp.float32)


@functools.cache
def direct_moments(dim: int, members: Members, num_directions: int, batch: int) -> Moments:
    """Return the moments with the fresh noise drawn in R^dim."""
    blocks = frozen_rows(dim, members, num_directions)

    def rows_of(key: PRNGKey) -> Rows:
        z, eps_target = jax.random.normal(key, (2, GROUPS, PARTICLES, dim))
        centred, residual, delta, eps = blocks
        return Rows(centred, residual, delta, eps, z, eps_target)

    return moments(rows_of, weights(num_directions), seed=1, batch=batch)


def compared(
    dim: int, members: Members, num_directions: int, *, batch: int, claimed_dim: int | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return `relative_gaps` of redrawn rows against those of R^dim.

    Args:
      dim: numbers of an example.
      members: what its particles are.
      num_directions: directions of guidance.
      batch: draws in each of `BATCHES` batches.
      claimed_dim: dimensions that the redrawn rows are told; by default the true ones.
    """
    blocks = frozen_rows(dim, members, num_directions)
    examples, layout = as_examples(blocks, members=members, claimed_dim=claimed_dim)

    def rows_of(key: PRNGKey) -> Rows:
        return redrawn_rows(key, examples, layout, num_particles=PARTICLES)

    redrawn = moments(rows_of, weights(num_directions), seed=0, batch=batch)
    return relative_gaps(redrawn, direct_moments(dim, members, num_directions, batch))
