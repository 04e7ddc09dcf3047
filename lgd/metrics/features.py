"""Features of examples, and sets of features that do not depend on their order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.data.ranges import checked_examples
from lgd.machinery.progress import bar
from lgd.metrics.checks import checked
from lgd.types import FeatureFn


def extract(
    feature_fn: FeatureFn, x: np.ndarray | Array, *, batch_size: int = 1024
) -> Float[np.ndarray, "n f"]:
    """Return features (n, f) of examples (n, *dims), computed in batches, as float32 on the host.

    The last batch is padded with copies of its last example, so that a jitted feature_fn compiles
    once.

    Raises:
      ValueError: without examples; for examples in memory that are integers, not finite, or pixels
        of 0 to 255; or for features that are not (n, f) or not finite.
    """
    if isinstance(x, np.ndarray | jax.Array):
        checked_examples("x", x)
    size = min(batch_size, len(x))
    parts = []
    starts = range(0, len(x), max(size, 1))
    with bar("features of examples", len(starts), show=len(starts) > 1) as advance:
        for start in starts:
            part = jnp.asarray(x[start : start + size])
            padding = [(0, size - len(part))] + [(0, 0)] * (part.ndim - 1)
            output = np.atleast_1d(feature_fn(jnp.pad(part, padding, mode="edge")))
            parts.append(checked(output[: len(part)], name="features of the examples"))
            advance("")
    if not parts:
        raise ValueError("expected examples, got none")
    return np.concatenate(parts).astype(np.float32)


class FeatureSet(NamedTuple):
    """A set of features in float32, 4 n f bytes.

    ``rows()`` sorts it by bytes, so that results are bit-equal for every order and sharding of the
    features.
    """

    parts: tuple[Float[np.ndarray, "_ f"], ...] = ()

    def update(self, features: Float[np.ndarray, "n f"] | Float[Array, "n f"]) -> "FeatureSet":
        """Return the set with n further features.

        Raises:
          ValueError: for features that are not (n, f) of the same f, or not finite.
        """
        size = self.parts[0].shape[1] if self.parts else None
        return FeatureSet((*self.parts, checked(features, size).astype(np.float32)))

    def merge(self, other: "FeatureSet") -> "FeatureSet":
        """Return the union of two sets."""
        return FeatureSet((*self.parts, *other.parts))

    def rows(self) -> Float[np.ndarray, "n f"]:
        """Return all features (n, f), in an order that depends on their values alone.

        Raises:
          ValueError: for an empty set.
        """
        if not self.parts:
            raise ValueError("expected features, got none")
        joined = np.ascontiguousarray(np.concatenate(self.parts) + np.float32(0.0))  # -0 is 0
        keys = joined.view(np.dtype((np.void, joined.shape[1] * joined.itemsize)))[:, 0]
        return joined[np.argsort(keys, kind="stable")]
