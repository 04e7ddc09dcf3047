"""The autoencoder of a pipeline, between images and latents."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from lgd.data.ranges import checked_images
from lgd.exchange.torch import to_function
from lgd.machinery.progress import bar

PIXELS, FEWEST, MOST = 8 * 512**2, 8, 512  # of images that are encoded or decoded at once
_PIXELS_OF_LATENT = 64  # in most autoencoders


def channels_first(images: Any, channels: int = 0) -> Float[np.ndarray, "b k h w"]:
    """Images (b, h, w, channels) as diffusers has them, of so many channels; 0: of any number.

    Raises ValueError unless they are in [-1, 1].
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != (channels or images.shape[-1]):
        expected = f"floats (b, h, w, {channels or 'channels'})"
        raise ValueError(f"images: expected {expected}, got {images.dtype} {images.shape}")
    checked_images("images", images, sampled=False)
    return np.moveaxis(images, -1, 1).astype(np.float32)


class Codec:
    """Images (b, h, w, channels) in [-1, 1] to latents (b, c, h', w') of the network, and back.

    Latents are ``(z - shift) scale``, z the mean of the encoder's law.
    """

    def __init__(self, vae: Any) -> None:
        scale = vae.config.scaling_factor
        shift = getattr(vae.config, "shift_factor", None) or 0.0

        def mean(vae: Any, x: Any) -> Any:
            return (vae.encode(x).latent_dist.mean - shift) * scale

        def image(vae: Any, z: Any) -> Any:
            return vae.decode(z / scale + shift, return_dict=False)[0]

        self._channels = vae.config.in_channels
        self._encode, self._params = to_function(vae, mean)
        self._decode, _ = to_function(vae, image)
        self._encode_jit, self._decode_jit = jax.jit(self._encode), jax.jit(self._decode)

    @property
    def params(self) -> Any:
        """Parameters of the autoencoder, for `decoded`."""
        return self._params

    def shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the latents of an image (h, w, channels).

        Raises:
          ValueError: for images that the autoencoder does not take.
        """
        if len(image_shape) != 3 or image_shape[-1] != self._channels:
            expected = f"expected (height, width, {self._channels})"
            raise ValueError(f"images: {expected}, got shape {image_shape}")
        image = jax.ShapeDtypeStruct((1, image_shape[-1], *image_shape[:-1]), np.float32)
        return tuple(jax.eval_shape(self._encode, self._params, image).shape[1:])

    def encode(self, images: Any) -> Float[np.ndarray, "b c h w"]:
        """The latents of images, a batch at a time.

        Raises:
          ValueError: for arrays of another shape, or not in [-1, 1].
        """
        x = channels_first(images, self._channels)
        return self._in_batches("encode images", self._encode_jit, x, x[0, 0].size if len(x) else 0)

    def decode(self, latents: Any) -> Float[np.ndarray, "b h w c"]:
        """The images of latents, in [-1, 1]."""
        x = np.asarray(latents, np.float32)
        pixels = _PIXELS_OF_LATENT * (x[0, 0].size if len(x) else 0)
        images = self._in_batches("decode latents", self._decode_jit, x, pixels)
        return np.clip(np.moveaxis(images, 1, -1), -1.0, 1.0)

    def decoded(self, params: Any, latents: Float[Array, "b c h w"]) -> Float[Array, "b k h w"]:
        """The images of latents, traceable by JAX, channels first: for rewards and features."""
        return self._decode(params, latents)

    def _in_batches(self, label: str, function: Any, x: np.ndarray, pixels: int) -> np.ndarray:
        """The function of all examples, the last batch filled up with copies of one."""
        size = batch_size(len(x), pixels)
        outputs, starts = [], range(0, len(x), size)
        with bar(label, len(starts), show=len(starts) > 1) as advance:
            for first in starts:
                some = x[first : first + size]
                filled = np.concatenate([some, np.repeat(some[:1], size - len(some), axis=0)])
                outputs.append(np.asarray(function(self._params, filled))[: len(some)])
                advance("")
        return np.concatenate(outputs)


def batch_size(count: int, pixels: int) -> int:
    """How many of so many images are taken at once: a power of two, fewer where images are large.

    >>> from lgd.exchange.diffusers.codec import batch_size
    >>> batch_size(1000, 512 * 512), batch_size(1000, 32 * 32), batch_size(3, 32 * 32)
    (8, 512, 4)
    """
    fit = min(max(PIXELS // max(pixels, 1), FEWEST), MOST)
    return min(1 << (fit.bit_length() - 1), 1 << max(count - 1, 0).bit_length())
