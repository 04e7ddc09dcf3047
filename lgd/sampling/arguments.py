"""Checks of what is passed to samplers, each of which raises ValueError in words."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lgd import conditions, schedules
from lgd.guidance.times import checked_times
from lgd.machinery.arguments import having, whole, wrong
from lgd.machinery.words import described, one_line
from lgd.types import Condition, Denoiser, Prediction, PyTree


def check_key(key: Any) -> None:
    """Raise ValueError unless it is one key, of either kind that JAX has."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    is_typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    if not is_typed and (dtype != np.uint32 or shape not in ((2,), (4,))):
        raise wrong("key", "one key, for example jax.random.key(0)", key)


def check_denoiser(denoiser: Denoiser) -> None:
    """Raise ValueError unless it is an instance of a denoiser that can be hashed."""
    what = "a denoiser, for example made by lgd.denoisers.from_function"
    having("denoiser", denoiser, ("schedule", "apply"), what)
    try:
        hash(denoiser)
    except TypeError as error:
        raise ValueError(
            f"denoiser: expected one that can be hashed, a frozen dataclass whose arrays are in "
            f"params, got {described(denoiser)}: {error}"
        ) from None


def checked_grid(num_steps: Any, times: Any) -> Float[Array, " n"]:
    """The given times, or uniform ones where they are None."""
    if times is None:
        return checked_times(schedules.uniform_times(whole("num_steps", num_steps, low=1)))
    return checked_times(times)


def checked_shape(shape: Any) -> tuple[int, ...]:
    """The shape of one sample. Raises ValueError."""
    if not isinstance(shape, tuple | list):
        raise wrong("shape", "the shape of one sample, a tuple of sizes, such as (3,)", shape)
    return tuple(whole("shape", size, low=1) for size in shape)


def checked_start(x_t: Any, c: Condition) -> Float[Array, "b *dims"]:
    """Where a walk starts, one row for each condition. Raises ValueError."""
    batch = conditions.size(c)
    shape = np.shape(x_t)
    if shape[:1] != (batch,):
        raise ValueError(f"x_t: expected {batch} rows, one for each condition, got shape {shape}")
    x_t = jnp.asarray(x_t)
    if not jnp.issubdtype(x_t.dtype, jnp.floating):
        raise wrong("x_t", "floats", x_t)
    return x_t


def check_mesh(mesh: Any) -> None:
    """Raise ValueError unless it is a mesh or None."""
    if mesh is not None and not isinstance(mesh, Mesh):
        raise wrong("mesh", "devices made by lgd.machinery.parallel.make_mesh, or None", mesh)


def checked_prediction(result: Any, x_t: Float[Array, "b *dims"]) -> Prediction:
    """The prediction that a rule returned with its state, in the precision of x_t.

    Raises ValueError for anything else, or another shape.
    """
    is_pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Prediction)
    if not is_pair:
        raise wrong("rule", "(Prediction, state) of its apply", result)
    for name, value in result[0]._asdict().items():
        if value is not None and np.shape(value) != x_t.shape:
            got = np.shape(value)
            raise ValueError(f"{name}: expected a prediction of shape {x_t.shape}, got {got}")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, x_t.dtype), result[0])


def alike(name: str, tree: PyTree, before: PyTree) -> PyTree:
    """What a step returned, with floats in the precision that they had before it.

    Raises ValueError for another structure, other shapes, or floats where there were integers.
    """
    leaves, structure = jax.tree.flatten(before)
    if not bool(jax.tree.structure(tree) == structure):  # type: ignore[operator]
        got = one_line(jax.tree.structure(tree))
        raise ValueError(f"{name}: expected {one_line(structure)} after a step too, got {got}")
    arrays = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    for leaf, old in zip(arrays, leaves, strict=True):
        kinds = [jnp.issubdtype(x.dtype, jnp.floating) or x.dtype for x in (leaf, old)]
        if leaf.shape != old.shape or kinds[0] != kinds[1]:
            expected = f"{old.dtype} {old.shape} after a step too"
            raise ValueError(f"{name}: expected {expected}, got {leaf.dtype} {leaf.shape}")
    kept = [leaf.astype(old.dtype) for leaf, old in zip(arrays, leaves, strict=True)]
    return jax.tree.unflatten(structure, kept)
