"""Preprocessing of images for Inception-v3, as in TensorFlow 1."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.metrics.inception.network import SIZE


def prepared(
    images: Float[Array, "b h w c"], *, quantize: bool = True
) -> Float[Array, "b 299 299 3"]:
    """Return ``(v - 128) / 128``, where v is ``127.5 (x + 1)`` resized to 299x299.

    Args:
      images: x in [-1, 1], with 1 or 3 channels; one channel is repeated.
      quantize: whether v is rounded, ties upwards, and clipped to the levels 0 to 255 before it is
        resized, as if images were saved in 8 bits and read; published Frechet distances are
        computed from such images.

    Raises:
      ValueError: for other shapes.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"expected images (b, h, w, 1) or (b, h, w, 3), got {images.shape}")
    values = 127.5 * (images.astype(jnp.float32) + 1.0)
    if quantize:
        values = jnp.clip(jnp.floor(values + 0.5), 0.0, 255.0)
    coloured = jnp.broadcast_to(values, (*values.shape[:-1], 3))
    return (resize(coloured, SIZE) - 128.0) / 128.0


def resize(images: Float[Array, "b h w c"], size: int) -> Float[Array, "b size size c"]:
    """Return images resized to (size, size) by TensorFlow 1's bilinear interpolation.

    Output pixel i reads input position ``i h / size``: no half-pixel centres, no aligned corners,
    no smoothing when shrinking. Beyond the last pixel that pixel is repeated.
    """
    for axis in (2, 1):
        low, high, weight = _taps(images.shape[axis], size)
        first, second = (jnp.take(images, index, axis=axis) for index in (low, high))
        along = [size if i == axis else 1 for i in range(4)]
        images = first + (second - first) * weight.reshape(along)
    return images


def _taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two input pixels of every output pixel, and the weight of the second, float32."""
    position = np.arange(size, dtype=np.float32) * (np.float32(length) / np.float32(size))
    low = np.minimum(np.floor(position).astype(np.int32), length - 1)
    return low, np.minimum(low + 1, length - 1), position - low.astype(np.float32)
