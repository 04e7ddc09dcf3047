"""Runs on images whose networks nobody trained."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import build
from experiments.workdir import Workdir
from lgd.data import Dataset
from lgd.types import Params, PRNGKey


def drawn(init: Callable[[PRNGKey], Params], seed: int) -> Params:
    """Parameters without compiling an initialisation."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape, scale=0.2).astype(np.float32),
        jax.eval_shape(lambda: init(jax.random.key(0))),
    )


def image_run(path: Path, config: ConfigDict) -> tuple[Workdir, Dataset]:
    """A folder with a denoiser and the classifier that measures."""
    dataset, workdir = build.dataset(config), Workdir(path, config)
    network = build.network_denoiser(config, dataset.num_classes)
    workdir.save_params("denoiser", drawn(lambda key: network.init(key, dataset.shape), 0))
    classifier = build.classifier(config.classifier, dataset.num_classes)
    zeros = jnp.zeros((1, *dataset.shape))
    workdir.save_params("classifier", drawn(lambda key: classifier.init(key, zeros), 1))
    return workdir, dataset
