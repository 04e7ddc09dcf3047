"""Inception-v3 for Frechet distances of images: TensorFlow's graph of 2015-12-05."""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lgd.metrics.inception.blocks import (
    ConvNorm,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
    halving_pool,
)
from lgd.types import Params

NUM_LOGITS = 1008
SIZE = 299  # of the images that it was trained on
BATCH = 64


Tree = TypeVar("Tree")  # of arrays (n, k)


class Outputs(NamedTuple):
    """Features of images for the Frechet distance, logits, and logits for the Inception score.

    The latter have no bias: the original implementation of the score multiplies the features by the
    last matrix only, and published scores follow it, over all 1008 logits.
    """

    features: Float[Array, "b 2048"]
    logits: Float[Array, "b 1008"]
    score_logits: Float[Array, "b 1008"]


class InceptionV3(nn.Module):
    """Inception-v3 on images (b, h, w, 3) as `prepared` returns them, with h, w >= 75."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> Outputs:
        """Return the means of the last feature maps, and logits."""
        x = ConvNorm(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = ConvNorm(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = halving_pool(ConvNorm(64, (3, 3), name="Conv2d_2b_3x3")(x))
        x = ConvNorm(80, name="Conv2d_3b_1x1")(x)
        x = halving_pool(ConvNorm(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x))
        x = InceptionA(32, name="Mixed_5b")(x)
        x = InceptionA(64, name="Mixed_5c")(x)
        x = InceptionA(64, name="Mixed_5d")(x)
        x = InceptionB(name="Mixed_6a")(x)
        x = InceptionC(128, name="Mixed_6b")(x)
        x = InceptionC(160, name="Mixed_6c")(x)
        x = InceptionC(160, name="Mixed_6d")(x)
        x = InceptionC(192, name="Mixed_6e")(x)
        x = InceptionD(name="Mixed_7a")(x)
        x = InceptionE(name="Mixed_7b")(x)
        x = InceptionE("max", name="Mixed_7c")(x)
        features = jnp.mean(x, axis=(1, 2))
        dense = nn.Dense(NUM_LOGITS, use_bias=False, precision="highest", name="fc")
        score_logits = dense(features)
        bias = self.param("fc_bias", nn.initializers.zeros, (NUM_LOGITS,))
        return Outputs(features, score_logits + bias[None], score_logits)


def in_batches(apply: Callable[[Array], Tree], images: Float[Array, "n h w c"]) -> Tree:
    """Return ``apply(images)``, arrays (n, k), computed `BATCH` images at a time.

    Activations of Inception-v3 are 10 MB an image.
    """
    count = len(images)
    if count <= BATCH:
        return apply(images)
    padded = jnp.pad(images, [(0, -count % BATCH)] + [(0, 0)] * 3)
    batches = lax.map(apply, padded.reshape(-1, BATCH, *images.shape[1:]))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1])[:count], batches)


@functools.cache
def template() -> Params:
    """Return shapes and dtypes of the 23,885,392 parameters."""
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    return jax.eval_shape(InceptionV3().init, jax.random.key(0), image)
