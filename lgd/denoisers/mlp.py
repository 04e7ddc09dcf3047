"""A residual MLP with class conditioning, for vectors and small images."""

import flax.linen as nn
from jaxtyping import Array, Float, Int

from lgd.denoisers.layers import fourier_features


class ResidualMLP(nn.Module):
    """Flattens its input; every block sees logsnr and label, through its own embeddings.

    Labels go from 0 to num_classes, where num_classes means "no label". The output starts at zero.

    gain: add the input to the output, every entry times a learned function of logsnr. Then layers
      narrower than the input need not pass its noise on, as predictions of eps, v or velocity ask.
    """

    num_classes: int
    width: int = 256
    depth: int = 4
    gain: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *dims"], logsnr: Float[Array, " b"], labels: Int[Array, " b"]
    ) -> Float[Array, "b *dims"]:
        """A prediction of the shape of x."""
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
    """A layer that starts at zero."""
    return nn.Dense(size, kernel_init=nn.initializers.zeros, name=name)
