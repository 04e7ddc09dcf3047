"""Measures by Inception-v3, as published Frechet distances and Inception scores are made."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments.rules.evaluation import CONVERT
from experiments.stages.feature_measure import Found, batches, gathered
from experiments.workdir import Workdir
from lgd.data import Dataset
from lgd.machinery import digests
from lgd.metrics import inception
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.frechet import frechet_distance
from lgd.metrics.moments import ClassMoments
from lgd.metrics.reference import FeatureNetwork, Reference, reference
from lgd.types import Params

_FIELDS = "evaluation.inception_"


class Inception(NamedTuple):
    """The network that measures.

    network: its features (b, f). outputs: (b, *dims) -> these and the logits of its score.
    """

    network: FeatureNetwork
    outputs: Callable[[Array], tuple[Array, Array]]


def check(config: ConfigDict) -> list[str]:
    """What is wrong with the file that the config names, if it needs one."""
    settings = config.evaluation
    if settings.features != "inception" or config.fake_data:
        return []
    try:
        found = digests.of_file(settings.inception_path)
    except OSError as error:
        return [f"{_FIELDS}path: expected a file, made once by: {CONVERT}, got {error}"]
    if found == settings.inception_sha256:
        return []
    return [f"{_FIELDS}sha256: expected that of {settings.inception_path}, {found}, got "
            f"{settings.inception_sha256}"]  # fmt: skip


def load(config: ConfigDict) -> Inception:
    """Of the config's file; of random parameters on generated data."""
    settings = config.evaluation
    if config.fake_data:
        params = _random_params()
    else:
        params = inception.load(settings.inception_path, sha256=settings.inception_sha256)
    params = jax.device_put(params)

    def outputs(x: Array) -> tuple[Array, Array]:
        found = inception.outputs(params, x)
        return found.features, found.score_logits

    return Inception(inception.feature_network(params), outputs)


def _random_params() -> Params:
    """Variances 1, kernels of variance 2 / fan-in, all else 0 or 1."""
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":
            scale = (2.0 / np.prod(leaf.shape[:-1])) ** 0.5
            return (scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype)

    return jax.tree.map_with_path(draw, inception.template())


class InceptionMeasure:
    """Images: Frechet distance of all classes at once, KID, precision, recall, Inception score.

    None class by class: of each there are fewer images than features. Nor on resampled real
    images: each takes a root of a matrix of 2,048 x 2,048.
    """

    def __init__(self, config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
        self._inception = load(config)
        self._reference = _reference(self._inception, workdir, dataset, "test")

    def __call__(self, x: Array, labels: np.ndarray) -> Found:
        found = gathered(
            self._inception.outputs,
            x,
            np.zeros_like(labels),
            num_classes=1,
            num_features=self._reference.features.shape[1],
        )
        metrics = self._reference.distances(found.moments, found.features)
        del metrics["class_frechet_distance"]  # of one class: the same again
        return Found(metrics | {"inception_score": found.predictions.inception_score()}, [])


class ValidationInception:
    """Samples (classes, n, *dims) -> distances to validation data, (1 + classes,).

    The first is the Frechet distance of all classes at once, by which rows are selected; the others
    are the energy distances of each class, by which the classes of a row are: a Frechet distance
    of one class would take thousands of images of it.
    """

    def __init__(self, config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
        self._inception = load(config)
        self._reference = _reference(self._inception, workdir, dataset, "validation")
        self._energy = ClassEnergyDistance(dataset.validation, dataset.num_classes)

    def __call__(self, x: Float[Array, "g n *dims"]) -> Float[np.ndarray, " d"]:
        own = ClassMoments.empty(1, self._reference.features.shape[1])
        flat = x.reshape(-1, *x.shape[2:])
        for part, labels in batches(flat, np.zeros(len(flat), np.int64)):
            own = own.update(np.asarray(self._inception.network.apply(part)), labels)
        pair = (each.pooled().moments() for each in (own, self._reference.moments))
        return np.concatenate([[frechet_distance(*pair)], np.asarray(self._energy(x))])


def _reference(found: Inception, workdir: Workdir, dataset: Dataset, split: str) -> Reference:
    """Of real images, all in one class; kept on disk."""
    real = getattr(dataset, split)
    pooled = real._replace(stratum=np.zeros_like(real.stratum))
    file = workdir.path / "reference" / f"inception-{split}.safetensors"
    return reference(file, found.network, pooled, 1)
