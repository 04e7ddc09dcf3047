"""Inception-v3 for Frechet distances and Inception scores of images.

    params = inception.load("inception.safetensors", sha256=...)
    network = inception.feature_network(params)     # network.apply: images -> (n, 2048)

Images are (n, h, w, 1 or 3) in [-1, 1], of any size. Weights come from a local file, made once by
``python -m experiments.convert_inception``.
"""

import functools

import jax
from jaxtyping import Array, Float

from lgd.data.ranges import checked_images
from lgd.machinery.lazy import modules_of
from lgd.metrics.inception.network import InceptionV3, Outputs, in_batches, template
from lgd.metrics.inception.preprocess import prepared, resize
from lgd.metrics.inception.weights import PUBLISHED_SHA256, convert, from_torch, load
from lgd.metrics.reference import FeatureNetwork, network_identity
from lgd.types import Params

__all__ = [
    "PUBLISHED_SHA256",
    "InceptionV3",
    "Outputs",
    "convert",
    "feature_network",
    "features",
    "from_torch",
    "load",
    "outputs",
    "prepared",
    "resize",
    "score_logits",
    "template",
]

__getattr__ = modules_of(__name__)


def outputs(params: Params, images: Float[Array, "n h w c"], *, quantize: bool = True) -> Outputs:
    """Return features and logits of images in [-1, 1], of any size.

    Args:
      params: parameters of Inception-v3, see `load`.
      images: images (n, h, w, 1 or 3) in [-1, 1].
      quantize: whether pixels are rounded to 8 bits, see `prepared`.

    Raises:
      ValueError: for images that are no floats, or far outside [-1, 1], see `checked_images`.
    """
    return _outputs(params, checked_images("images", images), quantize=quantize)


@functools.partial(jax.jit, static_argnames="quantize")
def _outputs(params: Params, images: Float[Array, "n h w c"], *, quantize: bool) -> Outputs:
    def apply(some: Float[Array, "b h w c"]) -> Outputs:
        return InceptionV3().apply(params, prepared(some, quantize=quantize))  # type: ignore[return-value]

    return in_batches(apply, images)


def features(
    params: Params, images: Float[Array, "n h w c"], *, quantize: bool = True
) -> Float[Array, "n 2048"]:
    """Return the features of images for Frechet distance, KID, precision and recall."""
    return outputs(params, images, quantize=quantize).features


def score_logits(
    params: Params, images: Float[Array, "n h w c"], *, quantize: bool = True
) -> Float[Array, "n 1008"]:
    """Return the logits of images for the Inception score, see `Outputs`."""
    return outputs(params, images, quantize=quantize).score_logits


def feature_network(params: Params, *, quantize: bool = True) -> FeatureNetwork:
    """Return `features` with these parameters, and the identity for statistics on disk."""
    preprocessing = f"TensorFlow 1's bilinear resize to 299x299; quantize={quantize}"
    return FeatureNetwork(
        functools.partial(features, params, quantize=quantize),
        network_identity(InceptionV3(), params, preprocessing=preprocessing),
    )
