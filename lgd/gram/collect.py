"""Collection of statistics: one pass of the frozen denoiser over real data, streamed to disk."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from lgd import checks
from lgd.data import pipeline
from lgd.data.dataset import Split
from lgd.diffusion import check_start, checked_denoiser, direction_names
from lgd.gram import identity, store
from lgd.gram.batches import (
    batches_of,
    check_conditions,
    check_example,
    dim_of,
    grouped,
    sources,
)
from lgd.gram.layout import CollectionLaw, Layout, Particles, StatisticsError, pack
from lgd.machinery import parallel, processes, stopping
from lgd.machinery.failures import NonFiniteError
from lgd.machinery.progress import bar
from lgd.objectives import draw_frozen_rows
from lgd.objectives.forms import gram_matrix
from lgd.training import Trainer
from lgd.types import Batch, Denoiser, Params, PRNGKey

Tensors = dict[str, np.ndarray]  # of one shard, or of a batch of it


def collect(
    path: str | Path,
    denoiser: Denoiser,
    params: Params,
    data: Split | Callable[[int], Batch],
    *,
    num_examples: int,
    particles: Particles | None = None,
    data_name: str = "",
    shard_examples: int = 16384,
    seed: int = 0,
    trainer: Trainer | None = None,
) -> None:
    """Ask the frozen denoiser once about every example, and keep the Gram matrices.

    An example takes a pair of denoiser calls for every particle and, for 4 particles and one
    direction, 324 bytes on disk, whatever the size of the data. After an interruption the
    collection goes on behind the last whole shard: every example is a function of the seed and its
    number, so that the result does not depend on interruptions.

    Args:
      path: folder for the shards; one that holds another collection is refused.
      denoiser: the frozen model; a `denoisers.Directions` gives further directions.
      params: arrays of the denoiser.
      data: real examples with their conditions; or batches of step: x0 (b, *dims) and c (b, ...);
        for ``members="condition"`` groups x0 (b, num_particles, *dims), c (b, num_particles, ...);
        for ``members="mixed"`` b num_particles examples. Of several processes each returns its part
        of a batch, see `parallel.local_rows`.
      num_examples: a multiple of the batch size.
      particles: what one example consists of; None: 4 noisings of one x0.
      data_name: what the data are, for the fingerprint; needed where data is a function.
      shard_examples: examples of one file, a multiple of the batch size.
      seed: of data order, times and noise.
      trainer: its ``batch_size`` (examples of one call, which the number of devices must divide),
        ``mesh`` (None: one device) and ``progress`` (a bar with the throughput) are used. Its
        ``on_step`` is called after every batch as ``on_step(number of batches so far, ())``:
        nothing is trained, so there are no parameters.

    Raises:
      ValueError: where the check finds what cannot work.
      StatisticsError: for settings that do not fit, a folder that holds something else, or groups
        of "condition" members whose conditions differ.
      NonFiniteError: for predictions that are not finite, with their times.
      Stopped: when a signal asked for it.
    """
    checked_denoiser(denoiser)
    particles = Particles() if particles is None else particles
    check_start(denoiser, (particles.law.t_max,))
    trainer = Trainer() if trainer is None else trainer
    mesh = parallel.make_mesh(1) if trainer.mesh is None else trainer.mesh
    batch_size, path = trainer.batch_size, store.folder_of(path)
    _check_sizes(num_examples, batch_size, shard_examples, mesh)
    if trainer.check and isinstance(data, Split):
        checks.look(denoiser, params, data, show=trainer.progress)
    batches = batches_of(data, particles, batch_size, seed=seed, mesh=mesh)
    example = batches(0)
    check_example(example, particles, batch_size, mesh)
    manifest = store.Manifest(
        layout=_layout(particles, dim_of(example, particles.members), denoiser),
        law=particles.law,
        fingerprint=identity.fingerprint(
            denoiser, params, data, data_name=data_name, batch_size=batch_size, seed=seed
        ),
        num_examples=num_examples,
        shard_examples=shard_examples,
    )
    done = processes.from_main(lambda: identity.verified_shards(path, manifest))
    tensors_of = _placed_pass(denoiser, params, manifest, particles, mesh=mesh, seed=seed)
    num_batches, first = (n // batch_size for n in (num_examples, sum(s.examples for s in done)))
    with (
        _reporting(trainer, num_batches, first) as report,
        pipeline.reading_ahead(batches) as batches,
    ):
        _fill(
            path,
            manifest,
            len(done),
            batch_size,
            lambda step: tensors_of(step, batches(step)),
            report,
        )


def _layout(particles: Particles, dim: int, denoiser: Denoiser) -> Layout:
    """The layout of examples of these particles, of x0 of dim numbers."""
    return Layout(
        members=particles.members,
        num_particles=particles.num_particles,
        dim=dim,
        directions=direction_names(denoiser),
        has_features=particles.features,
    )


def _placed_pass(
    denoiser: Denoiser,
    params: Params,
    manifest: store.Manifest,
    particles: Particles,
    *,
    mesh: Mesh,
    seed: int,
) -> Callable[[int, Batch], Tensors]:
    """A function (step, batch) -> arrays of the examples of the batch, computed on the mesh."""
    placed_params = parallel.place(params, parallel.param_sharding(params, mesh))
    ask = batch_pass(parallel.spread(denoiser, mesh), manifest.layout, manifest.law)
    key = parallel.place(jax.random.key(seed), parallel.replicated(mesh))

    def tensors_of(step: int, batch: Batch) -> Tensors:
        check_conditions(batch, particles.members)
        placed = parallel.place_batch(batch, mesh)
        tensors = processes.to_host(ask(placed_params, placed, jax.random.fold_in(key, step)))
        return tensors | {"source": sources(batch, particles, mesh)}

    return tensors_of


@contextlib.contextmanager
def _reporting(trainer: Trainer, num_batches: int, first: int) -> Iterator[Callable[[int], None]]:
    """A function of the step, to be called after its batch: the bar, and ``trainer.on_step``."""
    start = time.perf_counter()
    with bar("collect statistics", num_batches, show=trainer.progress) as advance:
        for _ in range(first):
            advance("")

        def report(step: int) -> None:
            seconds = time.perf_counter() - start
            rate = (step + 1 - first) * trainer.batch_size / seconds
            advance(f"{rate:,.0f} examples/s")
            if trainer.on_step is not None:
                trainer.on_step(step + 1, ())

        yield report


def _fill(
    path: Path,
    manifest: store.Manifest,
    num_done: int,
    batch_size: int,
    tensors_of: Callable[[int], Tensors],
    report: Callable[[int], None],
) -> None:
    """Write the shards after the first num_done, each from the tensors of its steps."""
    num_examples, size = manifest.num_examples, manifest.shard_examples
    for index in range(num_done, -(-num_examples // size)):
        low, high = index * size, min((index + 1) * size, num_examples)
        parts = []
        for step in range(low // batch_size, high // batch_size):
            parts.append(tensors_of(step))
            report(step)
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
        x0, c, member_c = grouped(batch, layout.members, m)
        t = law.sample_t(time_key, len(x0))
        rows = draw_frozen_rows(rows_key, denoiser, params, x0, member_c, t=t)
        blocks = rows[1:4] if layout.members == "copies" else rows[:4]
        packed = pack(gram_matrix(jnp.concatenate(blocks, axis=1)))
        tensors = {"t": t, "gram": packed}
        tensors |= {"features": rows.features} if layout.has_features else {}
        stored = {name: tensor.astype(jnp.float32) for name, tensor in tensors.items()}
        return stored | store.named_conditions(c)

    return ask


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
