"""What is measured on test data."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments import build
from experiments.stages import denoiser as denoiser_stage
from experiments.stages.feature_measure import FeatureMeasure, Found, gathered
from experiments.stages.inception import InceptionMeasure
from experiments.workdir import Workdir
from lgd import guidance
from lgd.data import Dataset, Split
from lgd.diffusion import add_noise, denoise_pair
from lgd.evaluation import Generator
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.features import extract
from lgd.metrics.frechet import (
    Moments,
    class_frechet_distances,
    frechet_distance,
    frechet_distances,
    moments,
)
from lgd.metrics.moments import ClassMoments
from lgd.metrics.reference import FeatureNetwork, network_identity, reference
from lgd.types import OmegaFn

PRIMARY = "energy_distance"  # unless evaluation.primary says otherwise
NUM_RESAMPLES = 100  # of the real test examples

Classify = Callable[[Array], tuple[Array, Array]]  # (b, *dims) -> logits (b, k), features (b, f)


class Measure:
    """Samples (classes, n, *dims) -> metrics, and some of them on resampled real examples.

    Resamples are bootstrap draws within classes; the energy distance keeps its real-real term,
    which is the same for every row.
    """

    def __init__(self, config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
        self._energy = ClassEnergyDistance(dataset.test, dataset.num_classes)
        labels = dataset.test.stratum
        self._resamples = _resamples(labels, seed=config.seed)
        self._features = self._made(config, workdir, dataset)
        self._share = 1.0 / (dataset.num_classes * np.bincount(labels)[labels])

    def _made(self, config: ConfigDict, workdir: Workdir, dataset: Dataset) -> FeatureMeasure:
        if config.evaluation.features == "inception":
            return InceptionMeasure(config, workdir, dataset)
        make = _PlaneMeasure if build.has_known_law(config) else _ImageMeasure
        return make(config, workdir, dataset, self._resamples)

    def __call__(self, x: Float[Array, "g n *dims"]) -> dict[str, dict]:
        """``{"metrics": {name: value}, "resampled": {name: values}}`` of one run."""
        labels = np.repeat(np.arange(len(x)), x.shape[1])
        found = self._features(x.reshape(-1, *x.shape[2:]), labels)
        each, mean_distances = self._energy.with_mean_distances(x)
        energy, cross = float(jnp.mean(each)), mean_distances * self._share
        within = energy - float(cross.sum())
        resampled = {
            PRIMARY: [within + float(cross[index].sum()) for index in self._resamples],
            "frechet_distance": found.resampled_frechet,
        }
        return {
            "metrics": {PRIMARY: energy, **found.metrics},
            "resampled": {name: values for name, values in resampled.items() if values},
        }


class _PlaneMeasure:
    """The mixture: the Frechet distance in the plane, mean over classes, and accuracy.

    The latter is the share that the exact posterior puts into the class asked for.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Workdir,
        dataset: Dataset,
        resamples: Sequence[np.ndarray],
    ) -> None:
        self._classify = _exact_classifier(config)
        x, _, labels = dataset.test
        self._real = _class_moments(x, labels)
        resampled = [_class_moments(x[index], labels[index]) for index in resamples]
        self._resampled = [_stacked(group) for group in zip(*resampled, strict=True)]

    def __call__(self, x: Array, labels: np.ndarray) -> Found:
        logits, features = self._classify(x)
        mine = _class_moments(np.asarray(features), labels)
        metrics = {
            "frechet_distance": float(np.mean(list(map(frechet_distance, mine, self._real)))),
            "accuracy": float(np.mean(np.asarray(logits).argmax(axis=-1) == labels)),
        }
        resampled = np.mean(list(map(frechet_distances, mine, self._resampled)), axis=0)
        return Found(metrics, resampled.tolist())


class _ImageMeasure:
    """Images: by the features and labels of a classifier that no row has seen.

    The Frechet distance of all classes at once and class by class, KID, precision and recall,
    Inception score, and accuracy, the share put into the class asked for.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Workdir,
        dataset: Dataset,
        resamples: Sequence[np.ndarray],
    ) -> None:
        classifier, params = denoiser_stage.load_classifier(config, workdir, dataset)
        self._classify: Classify = jax.jit(lambda x: classifier.apply(params, x))
        self._num_classes = dataset.num_classes
        network = FeatureNetwork(
            lambda x: self._classify(x)[1], network_identity(classifier, params)
        )
        file = workdir.path / "reference" / "test.safetensors"
        self._reference = reference(file, network, dataset.test, dataset.num_classes)
        features = extract(network.apply, dataset.test.x)
        self._resampled = _stacked([moments(features[index]) for index in resamples])

    def __call__(self, x: Array, labels: np.ndarray) -> Found:
        found = gathered(
            lambda part: self._classify(part)[::-1],
            x,
            labels,
            num_classes=self._num_classes,
            num_features=self._reference.features.shape[1],
        )
        metrics = self._reference.distances(found.moments, found.features) | {
            "inception_score": found.predictions.inception_score(),
            "accuracy": found.predictions.accuracy(),
        }
        resampled = frechet_distances(found.moments.pooled().moments(), self._resampled)
        return Found(metrics, resampled.tolist())


class ValidationFrechet:
    """Samples (classes, n, *dims) -> Frechet distances to validation data, (1 + classes,).

    The first is that of all classes at once. By a classifier that no objective and no test sees.
    """

    def __init__(self, config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
        name = "selection_classifier"
        classifier, params = denoiser_stage.load_classifier(config, workdir, dataset, name)
        self._feature_fn = jax.jit(lambda x: classifier.apply(params, x)[1])
        self._num_classes = dataset.num_classes
        self._real = self._moments(dataset.validation.x, dataset.validation.stratum)

    def __call__(self, x: Float[Array, "g n *dims"]) -> Float[np.ndarray, " d"]:
        labels = np.repeat(np.arange(len(x)), x.shape[1])
        mine = self._moments(x.reshape(-1, *x.shape[2:]), labels)
        pooled = frechet_distance(*(each.pooled().moments() for each in (mine, self._real)))
        return np.concatenate([[pooled], class_frechet_distances(mine, self._real)])

    def _moments(self, x: np.ndarray | Array, labels: np.ndarray) -> ClassMoments:
        features = extract(self._feature_fn, x)
        return ClassMoments.empty(self._num_classes, features.shape[1]).update(features, labels)


def _class_moments(features: np.ndarray, labels: np.ndarray) -> list[Moments]:
    return [moments(features[labels == label]) for label in np.unique(labels)]


def _stacked(each: Sequence[Moments]) -> Moments:
    return Moments(*(np.stack(values) for values in zip(*each, strict=True)))


def _resamples(labels: np.ndarray, *, seed: int) -> list[np.ndarray]:
    """Bootstrap draws of indices, as many of each class as there are, class by class."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return [
        np.concatenate([rng.choice(index, len(index)) for index in members])
        for _ in range(NUM_RESAMPLES)
    ]


def _exact_classifier(config: ConfigDict) -> Classify:
    """Log-densities of every class, and the plane itself as features."""
    exact, params = build.exact_denoiser(config)

    @jax.jit
    def classify(x: Float[Array, "b d"]) -> tuple[Array, Array]:
        t = jnp.full(len(x), 1e-3)
        logits = [
            exact.log_density(params, x, t=t, c=jnp.full(len(x), k, jnp.int32))
            for k in range(exact.num_classes)
        ]
        return jnp.stack(logits, axis=-1), x

    return classify


def squared_gap(generator: Generator, real: Split) -> Float[Array, "k n"]:
    """``|cond - uncond|^2`` of real examples, noised, at the start of every sampling step."""
    x0, c = jnp.asarray(real.x), jax.tree.map(jnp.asarray, real.c)

    @jax.jit
    def one_step(t: Float[Array, ""]) -> Float[Array, " n"]:
        t = jnp.full(len(x0), t)
        x_t = add_noise(jax.random.key(0), x0, t=t, schedule=generator.denoiser.schedule)
        cond, uncond = denoise_pair(generator.denoiser, generator.params, x_t, t=t, c=c)
        return jnp.sum(jnp.square(cond - uncond).reshape(len(x0), -1), axis=-1)

    return jnp.stack([one_step(t) for t in generator.times[:-1]])


def guided_weight(
    omega_fn: OmegaFn, times: Float[Array, " n"], c: Array, gap: Float[Array, "k n"]
) -> dict[str, float]:
    """Mean |omega| over the sampling steps, plain and weighted by |Delta|^2.

    The weighted one says how far samples are moved: where cond and uncond agree, omega is free.
    """
    weight = jnp.abs(guidance.on_grid(omega_fn, times, c))
    by_gap = jnp.sum(weight * gap) / jnp.sum(gap)
    return {"mean": float(jnp.mean(weight)), "mean_by_delta": float(by_gap)}
