"""Checks of examples by dtype and range; images are floats in about [-1, 1].

Pixels of 0 to 255 in place of such images would go through every network without an error, and
Inception would take all of them for white.
"""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgd.machinery.arguments import finite_rows, wrong
from lgd.machinery.words import described

OVERSHOOT = 1.5  # real images keep to it; resizing by cubic filters overshoots by less
DIVERGED = 16.0  # a root mean square that no sampler near the data reaches, and 8-bit levels exceed
_FEW = 64  # images by which it is told whether all numbers are whole


def checked_examples(name: str, x: Any) -> Any:
    """Examples of any kind (n, *dims): finite floats, that are no images of 0 to 255.

    What is traced is checked by dtype alone. Images have four axes, the last or the second of
    which is of 1 or 3 channels.

    Args:
      name: what they are, in messages.
      x: the examples, which are returned as they are.

    Raises:
      ValueError: for integers, NaN or inf, and images of 0 to 255 or of other whole numbers.
    """
    dtype = jnp.dtype(x.dtype)
    if dtype.kind in "biu":
        raise ValueError(f"{name}: expected floats, got {dtype} {x.shape}; {_advice(name)}")
    if not jnp.issubdtype(dtype, jnp.floating) or x.ndim == 0:
        raise wrong(name, "an array of floats (n, *dims)", x)
    low, high = _extent(name, x)
    if _is_images(x.shape) and _are_pixels(x, low, high):
        got = f"{low:g} to {high:g}"
        raise ValueError(f"{name}: expected images in [-1, 1], got {got}; {_advice(name)}")
    return x


def checked_images(name: str, images: Any, *, sampled: bool = True) -> Any:
    """Images, floats in about [-1, 1], as they are; what is traced is checked by dtype alone.

    Samples of a bad model, and of strong guidance, leave the range. So of images that may be
    samples only those are refused that no sampler makes: with no number below 0 and some above 1.5,
    as pixels have, or a root mean square above 16. Images of which no number is below 0, and none
    above 1, are warned of.

    Args:
      name: what they are, in messages.
      images: the images, of any shape.
      sampled: whether they may be samples; if not, numbers beyond 1.5 are refused.

    Raises:
      ValueError: for integers, numbers far outside [-1, 1], NaN or inf.
    """
    expected = f"{name}: expected images as floats in [-1, 1]"
    x = _variable(name)
    makes = f"{x} / 127.5 - 1 makes such images of pixels of 0 to 255"
    if not jnp.issubdtype(images.dtype, jnp.floating):
        got = described(images)
        if np.dtype(images.dtype).kind in "iu" and not isinstance(images, jax.core.Tracer):
            got += f" of {images.min(initial=0)} to {images.max(initial=0)}"
        raise ValueError(f"{expected}, got {got}; {makes}")
    low, high = _extent(name, images)
    largest = max(-low, high)
    is_far = (low >= 0.0 and high > OVERSHOOT) or (largest > DIVERGED and _size(images) > DIVERGED)
    if is_far or (largest > OVERSHOOT and not sampled):
        raise ValueError(f"{expected}, got {low:g} to {high:g}; {makes}")
    if 0.0 <= low < high <= 1.0 and high > 0.5:
        got = f"got {low:g} to {high:g}; 2 * {x} - 1 makes such images of ones in [0, 1]"
        warnings.warn(f"{expected}, {got}", stacklevel=3)
    return images


def _advice(name: str) -> str:
    x = _variable(name)
    return (
        f"images of 0 to 255 become images in [-1, 1] by {x} / 127.5 - 1, other numbers become "
        f"floats by {x}.astype(np.float32)"
    )


def _variable(name: str) -> str:
    return name if name.isidentifier() else "x"


def _extent(name: str, x: Any) -> tuple[float, float]:
    """Least and largest number, both 0 where there are none, or they are not known."""
    if isinstance(x, jax.core.Tracer) or not x.size:
        return 0.0, 0.0
    if isinstance(x, jax.Array):
        with jax.ensure_compile_time_eval():  # a constant may be checked while others are traced
            ends = jnp.stack([jnp.min(x), jnp.max(x)])
        low, high = np.asarray(ends).astype(np.float64).tolist()
    else:
        with np.errstate(invalid="ignore"):
            low, high = float(x.min()), float(x.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        finite_rows(name, x)
    return low, high


def _size(x: Any) -> float:
    """The root mean square."""
    xp: Any = jnp if isinstance(x, jax.Array) else np
    with jax.ensure_compile_time_eval():
        return float(xp.sqrt(xp.mean(xp.square(x.astype(np.float32)))))


def _is_images(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and (shape[-1] in (1, 3) or shape[1] in (1, 3))


def _are_pixels(x: Any, low: float, high: float) -> bool:
    """Whether images look like levels, of 8 bits and perhaps resized, or whole ones."""
    if low < 0.0 or high <= 2.0:
        return False
    with jax.ensure_compile_time_eval():
        return 64.0 < high <= 255.0 or not bool((x[:_FEW] % 1).any())
