"""Collection of statistics: one pass of the frozen denoiser over real data, streamed to disk."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from lgd import conditions
from lgd.data import pipeline
from lgd.data.dataset import Split
from lgd.diffusion import direction_names
from lgd.gram import identity, store
from lgd.gram.layout import CollectionLaw, Layout, StatisticsError, pack
from lgd.machinery import digests, parallel, processes, stopping
from lgd.machinery.failures import NonFiniteError
from lgd.machinery.progress import bar
from lgd.objectives import Members, UniformTimes, draw_frozen_rows
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
    324 bytes on disk, whatever the size of the data. After an interruption the collection goes on
    behind the last whole shard: every example is a function of the seed and its number, so that
    the result does not depend on interruptions.

    Args:
      path: folder for the shards; one that holds another collection is refused.
      denoiser: the frozen model; a `denoisers.Directions` gives further directions.
      params: arrays of the denoiser.
      data: real examples with their conditions; or batches of step: x0 (b, *dims) and c (b, ...);
        for ``members="condition"`` groups x0 (b, num_particles, *dims), c (b, num_particles, ...);
        for ``members="mixed"`` b num_particles examples. Of several processes each returns its part
        of a batch, see `parallel.local_rows`.
      num_examples: a multiple of batch_size.
      members: what the particles of one example are, see `Layout`.
      num_particles: particles of one example, m.
      law: of t; `UniformTimes` by default, which serves any law of (s, t) by weights; a `TimeLaw`
        serves itself best.
      features: also keep `guidance.PAIR_FEATURES` of every particle, 16 bytes each.
      data_name: what the data are, for the fingerprint; needed where data is a function.
      batch_size: examples of one call; the number of devices must divide it.
      shard_examples: examples of one file, a multiple of batch_size.
      seed: of data order, times and noise.
      mesh: devices, see `parallel.make_mesh`; one by default.
      progress: show a bar with the throughput.
      on_call: called after every batch.

    Raises:
      StatisticsError: for settings that do not fit, a folder that holds something else, or groups
        of "condition" members whose conditions differ.
      NonFiniteError: for predictions that are not finite, with their times.
      Stopped: when a signal asked for it.
    """
    mesh = parallel.make_mesh(1) if mesh is None else mesh
    law = UniformTimes() if law is None else law
    _check_sizes(num_examples, batch_size, shard_examples, mesh)
    batches = _batches(data, members, num_particles, batch_size, seed, mesh)
    example = batches(0)
    _check_batch(example, members, num_particles, batch_size, mesh)
    layout = Layout(
        members=members,
        num_particles=num_particles,
        dim=_dim(example, members),
        directions=direction_names(denoiser),
        has_features=features,
    )
    manifest = store.Manifest(
        layout=layout,
        law=law,
        fingerprint=identity.fingerprint(
            denoiser, params, data, data_name=data_name, batch_size=batch_size, seed=seed
        ),
        num_examples=num_examples,
        shard_examples=shard_examples,
    )
    path = Path(path)
    done = processes.from_main(lambda: identity.verified_shards(path, manifest))
    frozen = parallel.place(params, parallel.param_sharding(params, mesh))
    ask = batch_pass(parallel.spread(denoiser, mesh), layout, law)
    key = parallel.place(jax.random.key(seed), parallel.replicated(mesh))
    start, first = time.perf_counter(), sum(shard.examples for shard in done)
    with (
        bar("collect statistics", num_examples // batch_size, show=progress) as advance,
        pipeline.reading_ahead(batches) as batches,
    ):
        for _ in range(first // batch_size):
            advance("")

        def tensors_of(step: int) -> dict[str, np.ndarray]:
            batch = batches(step)
            _check_conditions(batch, members)
            placed = parallel.place_batch(batch, mesh)
            tensors = processes.to_host(ask(frozen, placed, jax.random.fold_in(key, step)))
            return tensors | {"source": _sources(batch, members, num_particles, mesh)}

        def after_call(step: int) -> None:
            rate = ((step + 1) * batch_size - first) / (time.perf_counter() - start)
            advance(f"{rate:,.0f} examples/s")
            if on_call is not None:
                on_call()

        _fill(path, manifest, len(done), batch_size, tensors_of, after_call)


def _fill(
    path: Path,
    manifest: store.Manifest,
    num_done: int,
    batch_size: int,
    tensors_of: Callable[[int], dict[str, np.ndarray]],
    after_call: Callable[[int], None],
) -> None:
    """Write the shards after the first num_done, each from the tensors of its steps."""
    num_examples, size = manifest.num_examples, manifest.shard_examples
    for index in range(num_done, -(-num_examples // size)):
        low, high = index * size, min((index + 1) * size, num_examples)
        parts = []
        for step in range(low // batch_size, high // batch_size):
            parts.append(tensors_of(step))
            after_call(step)
            stopping.check(f"call {step + 1} of the denoiser")  # goes on behind the last shard
        shard = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        _check_finite(shard)
        processes.from_main(functools.partial(_append, path, index, shard))


def batch_pass(
    denoiser: Denoiser, layout: Layout, law: CollectionLaw
) -> Callable[..., dict[str, Array]]:
    """The jitted pass over one batch: (params, batch, key) -> arrays of its examples.

    Args:
      denoiser: the frozen model.
      layout: of the examples.
      law: of t.
    """
    m = layout.num_particles

    @jax.jit
    def ask(params: Params, batch: Batch, key: PRNGKey) -> dict[str, Array]:
        time_key, rows_key = jax.random.split(key)
        x0, c, member_c = _grouped(batch, layout.members, m)
        t = law.sample_t(time_key, len(x0))
        rows = draw_frozen_rows(rows_key, denoiser, params, x0, member_c, t=t)
        blocks = rows[1:4] if layout.members == "copies" else rows[:4]
        packed = pack(gram_matrix(jnp.concatenate(blocks, axis=1)))
        tensors = {"t": t, "gram": packed, **store.named_conditions(c)}
        return tensors | ({"features": rows.features} if layout.has_features else {})

    return ask


def _grouped(batch: Batch, members: Members, m: int) -> tuple[Array, Condition, Condition]:
    """x0 (g, m, *dims), the conditions that are kept, and that of every member (g m, ...)."""
    if members == "copies":
        return jnp.repeat(batch.x0[:, None], m, axis=1), batch.c, conditions.repeat(batch.c, m)
    if members == "condition":
        first = jax.tree.map(lambda leaf: leaf[:, 0], batch.c)
        return batch.x0, first, conditions.flatten(batch.c)
    x0 = batch.x0.reshape(-1, m, *batch.x0.shape[1:])
    return x0, conditions.reshape(batch.c, len(x0), m), batch.c


def _batches(
    data: Split | Callable[[int], Batch],
    members: Members,
    num_particles: int,
    batch_size: int,
    seed: int,
    mesh: Mesh,
) -> Callable[[int], Batch]:
    """The part of every batch that this process reads."""
    if callable(data):
        return data
    if members != "condition":
        size = batch_size * (num_particles if members == "mixed" else 1)
        rows = parallel.local_rows(size, mesh)
        return pipeline.examples(data, size, seed=seed, rows=rows)
    num_strata = max(data.num_strata, 1)
    rounds = -(-batch_size // num_strata)
    groups = pipeline.groups(data, num_particles, seed=seed, rounds=rounds)
    rows = parallel.local_rows(batch_size, mesh)

    def some(step: int) -> Batch:
        order = np.random.default_rng((seed, step)).permutation(rounds * num_strata)
        batch = groups(step)
        return Batch(batch.x0[order[rows]], conditions.take(batch.c, order[rows]))

    return some


def _dim(example: Batch, members: Members) -> int:
    """Numbers of one x0."""
    shape = np.shape(example.x0)
    return int(np.prod(shape[2:] if members == "condition" else shape[1:]))


def _sources(batch: Batch, members: Members, m: int, mesh: Mesh) -> np.ndarray:
    """A number for every example, the same for equal x0; groups take that of their first x0."""
    x0 = np.asarray(batch.x0)
    if members == "condition":
        x0 = x0[:, 0]
    elif members == "mixed":
        x0 = x0[::m]
    sums = [digests.crc(np.ascontiguousarray(one).tobytes()) & 0x7FFFFFFF for one in x0]
    placed = parallel.place_batch(np.asarray(sums, np.int32), mesh)
    return processes.to_host(placed)


def _append(path: Path, index: int, tensors: Mapping[str, np.ndarray]) -> None:
    """Write one shard, and the manifest that names it."""
    manifest = store.read_manifest(path)
    shard = store.write_shard(path, index, tensors, manifest.layout)
    store.write_manifest(path, manifest.with_shard(shard))


def _check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    """Raise NonFiniteError, with the times, for examples whose products are not finite."""
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
    """Raise StatisticsError for a batch of another shape, before anything is computed."""
    size = batch_size * (num_particles if members == "mixed" else 1)
    leading: tuple[int, ...] = (len(parallel.local_rows(size, mesh)),)
    if members == "condition":
        leading = (*leading, num_particles)
    shape = np.shape(example.x0)
    if shape[: len(leading)] != leading:
        raise StatisticsError(f"data: expected x0 with leading axes {leading}, got {shape}")
    for name, leaf in store.named_conditions(example.c).items():
        if np.shape(leaf)[: len(leading)] != leading:
            raise StatisticsError(
                f"data: expected {name} with leading axes {leading}, got {np.shape(leaf)}"
            )


def _check_conditions(batch: Batch, members: Members) -> None:
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


def _check_sizes(num_examples: int, batch_size: int, shard_examples: int, mesh: Mesh) -> None:
    """Raise StatisticsError unless the sizes divide one another."""
    if batch_size < 1 or batch_size % mesh.size:
        raise StatisticsError(
            f"batch_size: expected a multiple of the {mesh.size} devices, got {batch_size}"
        )
    for name, size in {"num_examples": num_examples, "shard_examples": shard_examples}.items():
        if size < 1 or size % batch_size:
            raise StatisticsError(
                f"{name}: expected a multiple of batch_size = {batch_size}, got {size}"
            )
