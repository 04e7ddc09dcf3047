"""Small classifiers, whose features and labels serve metrics, objectives and rewards.

All return logits (b, num_classes) and the last hidden layer (b, f), and refuse integers and images
of 0 to 255 with ValueError (what is traced by its dtype).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from lgd.data.ranges import checked_examples
from lgd.types import Params, PRNGKey


class FeatureClassifier(nn.Module):
    """Classifier of flattened inputs: an MLP with two hidden layers."""

    num_classes: int
    width: int = 128
    num_features: int = 32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *dims"]
    ) -> tuple[Float[Array, "b classes"], Float[Array, "b f"]]:
        """Return logits (b, num_classes) and features (b, num_features)."""
        x = checked_examples("x", x)
        h = nn.gelu(nn.Dense(self.width)(x.reshape(len(x), -1)))
        features = nn.gelu(nn.Dense(self.num_features)(h))
        return nn.Dense(self.num_classes)(features), features


class ConvClassifier(nn.Module):
    """Classifier of images (h, w, channels): three 3x3 convolutions, two of which halve the image.

    It is another kind of network than `FeatureClassifier`, so that one can check the other.
    num_features = 0: all positions and channels are features; else a dense layer returns so many.
    """

    num_classes: int
    width: int = 16
    num_features: int = 0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w channels"]
    ) -> tuple[Float[Array, "b classes"], Float[Array, "b f"]]:
        """Return logits (b, num_classes) and features (b, f)."""
        h = nn.gelu(nn.Conv(self.width, (3, 3))(checked_examples("x", x)))
        h = nn.gelu(nn.Conv(2 * self.width, (3, 3), strides=2)(h))
        h = nn.gelu(nn.Conv(2 * self.width, (3, 3), strides=2)(h))
        features = h.reshape(len(x), -1)
        if self.num_features:
            features = nn.gelu(nn.Dense(self.num_features)(features))
        return nn.Dense(self.num_classes)(features), features


class LeNetClassifier(nn.Module):
    """Classifier of images from 16x16: two 5x5 convolutions with max pooling and a dense layer.

    After LeNet-5 (LeCun et al., 1998, doi 10.1109/5.726791). It differs from `ConvClassifier` in
    receptive fields, pooling and activations, so that an objective can use the features of one
    and the evaluation those of the other.
    """

    num_classes: int
    width: int = 16
    num_features: int = 64

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w channels"]
    ) -> tuple[Float[Array, "b classes"], Float[Array, "b f"]]:
        """Return logits (b, num_classes) and features (b, num_features)."""
        x = checked_examples("x", x)
        for channels in (self.width, 2 * self.width):
            x = nn.silu(nn.max_pool(nn.Conv(channels, (5, 5), padding="VALID")(x), (2, 2), (2, 2)))
        features = nn.silu(nn.Dense(self.num_features)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes)(features), features


Classifier = FeatureClassifier | ConvClassifier | LeNetClassifier


def classification_loss(
    classifier: Classifier,
    params: Params,
    x: Float[Array, "b *dims"],
    labels: Int[Array, " b"],
    key: PRNGKey,
    *,
    noise: float = 0.1,
) -> Float[Array, ""]:
    """Return the cross-entropy on inputs with Gaussian noise, with labels smoothed by 0.1.

    Args:
      classifier: the network to train.
      params: its arrays.
      x: inputs (b, *dims).
      labels: classes (b,), integers from 0.
      key: source of the noise.
      noise: standard deviation of the noise; 0: none.
    """
    logits, _ = classifier.apply(params, x + noise * jax.random.normal(key, x.shape))
    targets = optax.smooth_labels(jax.nn.one_hot(labels, classifier.num_classes), 0.1)
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))
