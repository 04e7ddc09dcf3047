"""A diffusion transformer for images (Peebles & Xie, 2022, arXiv 2212.09748)."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
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
    over_positions,
    rematerialised,
)


class DiT(nn.Module):
    """Transformer on image patches: blocks of attention and MLP with adaLN-zero, in one scan.

    Learned positions start as 2-D sines and cosines. The output is zero at initialisation, and
    float32.

    Args:
      num_classes: number of labels, or None for conditions that are vectors; see
        `layers.ConditionEmbedding`.
      width: size of a token; 4 divides it.
      depth: number of blocks.
      heads: attention heads, which divide the width.
      patch_size: side of a patch in pixels, which divides the image's sides.
      dtype: type of matrix products and tokens; parameters, norms and softmax are float32.
      remat: what the backward pass recomputes to save memory; see `layers.rematerialised`.
    """

    num_classes: int | None
    width: int = 256
    depth: int = 6
    heads: int = 4
    patch_size: int = 2
    dtype: DType = "float32"
    remat: Remat = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w k"], logsnr: Float[Array, " b"], c: Conditions
    ) -> Float[Array, "b h w k"]:
        """Return a prediction of the shape of x.

        Raises:
          ValueError: if patch_size does not divide the image, or heads or 4 the width.
        """
        grid = self._grid(x.shape)
        embedding = Embedding(self.num_classes, self.width, name="embedding")(logsnr, c)
        tokens = nn.Dense(self.width, name="patches")(to_patches(x, self.patch_size))
        positions = self.param("positions", lambda key: sincos_positions(grid, self.width))
        h = (tokens + positions[None]).astype(self.dtype)
        h, _ = self._blocks()(h, embedding)
        scale, shift = Modulation(2, self.width, name="out_modulation")(embedding)
        h = modulated(layer_norm(h), scale, shift)
        size = self.patch_size**2 * x.shape[-1]
        out = nn.Dense(size, kernel_init=nn.initializers.zeros, name="out")(h)
        return from_patches(out, self.patch_size, grid)

    def _blocks(self) -> nn.Module:
        """Return all blocks as one module, with a leading layer axis in its parameters."""
        block = rematerialised(DiTBlock, self.remat, prevent_cse=False)
        blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
        )
        return blocks(self.heads, self.dtype, name="blocks")

    def _grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the numbers of rows and columns of patches, after checks of the sizes."""
        check_images(shape)
        rows, columns = shape[1:3]
        if rows % self.patch_size or columns % self.patch_size:
            raise ValueError(
                f"expected a patch_size that divides {rows} x {columns}, got {self.patch_size}"
            )
        if self.width % 4:
            raise ValueError(f"expected a width that 4 divides, got {self.width}")
        return rows // self.patch_size, columns // self.patch_size


class DiTBlock(nn.Module):
    """Block ``h += gate attention(h')``, then ``h += gate mlp(h')``; h' is the modulated norm of h.

    Gate, scale and shift are linear in silu(embedding) and zero at initialisation (adaLN-zero;
    Peebles & Xie, 2022, arXiv 2212.09748).
    """

    heads: int
    dtype: DType = "float32"

    @nn.compact
    def __call__(
        self, h: Float[Array, "b n w"], embedding: Float[Array, "b e"]
    ) -> tuple[Float[Array, "b n w"], None]:
        """Return the new tokens (b, n, w), and None because `nn.scan` has nothing to stack."""
        width, dtype = h.shape[-1], jnp.dtype(self.dtype)
        first = Modulation(3, width, name="attention_modulation")(embedding)
        second = Modulation(3, width, name="mlp_modulation")(embedding)
        mixed = Attention(self.heads, self.dtype, name="attention")(
            modulated(layer_norm(h), *first[:2])
        )
        h = _gated(h, mixed, first[2])
        hidden = nn.Dense(4 * width, dtype=dtype, name="mlp_in")(
            modulated(layer_norm(h), *second[:2])
        )
        out = nn.Dense(width, dtype=dtype, name="mlp_out")(nn.gelu(hidden))
        return _gated(h, out, second[2]), None


def layer_norm(h: Float[Array, "b n w"]) -> Float[Array, "b n w"]:
    """Return tokens normalised to mean 0 and variance 1 each, in float32."""
    h = h.astype(jnp.float32)
    h = h - jnp.mean(h, axis=-1, keepdims=True)
    return h / jnp.sqrt(jnp.mean(jnp.square(h), axis=-1, keepdims=True) + 1e-6)


def _gated(
    h: Float[Array, "b n w"], change: Float[Array, "b n w"], gate: Float[Array, "b w"]
) -> Float[Array, "b n w"]:
    return h + (over_positions(gate, h) * change).astype(h.dtype)


def to_patches(x: Float[Array, "b h w k"], size: int) -> Float[Array, "b n p"]:
    """Return the squares of ``size`` pixels a side, row by row, flattened to (b, n, p)."""
    b, rows, columns, k = x.shape
    x = x.reshape(b, rows // size, size, columns // size, size, k)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, size * size * k)


def from_patches(
    patches: Float[Array, "b n p"], size: int, grid: tuple[int, int]
) -> Float[Array, "b h w k"]:
    """Return the images of a grid (rows, columns) of patches; the inverse of `to_patches`."""
    rows, columns = grid
    x = patches.reshape(len(patches), rows, columns, size, size, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(len(patches), rows * size, columns * size, -1)


def sincos_positions(grid: tuple[int, int], width: int) -> Float[Array, "n w"]:
    """Return sines and cosines of row and column, (n, w), for patches row by row.

    Each of the four takes a quarter of the width, with wavelengths from 2 pi to 2 pi 10,000
    (Vaswani et al., 2017, arXiv 1706.03762).
    """
    frequencies = 10_000.0 ** -np.linspace(0.0, 1.0, width // 4, endpoint=False)
    row, column = (i.ravel()[:, None] * frequencies for i in np.indices(grid))
    waves = [np.sin(row), np.cos(row), np.sin(column), np.cos(column)]
    return jnp.asarray(np.concatenate(waves, axis=-1), jnp.float32)
