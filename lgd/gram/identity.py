"""The identity of a collection, and what an earlier attempt at the same one left on disk."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from lgd.data import order
from lgd.data.dataset import Split
from lgd.data.dataset import fingerprint as data_fingerprint
from lgd.gram import store
from lgd.gram.layout import Layout, StatisticsError
from lgd.machinery.digests import describe, of_tree
from lgd.types import Batch, Denoiser, Params


def fingerprint(
    denoiser: Denoiser,
    params: Params,
    data: Split | Callable[[int], Batch],
    *,
    data_name: str,
    batch_size: int,
    seed: int,
) -> dict[str, str]:
    """The denoiser, the data and the settings of a collection, in words.

    Args:
      denoiser: the frozen model; a `denoisers.Directions` names all of its models.
      params: arrays of the denoiser.
      data: the real examples.
      data_name: name of the data; data given by a function are known by it alone.
      batch_size: examples of one call.
      seed: of data order, times and noise.

    Raises:
      StatisticsError: where a function gives the data and their name is empty.
    """
    if callable(data):
        if not data_name:
            raise StatisticsError(
                "data_name: expected a name of the data that a function gives, got ''"
            )
    else:
        data_name = f"{data_name} sha256 {data_fingerprint(data)}".strip()
        data_name += f", order {order.identity()}"
    try:
        description = describe(denoiser)
    except ValueError:  # a lambda or a closure, which has no name
        description = f"{type(denoiser).__name__} of a function known by its parameters alone"
    return {
        "denoiser": description,
        "denoiser_params": of_tree(params),
        "schedule": describe(denoiser.schedule),
        "data": data_name,
        "batch_size": str(batch_size),
        "seed": str(seed),
    }


def verified_shards(path: Path, manifest: store.Manifest) -> list[store.Shard]:
    """The whole shards of an earlier attempt at the same collection, every byte verified.

    A new folder gets the manifest. Raises StatisticsError for one that holds anything else.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StatisticsError(f"{path}: expected a folder to write to: {error}") from None
    if not (path / store.MANIFEST).exists():
        others = sorted(file.name for file in path.iterdir() if not _is_remainder(file.name))
        if others:
            raise StatisticsError(f"{path}: expected an empty folder, got one with {others[:3]}")
        store.write_manifest(path, manifest)
        return []
    before = store.read_manifest(path)
    lines = _differences(_fields(before), _fields(manifest))
    if lines:
        listed = "\n  ".join(lines)
        raise StatisticsError(f"{path}: holds another collection:\n  {listed}")
    for shard in before.shards:
        store.read_shard(path, shard, before)
    return list(before.shards)


def _is_remainder(name: str) -> bool:
    """Whether a file may be left by an interruption before the first manifest."""
    return name.endswith(".partial")


def _fields(manifest: store.Manifest) -> dict[str, str]:
    """All fields of a manifest that must agree between two attempts."""
    layout = {
        field.name: describe(getattr(manifest.layout, field.name))
        for field in dataclasses.fields(Layout)
    }
    sizes = {name: str(getattr(manifest, name)) for name in ("num_examples", "shard_examples")}
    return layout | {"law": describe(manifest.law)} | sizes | manifest.fingerprint


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """One line for every field that differs."""
    return [
        f"{name}: expected {before.get(name, 'nothing')}, got {now.get(name, 'nothing')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
