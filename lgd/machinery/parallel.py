"""A mesh of devices, and what lies where on it.

A mesh has two axes, "data" and "fsdp". Batches and samples are split over both; an array of
parameters is split over "fsdp" along its longest dimension if both are large, and copied along
"data".
The mesh decides where numbers are computed, never which: one device gives the same results, up to
rounding. With several processes (see `lgd.machinery.processes`), a mesh spans the devices of all.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from lgd.types import (
    Condition,
    Denoiser,
    HasParts,
    MakesPair,
    Params,
    PyTree,
    Schedule,
    t_max,
)

AXES = ("data", "fsdp")
LARGE = 2**16  # elements from which an array of parameters is split
SHORT = 128  # size up to which a dimension is not: it may be that of attention heads


def make_mesh(data: int = 0, fsdp: int = 1, *, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The first ``data x fsdp`` devices; data = 0: as many as there are. 1 x 1: one device.

    Several processes take part with all their devices. Raises ValueError for sizes that do not fit.
    """
    devices = jax.devices() if devices is None else devices
    if data < 0 or fsdp < 1:
        raise ValueError(f"expected data >= 0 and fsdp >= 1, got {data} and {fsdp}")
    if data == 0 and len(devices) % fsdp:
        raise ValueError(f"expected fsdp to divide the {len(devices)} devices, got {fsdp}")
    data = len(devices) // fsdp if data == 0 else data
    count = data * fsdp
    if count > len(devices) or (jax.process_count() > 1 and count < len(devices)):
        most = "exactly" if jax.process_count() > 1 else "at most"
        raise ValueError(f"expected data x fsdp = {most} {len(devices)} devices, got {count}")
    auto = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, fsdp), AXES, axis_types=auto, devices=devices[:count])


def check_axes(mesh: Mesh) -> None:
    """Raise ValueError for a mesh that is not one of `make_mesh`."""
    if mesh.axis_names != AXES:
        raise ValueError(f"expected a mesh with axes {AXES}, got {mesh.axis_names}")


def local_mesh(mesh: Mesh) -> Mesh:
    """The mesh's devices that belong to this process, along "data"; itself for one process."""
    return mesh if jax.process_count() == 1 else make_mesh(devices=mesh.local_devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(batch: PyTree, mesh: Mesh, axis: int | None = 0) -> PyTree:
    """Split along one axis over all devices; arrays without that axis are whole on each.

    axis = None: everything is whole on every device.
    """

    def of(leaf: Any) -> NamedSharding:
        if axis is None or np.ndim(leaf) <= axis:
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXES))

    return jax.tree.map(of, batch)


def param_sharding(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays of `LARGE` and more elements split over "fsdp", the others whole on every device.

    The dimension split is the largest that the size of "fsdp" divides, if it is longer than
    `SHORT`: cuDNN's attention refuses heads that are split, as a stacked bias would have them. For
    parameters, their EMA and their optimizer state, which has their shapes; arrays or
    ShapeDtypeStructs.
    """
    check_axes(mesh)

    def of(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _param_spec(np.shape(leaf), mesh.shape["fsdp"]))

    return jax.tree.map(of, tree)


def _param_spec(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    fitting = [axis for axis, size in enumerate(shape) if size > SHORT and size % parts == 0]
    if parts == 1 or math.prod(shape) < LARGE or not fitting:
        return PartitionSpec()
    axis = max(fitting, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * axis, "fsdp")


def place(tree: PyTree, shardings: PyTree) -> PyTree:
    """Put arrays where shardings (a tree, or a prefix of it) say; what lies there already stays.

    Several processes pass the same whole values, and each copies to its devices what they hold.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    return jax.tree.map(_place, tree, jax.tree.broadcast(shardings, tree))


def _place(leaf: Any, sharding: NamedSharding) -> Array:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        return jax.jit(lambda array: array, out_shardings=sharding)(leaf)
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        data = _place(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    value = np.asarray(leaf)
    value = value.astype(jax.dtypes.canonicalize_dtype(value.dtype))
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def place_batch(batch: PyTree, mesh: Mesh, axis: int | None = 0) -> PyTree:
    """Put a batch on the devices as `batch_sharding` says.

    Several processes pass their own part each, the entries `local_rows` along the axis that is
    split, and the same values where nothing is split.
    """
    shardings = batch_sharding(batch, mesh, axis)
    return jax.tree.map(jax.make_array_from_process_local_data, shardings, batch)


def local_rows(count: int, mesh: Mesh) -> Int[np.ndarray, " n"]:
    """Which of ``count`` entries, split over all devices, this process holds; ascending.

    Raises ValueError where the devices do not divide count.
    """
    if count % mesh.size:
        raise ValueError(f"expected a multiple of the {mesh.size} devices, got {count}")
    sharding = NamedSharding(mesh, PartitionSpec(AXES))
    parts = sharding.addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[part] for part in parts]))


def check_divisible(batch: PyTree, mesh: Mesh, axis: int | None = 0) -> None:
    """Raise ValueError unless the axis of every array splits over this process's devices."""
    count = len(mesh.local_devices)
    for path, leaf in jax.tree.leaves_with_path(batch):
        if axis is not None and np.ndim(leaf) > axis and leaf.shape[axis] % count:
            raise ValueError(
                f"batch{jax.tree_util.keystr(path)}: expected axis {axis} divisible by the "
                f"{count} devices of the mesh, got shape {leaf.shape}"
            )


def spread_rows(tree: PyTree, mesh: Mesh, axis: int = 0) -> PyTree:
    """Split whole arrays along an axis where the devices divide it; others stay whole on each."""

    def of(leaf: Any) -> NamedSharding:
        divides = np.ndim(leaf) > axis and leaf.shape[axis] % mesh.size == 0
        return batch_sharding(leaf, mesh, axis if divides else None)

    return place(tree, jax.tree.map(of, tree))


@dataclasses.dataclass(frozen=True)
class SpreadDenoiser:
    """A denoiser whose every call is split by rows over a mesh, whatever the layout around it.

    The number of rows need not divide: the last devices then get fewer.
    """

    denoiser: Denoiser
    mesh: Mesh

    @property
    def schedule(self) -> Schedule:
        """The forward process of the denoiser."""
        return self.denoiser.schedule

    @property
    def t_max(self) -> float:
        """The latest time at which the denoiser can be asked, see `lgd.diffusion.t_max`."""
        return t_max(self.denoiser)

    def apply(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> Float[Array, "b *dims"]:
        """``x0_hat``, shape of x_t."""
        rows = NamedSharding(self.mesh, PartitionSpec(AXES))
        x_t, t, c = jax.lax.with_sharding_constraint((x_t, t, c), rows)
        x0_hat = self.denoiser.apply(params, x_t, t=t, c=c)
        return jax.lax.with_sharding_constraint(x0_hat, rows)

    def null(self, c: Condition) -> Condition:
        """The unconditional input of the denoiser."""
        return self.denoiser.null(c)


@dataclasses.dataclass(frozen=True)
class SpreadPair(SpreadDenoiser):
    """`SpreadDenoiser` of a denoiser that makes both halves of a pair itself."""

    def pair(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> tuple[Float[Array, "b *dims"], Float[Array, "b *dims"]]:
        """The conditional and the unconditional ``x0_hat``."""
        rows = NamedSharding(self.mesh, PartitionSpec(AXES))
        x_t, t, c = jax.lax.with_sharding_constraint((x_t, t, c), rows)
        assert isinstance(self.denoiser, MakesPair)
        pair = self.denoiser.pair(params, x_t, t=t, c=c)
        return jax.lax.with_sharding_constraint(pair, rows)


def spread(denoiser: Denoiser, mesh: Mesh) -> Denoiser:
    """The denoiser with its calls, or those of its parts, split over several devices."""
    if mesh.size == 1:
        return denoiser
    if isinstance(denoiser, HasParts):
        return denoiser.with_parts(lambda part: spread(part, mesh))
    make = SpreadPair if isinstance(denoiser, MakesPair) else SpreadDenoiser
    return make(denoiser, mesh)
