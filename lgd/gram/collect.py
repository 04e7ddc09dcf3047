"""Collect statistics: one pass of the frozen denoiser over real data, streamed to disk."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from lgd.data import pipeline
from lgd.data.dataset import Split
from lgd.gram import identity, store
from lgd.gram.identity import Weaker
from lgd.gram.layout import CollectionLaw, Layout, Members, StatisticsError, pack
from lgd.machinery import digests, parallel, processes, stopping
from lgd.machinery.failures import NonFiniteError
from lgd.machinery.progress import bar
from lgd.objectives import UniformTimes, draw_frozen_rows, repeat
from lgd.objectives.forms import gram_matrix
from lgd.types import Batch, Condition, Denoiser, Params, PRNGKey


def collect(
    path: str | Path,
    denoiser: Denoiser,
    params: Params,
    data: Split | Callable[[int], Batch],
    *,
    num_examples: int,
    members: Members = "copies",
    num_particles: int = 4,
    law: CollectionLaw | None = None,
    weaker: Weaker | None = None,
    features: bool = False,
    data_name: str = "",
    batch_size: int = 256,
    shard_examples: int = 16384,
    seed: int = 0,
    mesh: Mesh | None = None,
    progress: bool = True,
    on_call: Callable[[], None] | None = None,
) -> None:
    """Ask the frozen denoiser once about every example, and keep the Gram matrices.

    An example takes num_particles pairs of denoiser calls and, for 4 particles and one direction,
    324 bytes on disk, whatever the size of the data. Interrupted, it goes on behind the last whole
    shard: every example is a function of the seed and its number, and what results does not depend
    on interruptions.

    Args:
      path: folder for the shards; one that holds another collection is refused.
      denoiser, params: the frozen model.
      data: real examples with their classes; or batches of step, x0 (b, *dims) and c (b, ...), as
        groups x0 (b, num_particles, *dims), c (b, ...) for ``members="condition"`` and as
        b num_particles examples for ``members="mixed"``. Of several processes each returns its
        own part of a batch, see `parallel.local_rows`.
      num_examples: a multiple of batch_size.
      members: what the particles of one example are, see `Layout`.
      num_particles: m.
      law: of t; `UniformTimes` by default, which serves any law of (s, t) by weights; a
        `TimeLaw` serves itself best.
      weaker: further directions by name, each a weaker denoiser and its parameters.
      features: also keep `guidance.PAIR_FEATURES` of every particle, 16 bytes each.
      data_name: what the data are, for the fingerprint; needed where data is a function.
      batch_size: examples of one call; the number of devices must divide it.
      shard_examples: examples of one file, a multiple of batch_size.
      seed: of data order, times and noise.
      mesh: devices, see `parallel.make_mesh`; one by default.
      progress: show a bar with the throughput.
      on_call: called after every batch.

    Raises:
      StatisticsError: for settings that do not fit, or a folder that holds something else.
      NonFiniteError: for predictions that are not finite, with their times.
    """
    mesh = parallel.make_mesh(1) if mesh is None else mesh
    law, weaker = UniformTimes() if law is None else law, {} if weaker is None else weaker
    _check_sizes(num_examples, batch_size, shard_examples, mesh)
    batches = _batches(data, members, num_particles, batch_size, seed, mesh)
    example = batches(0)
    _check_batch(example, members, num_particles, batch_size, mesh)
    layout = Layout(
        members=members,
        num_particles=num_particles,
        dim=_dim(example, members),
        directions=("uncond", *weaker),
        has_features=features,
    )
    manifest = store.Manifest(
        layout=layout,
        law=law,
        fingerprint=identity.fingerprint(
            denoiser, params, weaker, data, data_name=data_name, batch_size=batch_size, seed=seed
        ),
        num_examples=num_examples,
        shard_examples=shard_examples,
    )
    path = Path(path)
    done = processes.from_main(lambda: identity.begun(path, manifest))
    frozen = (params, tuple(other for _, other in weaker.values()))
    frozen = parallel.place(frozen, parallel.param_sharding(frozen, mesh))
    ask = batch_pass(
        parallel.spread(denoiser, mesh),
        tuple(parallel.spread(other, mesh) for other, _ in weaker.values()),
        layout,
        law,
    )
    key = parallel.place(jax.random.key(seed), parallel.replicated(mesh))
    start, first = time.perf_counter(), sum(shard[2] for shard in done)
    with (
        bar("collect statistics", num_examples // batch_size, show=progress) as advance,
        pipeline.reading_ahead(batches) as batches,
    ):
        for _ in range(first // batch_size):
            advance("")
        for index in range(len(done), -(-num_examples // shard_examples)):
            low = index * shard_examples
            high = min(low + shard_examples, num_examples)
            parts = []
            for step in range(low // batch_size, high // batch_size):
                batch = batches(step)
                placed = parallel.place_batch(batch, mesh)
                tensors = processes.to_host(ask(frozen, placed, jax.random.fold_in(key, step)))
                tensors["source"] = _sources(batch, members, num_particles, mesh)
                parts.append(tensors)
                rate = ((step + 1) * batch_size - first) / (time.perf_counter() - start)
                advance(f"{rate:,.0f} examples/s")
                if on_call is not None:
                    on_call()
                stopping.check(f"call {step + 1} of the denoiser")  # goes on behind the last shard
            shard = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
            _check_finite(shard)
            processes.from_main(functools.partial(_append, path, index, shard))


def batch_pass(
    denoiser: Denoiser, others: tuple[Denoiser, ...], layout: Layout, law: CollectionLaw
) -> Callable[..., dict[str, Array]]:
    """The jitted pass over one batch: (frozen, batch, key) -> arrays of its examples."""
    m = layout.num_particles

    @jax.jit
    def ask(frozen: Any, batch: Batch, key: PRNGKey) -> dict[str, Array]:
        params, other_params = frozen
        time_key, rows_key = jax.random.split(key)
        x0, c, member_c = _grouped(batch, layout.members, m)
        t = law.sample_t(time_key, len(x0))
        rows = draw_frozen_rows(
            rows_key,
            denoiser,
            params,
            x0,
            member_c,
            t=t,
            weaker=tuple(zip(others, other_params, strict=True)),
        )
        blocks = rows[1:4] if layout.members == "copies" else rows[:4]
        packed = pack(gram_matrix(jnp.concatenate(blocks, axis=1)))
        found = {"t": t, "gram": packed, **store.named_conditions(c)}
        return found | ({"features": rows.features} if layout.has_features else {})

    return ask


def _grouped(batch: Batch, members: Members, m: int) -> tuple[Array, Condition, Condition]:
    """x0 (g, m, *dims), the condition kept of every group, and that of every member (g m, ...)."""
    if members == "copies":
        return jnp.repeat(batch.x0[:, None], m, axis=1), batch.c, repeat(batch.c, m)
    if members == "condition":
        return batch.x0, batch.c, repeat(batch.c, m)
    x0 = batch.x0.reshape(-1, m, *batch.x0.shape[1:])
    grouped = jax.tree.map(lambda leaf: leaf.reshape(-1, m, *leaf.shape[1:]), batch.c)
    return x0, grouped, batch.c


def _batches(
    data: Split | Callable[[int], Batch],
    members: Members,
    num_particles: int,
    batch_size: int,
    seed: int,
    mesh: Mesh,
) -> Callable[[int], Batch]:
    """The part of every batch that this process reads."""
    if not isinstance(data, Split):
        return data
    if members != "condition":
        size = batch_size * (num_particles if members == "mixed" else 1)
        rows = parallel.local_rows(size, mesh)
        return pipeline.examples(data, size, seed=seed, rows=rows)
    num_classes = int(data.labels.max()) + 1
    rounds = -(-batch_size // num_classes)
    groups = pipeline.class_groups(data, num_particles, seed=seed, rounds=rounds)
    rows = parallel.local_rows(batch_size, mesh)

    def some(step: int) -> Batch:
        order = np.random.default_rng((seed, step)).permutation(rounds * num_classes)
        x0, c = groups(step)
        return Batch(x0[order[rows]], c[order[rows]])

    return some


def _dim(example: Batch, members: Members) -> int:
    shape = np.shape(example.x0)
    return int(np.prod(shape[2:] if members == "condition" else shape[1:]))


def _sources(batch: Batch, members: Members, m: int, mesh: Mesh) -> np.ndarray:
    """A number for every example that is the same where x0 is: examples of one x0 are alike.

    Groups of several x0 take that of their first.
    """
    x0 = np.asarray(batch.x0)
    if members == "condition":
        x0 = x0[:, 0]
    elif members == "mixed":
        x0 = x0[::m]
    sums = [digests.crc(np.ascontiguousarray(each).tobytes()) & 0x7FFFFFFF for each in x0]
    placed = parallel.place_batch(np.asarray(sums, np.int32), mesh)
    return processes.to_host(placed)


def _append(path: Path, index: int, tensors: Mapping[str, np.ndarray]) -> None:
    manifest = store.read_manifest(path)
    shard = store.write_shard(path, index, tensors, manifest.layout)
    store.write_manifest(path, manifest.with_shard(shard))


def _check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    bad = ~np.isfinite(tensors["gram"]).all(axis=1)
    if bad.any():
        times = np.sort(tensors["t"][bad])
        raise NonFiniteError(
            f"expected finite predictions, got others at {bad.sum()} of {len(bad)} examples, "
            f"t from {times[0]:.4g} to {times[-1]:.4g}"
        )


def _check_batch(
    example: Batch, members: Members, num_particles: int, batch_size: int, mesh: Mesh
) -> None:
    """Shapes are refused before anything is computed."""
    size = batch_size * (num_particles if members == "mixed" else 1)
    leading: tuple[int, ...] = (len(parallel.local_rows(size, mesh)),)
    if members == "condition":
        leading = (*leading, num_particles)
    shape = np.shape(example.x0)
    if shape[: len(leading)] != leading:
        raise StatisticsError(f"data: expected x0 with leading axes {leading}, got {shape}")
    for name, leaf in store.named_conditions(example.c).items():
        if np.shape(leaf)[:1] != leading[:1]:
            raise StatisticsError(
                f"data: expected {name} with leading axis {leading[0]}, got {np.shape(leaf)}"
            )


def _check_sizes(num_examples: int, batch_size: int, shard_examples: int, mesh: Mesh) -> None:
    if batch_size < 1 or batch_size % mesh.size:
        raise StatisticsError(
            f"batch_size: expected a multiple of the {mesh.size} devices, got {batch_size}"
        )
    for name, size in {"num_examples": num_examples, "shard_examples": shard_examples}.items():
        if size < 1 or size % batch_size:
            raise StatisticsError(
                f"{name}: expected a multiple of batch_size = {batch_size}, got {size}"
            )
