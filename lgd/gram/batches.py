"""Batches of real examples for a collection: how they are read, grouped and checked."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from lgd import conditions
from lgd.data import pipeline
from lgd.data.dataset import Split
from lgd.gram import store
from lgd.gram.layout import Particles, StatisticsError
from lgd.machinery import digests, parallel, processes
from lgd.objectives import Members
from lgd.types import Batch, Condition

Batches = Callable[[int], Batch]


def batches_of(
    data: Split | Batches, particles: Particles, batch_size: int, *, seed: int, mesh: Mesh
) -> Batches:
    """The part of every batch that this process reads.

    Args:
      data: real examples, or a function that returns this part itself.
      particles: of one example.
      batch_size: examples of a batch.
      seed: of the order of the data.
      mesh: devices, along which processes read their parts.
    """
    if callable(data):
        return data
    if particles.members != "condition":
        size = _num_x0(particles, batch_size)
        rows = parallel.local_rows(size, mesh)
        return pipeline.examples(data, size, seed=seed, rows=rows)
    strata = min(max(data.num_strata, 1), batch_size)
    rounds = -(-batch_size // strata)
    groups = pipeline.groups(data, particles.num_particles, seed=seed, rounds=rounds, strata=strata)
    rows = parallel.local_rows(batch_size, mesh)

    def some(step: int) -> Batch:
        order = np.random.default_rng((seed, step)).permutation(rounds * strata)
        return groups.at(groups.index(step)[order[rows]])

    return some


def grouped(batch: Batch, members: Members, m: int) -> tuple[Array, Condition, Condition]:
    """x0 (g, m, *dims), the conditions that are kept, and that of every member (g m, ...)."""
    if members == "copies":
        return jnp.repeat(batch.x0[:, None], m, axis=1), batch.c, conditions.repeat(batch.c, m)
    if members == "condition":
        first = jax.tree.map(lambda leaf: leaf[:, 0], batch.c)
        return batch.x0, first, conditions.flatten(batch.c)
    x0 = batch.x0.reshape(-1, m, *batch.x0.shape[1:])
    return x0, conditions.reshape(batch.c, len(x0), m), batch.c


def dim_of(example: Batch, members: Members) -> int:
    """Numbers of one x0."""
    shape = np.shape(example.x0)
    return int(np.prod(shape[2:] if members == "condition" else shape[1:]))


def sources(batch: Batch, particles: Particles, mesh: Mesh) -> np.ndarray:
    """A number for every example, the same for equal x0; groups take that of their first x0."""
    x0 = np.asarray(batch.x0)
    if particles.members == "condition":
        x0 = x0[:, 0]
    elif particles.members == "mixed":
        x0 = x0[:: particles.num_particles]
    sums = [digests.crc(np.ascontiguousarray(one).tobytes()) & 0x7FFFFFFF for one in x0]
    placed = parallel.place_batch(np.asarray(sums, np.int32), mesh)
    return processes.to_host(placed)


def check_example(example: Batch, particles: Particles, batch_size: int, mesh: Mesh) -> None:
    """Raise StatisticsError for a batch of another shape, before anything is computed."""
    rows = parallel.local_rows(_num_x0(particles, batch_size), mesh)
    leading: tuple[int, ...] = (len(rows),)
    if particles.members == "condition":
        leading = (*leading, particles.num_particles)
    shape = np.shape(example.x0)
    if shape[: len(leading)] != leading:
        raise StatisticsError(f"data: expected x0 with leading axes {leading}, got {shape}")
    for name, leaf in store.named_conditions(example.c).items():
        if np.shape(leaf)[: len(leading)] != leading:
            raise StatisticsError(
                f"data: expected {name} with leading axes {leading}, got {np.shape(leaf)}"
            )


def check_conditions(batch: Batch, members: Members) -> None:
    """Raise StatisticsError for groups of "condition" members whose conditions differ."""
    if members != "condition":
        return
    for name, leaf in store.named_conditions(batch.c).items():
        values = np.asarray(leaf)
        if not np.array_equal(values, np.broadcast_to(values[:, :1], values.shape)):
            raise StatisticsError(
                f'{name}: expected one condition in every group of members="condition", got '
                'different ones; members="mixed" keeps a condition for every member'
            )


def _num_x0(particles: Particles, batch_size: int) -> int:
    """Number of x0, or of groups of one condition, that a batch is read as."""
    return batch_size * (particles.num_particles if particles.members == "mixed" else 1)
