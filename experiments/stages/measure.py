"""What is measured on test data."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments import build
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir
from lgd import guidance
from lgd.data import Dataset
from lgd.diffusion import add_noise, denoise_pair
from lgd.evaluation import Generator
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.frechet import Moments, frechet_distance, frechet_distances, moments
from lgd.types import OmegaFn

PRIMARY = "energy_distance"


NUM_RESAMPLES = 100  # of the real test examples


class Measure:
    """Samples (classes, n, *dims) -> metrics, and the same on resampled real examples.

    Images: the Frechet distance of a classifier's features, over all classes at once, and the share
    of samples that it puts into the class asked for. Mixture: the mean over classes of the Frechet
    distance in the plane, and the share that the exact posterior puts into the class asked for.
    Resamples are bootstrap draws within classes; the energy distance keeps its real-real term,
    which is the same for every row.
    """

    def __init__(self, config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
        self._energy = ClassEnergyDistance(dataset.test, dataset.num_classes)
        self._by_class = build.has_known_law(config)
        if self._by_class:
            self._classify = _exact_classifier(config)
        else:
            classifier, params = denoiser_stage.load_classifier(config, workdir, dataset)
            self._classify = jax.jit(lambda x: classifier.apply(params, x))
        features = np.asarray(self._classify(jnp.asarray(dataset.test.x))[1])
        labels = dataset.test.labels
        self._real = self._moments(features, labels)
        self._resamples = _resamples(labels, seed=config.seed)
        resampled = [self._moments(features[i], labels[i]) for i in self._resamples]
        self._resampled_real = [_stacked(group) for group in zip(*resampled, strict=True)]
        self._share = 1.0 / (dataset.num_classes * np.bincount(labels)[labels])

    def __call__(self, x: Float[Array, "g n *dims"]) -> dict[str, dict]:
        """``{"metrics": {name: value}, "resampled": {name: values}}`` of one run."""
        labels = np.repeat(np.arange(len(x)), x.shape[1])
        logits, features = self._classify(x.reshape(-1, *x.shape[2:]))
        mine = self._moments(np.asarray(features), labels)
        energy = float(jnp.mean(self._energy(x)))
        cross = self._energy.mean_distances(x) * self._share
        within = energy - float(cross.sum())
        return {
            "metrics": {
                PRIMARY: energy,
                "frechet_distance": float(np.mean(list(map(frechet_distance, mine, self._real)))),
                "accuracy": float(np.mean(np.asarray(logits).argmax(axis=-1) == labels)),
            },
            "resampled": {
                PRIMARY: [within + float(cross[index].sum()) for index in self._resamples],
                "frechet_distance": np.mean(
                    list(map(frechet_distances, mine, self._resampled_real)), axis=0
                ).tolist(),
            },
        }

    def _moments(self, features: np.ndarray, labels: np.ndarray) -> list[Moments]:
        if not self._by_class:
            return [moments(features)]
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


def _exact_classifier(config: ConfigDict) -> Callable[[Array], tuple[Array, Array]]:
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


def squared_gap(generator: Generator, dataset: Dataset) -> Float[Array, "k n"]:
    """``|cond - uncond|^2`` of noised test data at the start of every sampling step."""
    x0, c = jnp.asarray(dataset.test.x), jnp.asarray(dataset.test.labels)

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
