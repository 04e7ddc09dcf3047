"""A residual MLP with class conditioning, for vectors and small images."""

import math

import flax.linen as nn
from jaxtyping import Array, Float, Int

from lgd.denoisers.layers import fourier_features


class ResidualMLP(nn.Module):
    """Flattens its input; every block sees logsnr and label, through its own embeddings.

    Labels go from 0 to num_classes, where num_classes means "no label". The output starts at zero.
    """

    num_classes: int
    width: int = 256
    depth: int = 4

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *dims"], logsnr: Float[Array, " b"], labels: Int[Array, " b"]
    ) -> Float[Array, "b *dims"]:
        """A prediction of the shape of x."""
        times = fourier_features(logsnr, 32)
        h = nn.Dense(self.width)(x.reshape(len(x), -1))
        for _ in range(self.depth):
            label_table = nn.Embed(self.num_classes + 1, self.width)
            embedding = nn.Dense(self.width)(times) + label_table(labels)
            h = h + nn.Dense(self.width)(nn.silu(nn.LayerNorm()(h) + embedding))
        out = nn.Dense(math.prod(x.shape[1:]), kernel_init=nn.initializers.zeros)
        return out(nn.silu(nn.LayerNorm()(h))).reshape(x.shape)
