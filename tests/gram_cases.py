"""Shared by the tests of lgd.gram: small denoisers, data, and collections of them."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from lgd import gram, schedules
from lgd.data import labelled
from lgd.denoisers import GaussianMixture
from lgd.training import Trainer
from lgd.types import Batch

FLOW = schedules.rectified_flow()
DIM = 3
MEANS = np.asarray([[1.0, 0.2, 0.1], [-0.8, 0.9, 0.0], [0.1, -1.2, 0.4]])
SPREAD = 0.1  # variance of the data around each mean
DENOISER = GaussianMixture((0, 0, 1), FLOW)


def wide_params(variance=0.4, shrink=0.8):
    """A denoiser that is blurred, as one that was trained too little: guidance helps it."""
    return DENOISER.params(jnp.asarray(shrink * MEANS, jnp.float32), variance)


def true_params():
    """The law of the data."""
    return DENOISER.params(jnp.asarray(MEANS, jnp.float32), SPREAD)


def draw(rng, labels):
    """Real examples of the classes (n,), (n, 3)."""
    component = np.where(labels == 1, 2, rng.integers(0, 2, len(labels)))
    noise = np.sqrt(SPREAD) * rng.normal(size=(len(labels), DIM))
    return (MEANS[component] + noise).astype(np.float32)


def split(n=64, seed=0):
    """A data set of n examples."""
    labels = (np.arange(n) % 2).astype(np.int32)
    return labelled(draw(np.random.default_rng(seed), labels), labels)


def fresh(size, seed=0):
    """Batches of examples that never repeat."""

    def batch(step):
        labels = (np.arange(size) % 2).astype(np.int32)
        return Batch(draw(np.random.default_rng((seed, step)), labels), labels)

    return batch


def collect(folder, data=None, **settings):
    """`gram.collect` of 32 examples of the blurred denoiser, 8 a batch, in shards of 16.

    Fields of the particles and of the trainer are among the settings.
    """
    settings = {"denoiser": DENOISER, "params": wide_params(), "num_examples": 32} | settings
    particles = taken(settings, gram.Particles)
    trainer = Trainer(**({"batch_size": 8, "progress": False} | taken(settings, Trainer)))
    settings = {"shard_examples": 16} | settings
    gram.collect(
        folder,
        data=split() if data is None else data,
        particles=gram.Particles(**particles),
        trainer=trainer,
        **settings,
    )


def taken(settings, kind):
    """The settings that are fields of a dataclass, taken out of the others."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: settings.pop(name) for name in names if name in settings}


def collected(folder, data=None, **settings):
    """The same, and what was collected."""
    collect(folder, data, **settings)
    return gram.read(folder, progress=False)
