"""A U-Net for images: residual blocks with adaptive norms, attention at some resolutions.

Ho et al., 2020, arXiv 2006.11239; Dhariwal & Nichol, 2021, arXiv 2105.05233.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.denoisers.layers import (
    Attention,
    Conditions,
    DType,
    Embedding,
    Modulation,
    Remat,
    check_images,
    modulated,
    rematerialised,
)


class UNet(nn.Module):
    """U-Net whose levels halve the image and double it again, with skip connections.

    The output is zero at initialisation, and float32.

    Args:
      num_classes: number of labels, or None for conditions that are vectors; see
        `layers.ConditionEmbedding`.
      channels: channels of the first convolution.
      multipliers: level i has ``channels * multipliers[i]`` channels.
      blocks: residual blocks of each level on the way down; one more on the way up.
      attention: numbers of rows of a feature map at which every block is followed by attention.
      heads: attention heads, which divide the channels of a level with attention.
      dtype: type of convolutions and feature maps; parameters, norms and softmax are float32.
      remat: what the backward pass recomputes to save memory; see `layers.rematerialised`.
    """

    num_classes: int | None
    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = ()
    heads: int = 4
    dtype: DType = "float32"
    remat: Remat = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w k"], logsnr: Float[Array, " b"], c: Conditions
    ) -> Float[Array, "b h w k"]:
        """Return a prediction of the shape of x.

        Raises:
          ValueError: if a size that has to be halved is odd, no level has the rows of an entry of
            ``attention``, or heads do not divide the channels of a level with attention.
        """
        self._check(x.shape)
        embedding = Embedding(self.num_classes, 4 * self.channels, name="embedding")(logsnr, c)
        h = conv(self.channels, self.dtype, name="in")(x)
        skips = [h]
        for level, widths in enumerate(self._widths):
            for i in range(self.blocks):
                h = self._block(f"down_{level}_{i}", widths, h)(h, embedding)
                skips.append(h)
            if level + 1 < len(self._widths):
                h = conv(widths, self.dtype, strides=2, name=f"halve_{level}")(h)
                skips.append(h)
        for i in range(2):
            h = self._block(f"middle_{i}", self._widths[-1], h)(h, embedding)
        for level, widths in reversed(list(enumerate(self._widths))):
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(f"up_{level}_{i}", widths, h)(h, embedding)
            if level > 0:
                h = conv(widths, self.dtype, name=f"double_{level}")(doubled(h))
        h = nn.silu(group_norm(h.shape[-1], name="out_norm")(h))
        return conv(x.shape[-1], "float32", zero=True, name="out")(h)

    @property
    def _widths(self) -> list[int]:
        return [self.channels * multiplier for multiplier in self.multipliers]

    def _block(self, name: str, width: int, h: Float[Array, "b h w k"]) -> Callable[..., Array]:
        heads = self.heads if h.shape[1] in self.attention else 0
        block = rematerialised(ResidualBlock, self.remat)
        return block(width, heads, self.dtype, name=name)

    def _check(self, shape: tuple[int, ...]) -> None:
        check_images(shape)
        halvings = len(self.multipliers) - 1
        if shape[1] % 2**halvings or shape[2] % 2**halvings:
            raise ValueError(
                f"expected rows and columns that {2**halvings} divides, to be halved {halvings} "
                f"times, got {shape[1]} x {shape[2]}"
            )
        rows = [shape[1] // 2**level for level in range(halvings + 1)]
        if unknown := sorted(set(self.attention) - set(rows)):
            raise ValueError(f"expected attention at rows of a level, {rows}, got {unknown}")
        attended = [w for w, n in zip(self._widths, rows, strict=True) if n in self.attention]
        if any(width % self.heads for width in attended):
            raise ValueError(f"expected heads that divide {attended} channels, got {self.heads}")


class ResidualBlock(nn.Module):
    """Residual block: norm, convolution, adaptive norm, convolution; attention if heads > 0.

    The last convolution and the attention are zero at initialisation.
    """

    width: int
    heads: int
    dtype: DType = "float32"

    @nn.compact
    def __call__(
        self, h: Float[Array, "b h w k"], embedding: Float[Array, "b e"]
    ) -> Float[Array, "b h w n"]:
        """Return feature maps of ``width`` channels, with the rows and columns of h."""
        change = nn.silu(group_norm(h.shape[-1], name="norm_0")(h))
        change = conv(self.width, self.dtype, name="conv_0")(change)
        scale, shift = Modulation(2, self.width, name="modulation")(embedding)
        change = nn.silu(modulated(group_norm(self.width, name="norm_1")(change), scale, shift))
        change = conv(self.width, self.dtype, zero=True, name="conv_1")(change)
        if h.shape[-1] != self.width:
            h = nn.Dense(self.width, dtype=jnp.dtype(self.dtype), name="skip")(h)
        h = h + change
        if not self.heads:
            return h
        tokens = group_norm(self.width, name="attention_norm")(h).reshape(len(h), -1, self.width)
        zeros = nn.initializers.zeros
        mixed = Attention(self.heads, self.dtype, out_init=zeros, name="attention")(tokens)
        return h + mixed.reshape(h.shape)


def conv(
    features: int, dtype: DType, *, name: str, strides: int = 1, zero: bool = False
) -> nn.Conv:
    """Return a 3 x 3 convolution that keeps the size of the image at strides = 1.

    Args:
      features: output channels.
      dtype: type of the product and of the output.
      name: name of the submodule.
      strides: 2 halves rows and columns.
      zero: whether the kernel is zero at initialisation.
    """
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return nn.Conv(
        features, (3, 3), strides=strides, dtype=jnp.dtype(dtype), kernel_init=init, name=name
    )


def group_norm(channels: int, *, name: str) -> nn.GroupNorm:
    """Return a float32 group norm of at most 32 groups, each of at least 4 channels or all."""
    groups = math.gcd(32, max(1, channels // 4), channels)
    return nn.GroupNorm(groups, dtype=jnp.float32, name=name)


def doubled(h: Float[Array, "b h w k"]) -> Float[Array, "b h2 w2 k"]:
    """Return images of twice the rows and columns, by repeating pixels."""
    return jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
