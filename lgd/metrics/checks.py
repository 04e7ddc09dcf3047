"""What every metric asks of its input: finite numbers in rows of one width."""

import numpy as np
from jaxtyping import Array, Float


def checked(
    features: Float[np.ndarray, "..."] | Float[Array, "..."],
    size: int | None = None,
    *,
    least: int = 0,
) -> Float[np.ndarray, "n f"]:
    """Features as a finite array (n, f), n >= least, f = size where it is given.

    Raises ValueError for other shapes and for values that are not finite.
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
    """Two sets of features of one width, each of them `checked`."""
    x = checked(x, least=least)
    return x, checked(y, x.shape[1], least=least)
