"""Checks of the input of metrics: finite numbers in rows of one width, by name.

Messages read ``name: expected ..., got ...``, such as "features of the samples: expected finite
numbers, got NaN in 3 of 100 rows".
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.machinery.arguments import finite_rows

LARGEST = 1e45  # of a feature: its sixth power, summed over all pairs, is finite in float64
SAMPLES, REAL = "features of the samples", "features of the real examples"


def checked(
    features: Float[np.ndarray, "..."] | Float[Array, "..."],
    size: int | None = None,
    *,
    least: int = 0,
    name: str = "features",
) -> Float[np.ndarray, "n f"]:
    """Return features as a NumPy array (n, f), whose dtype is kept.

    Args:
      features: features (n, f).
      size: f that is expected; None: any.
      least: least n.
      name: what they are, in messages.

    Raises:
      ValueError: for other shapes, or values that are not finite or beyond `LARGEST`.
    """
    x = np.asarray(features)
    if x.ndim != 2 or size not in (None, x.shape[1]) or len(x) < least:
        rows = f" with n >= {least}" if least else ""
        width = "f" if size is None else size
        raise ValueError(f"{name}: expected (n, {width}){rows}, got {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.number):
        raise ValueError(f"{name}: expected numbers, got {x.dtype}")
    finite_rows(name, x)
    if x.size and (largest := float(np.abs(x).max())) > LARGEST:
        raise ValueError(f"{name}: expected numbers of at most {LARGEST:g}, got {largest:g}")
    return x


def checked_pair(
    x: Float[np.ndarray, "..."], y: Float[np.ndarray, "..."], *, least: int = 2
) -> tuple[Float[np.ndarray, "m f"], Float[np.ndarray, "n f"]]:
    """Return two `checked` sets of features of one width, of samples (m, f) and real ones (n, f).

    Raises ValueError as `checked`, also for fewer rows than ``least``.
    """
    x = checked(x, least=least, name=SAMPLES)
    return x, checked(y, x.shape[1], least=least, name=REAL)
