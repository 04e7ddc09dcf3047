"""Features of examples, and sets of them that do not depend on the order they came in."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.metrics.checks import checked
from lgd.types import FeatureFn


def extract(
    feature_fn: FeatureFn, x: np.ndarray | Array, *, batch_size: int = 1024
) -> Float[np.ndarray, "n f"]:
    """``phi(x)`` of examples (n, *dims), in batches, as float32 on the host.

    The last batch is padded with copies of its last example, so that a jitted feature_fn compiles
    once. Raises ValueError for features that are not (n, f) or not finite.
    """
    size = min(batch_size, len(x))
    parts = []
    for start in range(0, len(x), max(size, 1)):
        part = jnp.asarray(x[start : start + size])
        padding = [(0, size - len(part))] + [(0, 0)] * (part.ndim - 1)
        parts.append(checked(feature_fn(jnp.pad(part, padding, mode="edge")))[: len(part)])
    if not parts:
        raise ValueError("expected examples, got none")
    return np.concatenate(parts).astype(np.float32)


class FeatureSet(NamedTuple):
    """Features held as float32: 4 n f bytes.

    ``rows()`` sorts them by their bytes, so that what is computed of it is the same bit for bit
    for every order and sharding of what came in.
    """

    parts: tuple[Float[np.ndarray, "_ f"], ...] = ()

    def update(self, features: Float[np.ndarray, "n f"] | Float[Array, "n f"]) -> "FeatureSet":
        """With n more. Raises ValueError for other shapes and values that are not finite."""
        size = self.parts[0].shape[1] if self.parts else None
        return FeatureSet((*self.parts, checked(features, size).astype(np.float32)))

    def merge(self, other: "FeatureSet") -> "FeatureSet":
        """Both together."""
        return FeatureSet((*self.parts, *other.parts))

    def rows(self) -> Float[np.ndarray, "n f"]:
        """All of them, in an order that their values alone decide."""
        if not self.parts:
            raise ValueError("expected features, got none")
        joined = np.ascontiguousarray(np.concatenate(self.parts) + np.float32(0.0))  # -0 is 0
        keys = joined.view(np.dtype((np.void, joined.shape[1] * joined.itemsize)))[:, 0]
        return joined[np.argsort(keys, kind="stable")]
