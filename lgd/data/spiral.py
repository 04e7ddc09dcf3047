"""A 2-D toy with a known law: spiral arms, which are classes, made of Gaussian components."""

import jax
import jax.numpy as jnp
import numpy as np

from lgd.data.dataset import Dataset, Split, labelled
from lgd.denoisers.mixture import GaussianMixture, MixtureParams
from lgd.types import Schedule

NUM_CLASSES = 8
COMPONENTS = 4  # of each class


def mixture(schedule: Schedule) -> tuple[GaussianMixture, MixtureParams]:
    """Return the exact denoiser of eight arms of four components, and its parameters.

    Neighbouring arms overlap near the centre; data fit in [-2, 2]^2.
    """
    arm, position = np.divmod(np.arange(NUM_CLASSES * COMPONENTS), COMPONENTS)
    radius = 0.35 + 0.4 * position
    angle = 2.0 * np.pi * arm / NUM_CLASSES + 0.35 * position
    means = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    deviations = 0.06 + 0.03 * position
    labels = tuple(int(label) for label in arm)
    exact = GaussianMixture(labels=labels, schedule=schedule)
    return exact, exact.params(
        jnp.asarray(means, jnp.float32), jnp.asarray(deviations**2, jnp.float32)
    )


def load(
    num_train: int, num_validation: int, num_test: int, *, schedule: Schedule, seed: int = 0
) -> Dataset:
    """Return independent draws (n, 2) of the mixture in three splits, equally many of every class.

    Args:
      num_train: draws of the train split, rounded down to a multiple of the number of classes.
      num_validation: draws of the validation split, likewise.
      num_test: draws of the test split, likewise.
      schedule: noise schedule of the mixture's denoiser; draws do not depend on it.
      seed: for the draws.
    """
    exact, params = mixture(schedule)
    keys = jax.random.split(jax.random.key(seed), 3)

    def draw(key: jax.Array, size: int) -> Split:
        labels = jnp.tile(jnp.arange(NUM_CLASSES, dtype=jnp.int32), size // NUM_CLASSES)
        return labelled(np.asarray(exact.draw(key, params, labels)), np.asarray(labels))

    sizes = (num_train, num_validation, num_test)
    train, validation, test = (draw(key, size) for key, size in zip(keys, sizes, strict=True))
    return Dataset(train, validation, test, tuple(f"arm {k}" for k in range(NUM_CLASSES)))
