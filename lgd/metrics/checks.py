"""Checks of the input of metrics: finite numbers in rows of one width."""

import numpy as np
from jaxtyping import Array, Float


def checked(
    features: Float[np.ndarray, "..."] | Float[Array, "..."],
    size: int | None = None,
    *,
    least: int = 0,
) -> Float[np.ndarray, "n f"]:
    """Return features as a NumPy array (n, f), whose dtype is kept.

    Args:
      features: features (n, f).
      size: f that is expected; None: any.
      least: least n.

    Raises:
      ValueError: for other shapes or values that are not finite.
    """
    x = np.asarray(features)
    if x.ndim != 2 or size not in (None, x.shape[1]) or len(x) < least:
        rows = f" with n >= {least}" if least else ""
        width = "f" if size is None else size
        raise ValueError(f"expected features (n, {width}){rows}, got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("expected finite features, got others")
    return x


def checked_pair(
    x: Float[np.ndarray, "..."], y: Float[np.ndarray, "..."], *, least: int = 2
) -> tuple[Float[np.ndarray, "m f"], Float[np.ndarray, "n f"]]:
    """Return two `checked` sets of features of one width, with at least ``least`` rows each."""
    x = checked(x, least=least)
    return x, checked(y, x.shape[1], least=least)
