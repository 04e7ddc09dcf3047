"""A residual MLP with class labels, for vectors and small images."""

import flax.linen as nn
from jaxtyping import Array, Float, Int

from lgd.denoisers.layers import fourier_features


class ResidualMLP(nn.Module):
    """Residual MLP on flattened input; every block embeds logsnr and label separately.

    Labels go from 0 to num_classes, where num_classes means "no label". The output is zero at
    initialisation.

    Args:
      num_classes: number of labels.
      width: size of the hidden layers.
      depth: number of blocks.
      gain: whether every entry of the input, times a learned function of logsnr, is added to the
        output. Layers narrower than the input then need not carry its noise, which predictions of
        eps, v and velocity contain.
    """

    num_classes: int
    width: int = 256
    depth: int = 4
    gain: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *dims"], logsnr: Float[Array, " b"], labels: Int[Array, " b"]
    ) -> Float[Array, "b *dims"]:
        """Return a prediction of the shape of x."""
        times = fourier_features(logsnr, 32)
        flat = x.reshape(len(x), -1)
        h = nn.Dense(self.width)(flat)
        for _ in range(self.depth):
            label_table = nn.Embed(self.num_classes + 1, self.width)
            embedding = nn.Dense(self.width)(times) + label_table(labels)
            h = h + nn.Dense(self.width)(nn.silu(nn.LayerNorm()(h) + embedding))
        out = _zeros(flat.shape[1])(nn.silu(nn.LayerNorm()(h)))
        if self.gain:
            gain = _zeros(flat.shape[1], name="gain")
            out = out + gain(nn.silu(nn.Dense(64, name="gain_times")(times))) * flat
        return out.reshape(x.shape)


def _zeros(size: int, name: str | None = None) -> nn.Dense:
    """Return a dense layer whose kernel is zero at initialisation."""
    return nn.Dense(size, kernel_init=nn.initializers.zeros, name=name)
