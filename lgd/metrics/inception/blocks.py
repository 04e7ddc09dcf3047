"""Blocks of Inception-v3 (Szegedy et al., 2015, arXiv 1512.00567) in TensorFlow's graph.

The graph is that of 2015-12-05. Images are (b, h, w, channels) in float32, and products are
computed in full float32. Submodules have the names of the published PyTorch port, so that its
weights fit by name.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

EPSILON = 1e-3  # of every batch normalisation


class ConvNorm(nn.Module):
    """Convolution without bias, `StoredNorm` and ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Literal["SAME", "VALID"] = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        """Return images (b, h2, w2, features)."""
        y = nn.Conv(
            self.features,
            self.kernel,
            strides=self.stride,
            padding=self.padding,
            use_bias=False,
            precision="highest",
            name="conv",
        )(x)
        return nn.relu(StoredNorm(name="bn")(y))


class StoredNorm(nn.Module):
    """Batch norm ``scale (y - mean) / sqrt(var + 1e-3) + bias`` whose moments are parameters."""

    @nn.compact
    def __call__(self, y: Float[Array, "b h w f"]) -> Float[Array, "b h w f"]:
        """Return normalised images of the shape of y."""
        shape = y.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.param("mean", nn.initializers.zeros, shape)
        var = self.param("var", nn.initializers.ones, shape)
        factor = scale * lax.rsqrt(var + EPSILON)
        return y * factor[None, None, None] + (bias - mean * factor)[None, None, None]


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Return the mean of every 3x3 neighbourhood, at the border over existing pixels only."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Return the largest value of every 3x3 neighbourhood."""
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def halving_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Return the largest value of every second 3x3 neighbourhood within the image."""
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


class InceptionA(nn.Module):
    """Block on 35x35: branches of a 1x1, a 5x5 and two 3x3 convolutions, and an average pool."""

    pool_features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w f"]:
        """Return images with 224 + pool_features channels."""
        five = ConvNorm(48, name="branch5x5_1")(x)
        three = ConvNorm(64, name="branch3x3dbl_1")(x)
        three = ConvNorm(96, (3, 3), name="branch3x3dbl_2")(three)
        return joined(
            ConvNorm(64, name="branch1x1")(x),
            ConvNorm(64, (5, 5), name="branch5x5_2")(five),
            ConvNorm(96, (3, 3), name="branch3x3dbl_3")(three),
            ConvNorm(self.pool_features, name="branch_pool")(average_pool(x)),
        )


class InceptionB(nn.Module):
    """Block from 35x35 to 17x17: branches of one and two 3x3 convolutions, and a max pool."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        """Return images with 480 channels and those of x."""
        double = ConvNorm(64, name="branch3x3dbl_1")(x)
        double = ConvNorm(96, (3, 3), name="branch3x3dbl_2")(double)
        return joined(
            ConvNorm(384, (3, 3), 2, "VALID", name="branch3x3")(x),
            ConvNorm(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(double),
            halving_pool(x),
        )


class InceptionC(nn.Module):
    """Block on 17x17: branches of a 1x1, one and two 7x7 convolutions, and an average pool.

    A 7x7 convolution is one of 1x7 and one of 7x1.
    """

    width: int  # of the 7x7 branches

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w f"]:
        """Return images with 768 channels."""
        row, column, width = (1, 7), (7, 1), self.width
        seven = ConvNorm(width, name="branch7x7_1")(x)
        seven = ConvNorm(width, row, name="branch7x7_2")(seven)
        double = ConvNorm(width, name="branch7x7dbl_1")(x)
        double = ConvNorm(width, column, name="branch7x7dbl_2")(double)
        double = ConvNorm(width, row, name="branch7x7dbl_3")(double)
        double = ConvNorm(width, column, name="branch7x7dbl_4")(double)
        return joined(
            ConvNorm(192, name="branch1x1")(x),
            ConvNorm(192, column, name="branch7x7_3")(seven),
            ConvNorm(192, row, name="branch7x7dbl_5")(double),
            ConvNorm(192, name="branch_pool")(average_pool(x)),
        )


class InceptionD(nn.Module):
    """Block from 17x17 to 8x8: branches of a 3x3 and a 7x7 convolution, and a max pool."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        """Return images with 512 channels and those of x."""
        three = ConvNorm(192, name="branch3x3_1")(x)
        seven = ConvNorm(192, name="branch7x7x3_1")(x)
        seven = ConvNorm(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = ConvNorm(192, (7, 1), name="branch7x7x3_3")(seven)
        return joined(
            ConvNorm(320, (3, 3), 2, "VALID", name="branch3x3_2")(three),
            ConvNorm(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(seven),
            halving_pool(x),
        )


class InceptionE(nn.Module):
    """Block on 8x8: branches of a 1x1, one and two 3x3 convolutions, and a pool.

    The last 3x3 convolution of a branch is a 1x3 beside a 3x1. The last block of the graph has a
    max pool, where the paper has an average pool.
    """

    pool: Literal["average", "max"] = "average"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w f"]:
        """Return images with 2048 channels."""
        row, column = (1, 3), (3, 1)
        pooled = average_pool(x) if self.pool == "average" else max_pool(x)
        three = ConvNorm(384, name="branch3x3_1")(x)
        double = ConvNorm(448, name="branch3x3dbl_1")(x)
        double = ConvNorm(384, (3, 3), name="branch3x3dbl_2")(double)
        return joined(
            ConvNorm(320, name="branch1x1")(x),
            ConvNorm(384, row, name="branch3x3_2a")(three),
            ConvNorm(384, column, name="branch3x3_2b")(three),
            ConvNorm(384, row, name="branch3x3dbl_3a")(double),
            ConvNorm(384, column, name="branch3x3dbl_3b")(double),
            ConvNorm(192, name="branch_pool")(pooled),
        )


def joined(*branches: Float[Array, "b h w _"]) -> Float[Array, "b h w f"]:
    """Return the concatenated channels of all branches."""
    return jnp.concatenate(branches, axis=-1)
