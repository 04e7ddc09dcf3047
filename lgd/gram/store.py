"""Statistics on disk: shards of safetensors, and a manifest that names and verifies them.

    manifest.json            layout, law of t, fingerprint, and every shard with its sha256
    shard-00000.safetensors  t (n,), gram (n, p), source (n,), c..., features (n, m, f) if collected

The manifest is written anew, atomically, after every shard, so that it always names whole shards
only; a file it does not name is the remainder of an interruption. It holds its own digest.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lgd.gram.checks import check_alike, check_tensors, is_condition
from lgd.gram.layout import LAWS, CollectionLaw, Layout, Statistics, StatisticsError
from lgd.machinery import digests, files, json_file, storage
from lgd.machinery.paths import local
from lgd.machinery.progress import bar
from lgd.machinery.tensors import host_array, nested, packed, unpacked
from lgd.machinery.words import one_line, shown
from lgd.types import Condition

MANIFEST = "manifest.json"
FORMAT = 1
_MAX_MANIFEST = 16 * 2**20  # bytes


class Shard(NamedTuple):
    """One file of a collection, as the manifest names it."""

    file: str
    sha256: str
    examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of a folder of statistics: what it will hold, and the shards it has."""

    layout: Layout
    law: CollectionLaw
    fingerprint: dict[str, str]
    num_examples: int
    shard_examples: int
    shards: tuple[Shard, ...] = ()

    @property
    def collected(self) -> int:
        """Number of examples on disk."""
        return sum(shard.examples for shard in self.shards)

    def with_shard(self, shard: Shard) -> "Manifest":
        """The manifest with one shard more."""
        return dataclasses.replace(self, shards=(*self.shards, shard))


def read(path: str | Path, *, progress: bool = True) -> Statistics:
    """All examples of a folder that `collect` filled, every byte verified.

    Raises StatisticsError, which names the file or the field, for a folder without a manifest, an
    incomplete collection, a damaged, truncated or swapped shard, or values that are no statistics.
    """
    path = folder_of(path)
    manifest = read_manifest(path)
    if manifest.collected != manifest.num_examples:
        raise StatisticsError(
            f"{path / MANIFEST}: expected {manifest.num_examples} examples, got "
            f"{manifest.collected}: the collection was interrupted; run it again to complete it"
        )
    parts = []
    with bar("read statistics", len(manifest.shards), show=progress) as advance:
        for shard in manifest.shards:
            parts.append(read_shard(path, shard, manifest))
            check_alike(path / shard.file, parts[-1], parts[0])
            advance("")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    conditions = {name: joined.pop(name) for name in list(joined) if is_condition(name)}
    n, layout = manifest.num_examples, manifest.layout
    empty = np.zeros((n, layout.num_particles, 0), np.float32)
    return Statistics(
        layout=layout,
        law=manifest.law,
        t=joined["t"],
        c=nested(conditions)["c"],
        gram=joined["gram"],
        source=joined["source"],
        features=joined.get("features", empty),
        fingerprint=manifest.fingerprint,
    )


def is_complete(path: str | Path) -> bool:
    """Whether a folder has every example of its collection; False without a manifest.

    Raises StatisticsError for a damaged manifest.
    """
    path = folder_of(path)
    if not (path / MANIFEST).exists():
        return False
    manifest = read_manifest(path)
    return manifest.collected == manifest.num_examples


def read_manifest(path: Path) -> Manifest:
    """The manifest of a folder. Raises StatisticsError."""
    file = path / MANIFEST
    try:
        values = json_file.read(file, "a manifest of statistics", max_bytes=_MAX_MANIFEST)
    except FileNotFoundError:
        raise StatisticsError(f"{file}: expected a manifest of statistics, got no file") from None
    except files.InputFileError as error:
        raise StatisticsError(str(error)) from None
    try:
        return _parsed(values)
    except StatisticsError as error:
        raise StatisticsError(f"{file}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise StatisticsError(
            f"{file}: expected a manifest of statistics, got {shown(error)}"
        ) from None


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder as a whole, or not at all."""
    values = dataclasses.asdict(manifest)
    names = {law: name for name, law in LAWS.items()}
    values["law"]["name"] = names[type(manifest.law)]
    values["shards"] = [shard._asdict() for shard in manifest.shards]
    values = {"format": FORMAT, **values}
    text = json.dumps(values | {"sha256": digests.of_json(values)}, indent=2)
    storage.write(path / MANIFEST, text.encode())


def write_shard(path: Path, index: int, tensors: Mapping[str, np.ndarray], layout: Layout) -> Shard:
    """Write the arrays of one shard as a whole, or not at all.

    Raises StatisticsError for arrays that `read` would refuse.
    """
    name = f"shard-{index:05d}.safetensors"
    check_tensors(path / name, tensors, len(tensors["t"]), layout)
    try:
        data = packed({key: host_array(key, value) for key, value in tensors.items()}, {})
    except ValueError as error:
        raise StatisticsError(f"{path / name}: {error}") from None
    storage.write(path / name, data)
    return Shard(name, digests.of_bytes(data), len(tensors["t"]))


def read_shard(path: Path, shard: Shard, manifest: Manifest) -> dict[str, np.ndarray]:
    """The arrays of one shard, verified. Raises StatisticsError."""
    file = path / shard.file
    try:
        data = files.read(file, "a shard")
    except (FileNotFoundError, files.InputFileError) as error:
        raise StatisticsError(str(error)) from None
    if (got := digests.of_bytes(data)) != shard.sha256:
        raise StatisticsError(f"{file}: expected sha256 {shown(shard.sha256)}, got {got}")
    try:
        tensors = unpacked(data).tensors
    except ValueError as error:
        raise StatisticsError(f"{file}: expected safetensors, got {one_line(error)}") from None
    check_tensors(file, tensors, shard.examples, manifest.layout)
    return tensors


def named_conditions(c: Condition) -> dict[str, Any]:
    """The leaves of a condition by name: "c" for an array, "c/..." for dicts of arrays.

    Raises StatisticsError for other structures.
    """
    pairs = jax.tree.leaves_with_path(c)
    keys = [[getattr(entry, "key", None) for entry in path] for path, _ in pairs]
    if not pairs or any(not isinstance(key, str) or "/" in key for path in keys for key in path):
        raise StatisticsError(
            "c: expected an array, or a dict of arrays by names without '/', "
            f"got {jax.tree.structure(c)}"
        )
    names = ["/".join(["c", *map(str, path)]) for path in keys]
    return dict(zip(names, (leaf for _, leaf in pairs), strict=True))


def folder_of(path: str | Path) -> Path:
    """The folder of a path. Raises StatisticsError."""
    try:
        return local(path)
    except files.InputFileError as error:
        raise StatisticsError(str(error)) from None


def _parsed(values: Mapping[str, Any]) -> Manifest:
    """The manifest that JSON values describe. Raises StatisticsError, or the error of a type."""
    if values["format"] != FORMAT:
        raise StatisticsError(f"format: expected {FORMAT}, got {shown(values['format'])}")
    said = {name: value for name, value in values.items() if name != "sha256"}
    if (got := digests.of_json(said)) != values["sha256"]:
        raise StatisticsError(
            f"sha256: expected {shown(values['sha256'])} of the other fields, got {got}"
        )
    law = dict(values["law"])
    layout = values["layout"] | {"directions": tuple(values["layout"]["directions"])}
    manifest = Manifest(
        layout=Layout(**layout),
        law=LAWS[law.pop("name")](**law),
        fingerprint={str(key): str(value) for key, value in values["fingerprint"].items()},
        num_examples=values["num_examples"],
        shard_examples=values["shard_examples"],
        shards=tuple(Shard(**shard) for shard in values["shards"]),
    )
    if "schedule" not in manifest.fingerprint:
        raise StatisticsError("fingerprint: expected a schedule, got none")
    counts = [
        manifest.num_examples,
        manifest.shard_examples,
        *(s.examples for s in manifest.shards),
    ]
    if not all(type(count) is int and 0 < count < 2**48 for count in counts):
        raise StatisticsError(f"expected numbers of examples > 0, got {shown(counts)}")
    sizes = (manifest.layout.num_particles, manifest.layout.dim)
    if {*map(type, sizes)} != {int} or type(manifest.layout.has_features) is not bool:
        raise StatisticsError(f"layout: expected whole numbers, got {shown(values['layout'])}")
    names = [shard.file for shard in manifest.shards]
    for name in names:
        if Path(name).name != name:
            raise StatisticsError(f"shards: expected names of files, got {shown(name)}")
    if len(set(names)) < len(names):
        raise StatisticsError(f"shards: expected different files, got {shown(names)}")
    return manifest
