"""Measures of samples: metrics against real examples, some of them on resamples too.

A measure takes samples x (g, n, *dims), n of each of g strata in their order, and returns
``{"metrics": {name: value}, "resampled": {name: values}}``. The latter are a metric on bootstrap
resamples of the real examples, `NUM_RESAMPLES` of them, drawn within strata: they say how far the
choice of real examples moves it. Where examples have no strata, x is (1, n, *dims) and only pooled
metrics exist.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd.data.dataset import Split
from lgd.data.ranges import checked_examples
from lgd.machinery.arguments import finite_rows
from lgd.metrics.checks import SAMPLES, checked
from lgd.metrics.classifier import Classifier
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.features import FeatureSet, extract
from lgd.metrics.frechet import Moments, frechet_distance, frechet_distances, moments
from lgd.metrics.moments import ClassMoments
from lgd.metrics.predictions import Predictions
from lgd.metrics.reference import FeatureNetwork, network_identity, reference
from lgd.types import Params

PRIMARY = "energy_distance"
NUM_RESAMPLES = 100
BATCH = 4096  # samples that a network sees at once

Measurement: TypeAlias = dict[str, dict[str, Any]]
Measure: TypeAlias = Callable[[Float[Array, "g n *dims"]], Measurement]
# x (b, *dims) -> features (b, f) and logits (b, k)
Outputs: TypeAlias = Callable[[Array], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True)
class JointMeasure:
    """Several measures as one, whose metrics have different names."""

    parts: tuple[Measure, ...]

    def __call__(self, x: Float[Array, "g n *dims"]) -> Measurement:
        """The metrics of all parts."""
        joined: Measurement = {"metrics": {}, "resampled": {}}
        for part in self.parts:
            measured = part(x)
            for kind, values in joined.items():
                values |= measured[kind]
        return joined


class EnergyMeasure:
    """The energy distance, mean over strata.

    Resampled, it keeps its real-real term, which is the same for all samples.
    """

    def __init__(self, real: Split, *, seed: int) -> None:
        self._distance = ClassEnergyDistance(real)
        stratum = stratum_of(real)
        self._resamples = resamples(stratum, seed=seed)
        self._share = 1.0 / ((stratum.max() + 1) * np.bincount(stratum)[stratum])

    def __call__(self, x: Float[Array, "g n *dims"]) -> Measurement:
        """``energy_distance``, also resampled."""
        distances, mean_distances = self._distance.with_mean_distances(x)
        energy, cross = float(jnp.mean(distances)), mean_distances * self._share
        within = energy - float(cross.sum())
        resampled = [within + float(cross[index].sum()) for index in self._resamples]
        return {"metrics": {PRIMARY: energy}, "resampled": {PRIMARY: resampled}}


class ClassifierMeasure:
    """Metrics from the features and labels of a classifier whose classes are the strata.

    The Frechet distance of all strata at once and stratum by stratum, KID, precision and recall,
    Inception score, and accuracy, the share put into the class asked for.

    Args:
      classifier: ``apply(params, x)`` returns logits (b, k) and features (b, f).
      params: its parameters.
      real: the examples to compare with.
      seed: of the resamples.
      file: where statistics of the examples are kept; None: nowhere.
    """

    def __init__(
        self,
        classifier: Classifier,
        params: Params,
        real: Split,
        *,
        seed: int,
        file: Path | None = None,
    ) -> None:
        self._classify = jax.jit(lambda x: classifier.apply(params, x))
        self._has_strata = real.stratum is not None
        real = real._replace(stratum=stratum_of(real))
        network = FeatureNetwork(
            lambda x: self._classify(x)[1], network_identity(classifier, params)
        )
        self._reference = reference(file, network, real, real.num_strata)
        features = extract(network.apply, real.x)
        drawn = resamples(real.strata, seed=seed)
        self._resampled = _stacked([moments(features[index]) for index in drawn])

    def __call__(self, x: Float[Array, "g n *dims"]) -> Measurement:
        """The metrics; resampled: ``frechet_distance``."""
        flat, stratum = flattened(x)
        features = sample_statistics(
            lambda part: self._classify(part)[::-1],
            flat,
            stratum,
            num_strata=len(self._reference.moments.classes),
            num_features=self._reference.features.shape[1],
        )
        metrics = self._reference.distances(features.moments, features.features)
        metrics["inception_score"] = features.predictions.inception_score()
        if self._has_strata:
            metrics["accuracy"] = features.predictions.accuracy()
        else:
            del metrics["class_frechet_distance"]  # the pooled one again
        resampled = frechet_distances(features.moments.pooled().moments(), self._resampled)
        return {"metrics": metrics, "resampled": {"frechet_distance": resampled.tolist()}}


class PlaneMeasure:
    """Metrics of points in few dimensions, from moments and from the exact posterior of strata.

    The Frechet distance, mean over strata, and accuracy, the share that the posterior puts into the
    stratum asked for.

    Args:
      log_posterior: points (b, d) -> log p(stratum | x) up to a constant, (b, g).
      real: the examples to compare with, in strata.
      seed: of the resamples.
    """

    def __init__(self, log_posterior: Callable[[Array], Array], real: Split, *, seed: int) -> None:
        self._log_posterior = log_posterior
        x, stratum = real.x, real.strata
        self._real = _moments_by_stratum(x, stratum)
        resampled = [
            _moments_by_stratum(x[index], stratum[index]) for index in resamples(stratum, seed=seed)
        ]
        self._resampled = [_stacked(group) for group in zip(*resampled, strict=True)]

    def __call__(self, x: Float[Array, "g n d"]) -> Measurement:
        """The metrics; resampled: ``frechet_distance``."""
        flat, stratum = flattened(x)
        samples = _moments_by_stratum(np.asarray(flat), stratum)
        guessed = _most_probable(self._log_posterior(flat))
        metrics = {
            "frechet_distance": float(np.mean(list(map(frechet_distance, samples, self._real)))),
            "accuracy": float(np.mean(guessed == stratum)),
        }
        resampled = np.mean(list(map(frechet_distances, samples, self._resampled)), axis=0)
        return {"metrics": metrics, "resampled": {"frechet_distance": resampled.tolist()}}


class InceptionMeasure:
    """Metrics of images: pooled Frechet distance, KID, precision, recall, Inception score.

    Nothing is measured stratum by stratum, since a stratum has fewer images than features, or on
    resamples, each of which would take the root of a matrix of 2,048 x 2,048.

    Args:
      network: the features, and what makes them.
      outputs: images -> these features, and the logits of the Inception score.
      real: the images to compare with.
      file: where statistics of the images are kept; None: nowhere.
    """

    def __init__(
        self, network: FeatureNetwork, outputs: Outputs, real: Split, *, file: Path | None = None
    ) -> None:
        self._outputs = outputs
        self._reference = reference(file, network, pooled(real), 1)

    def __call__(self, x: Float[Array, "g n *dims"]) -> Measurement:
        """The metrics; nothing is resampled."""
        flat, stratum = flattened(x)
        features = sample_statistics(
            self._outputs,
            flat,
            np.zeros_like(stratum),
            num_strata=1,
            num_features=self._reference.features.shape[1],
        )
        metrics = self._reference.distances(features.moments, features.features)
        del metrics["class_frechet_distance"]  # the pooled one again
        metrics["inception_score"] = features.predictions.inception_score()
        return {"metrics": metrics, "resampled": {}}


class SampleStatistics(NamedTuple):
    """Statistics of the features and labels of samples."""

    moments: ClassMoments
    features: FeatureSet
    predictions: Predictions


def sample_statistics(
    outputs: Outputs,
    x: Float[Array, "b *dims"],
    stratum: Int[np.ndarray, " b"],
    *,
    num_strata: int,
    num_features: int,
) -> SampleStatistics:
    """Features and labels of samples, in batches.

    Args:
      outputs: the network.
      x: samples.
      stratum: the strata asked for.
      num_strata: number of strata.
      num_features: width of the features.

    Raises:
      ValueError: for no samples, and outputs that are not finite or of other shapes.
    """
    moments_of, features = ClassMoments.empty(num_strata, num_features), FeatureSet()
    predictions: Predictions | None = None
    for part, asked in batches(x, stratum):
        phi, logits = map(np.asarray, outputs(part))
        phi = checked(phi, num_features, name=SAMPLES)
        moments_of, features = moments_of.update(phi, asked), features.update(phi)
        predictions = predictions or Predictions.empty(logits.shape[1])
        predictions = predictions.update(logits, asked)
    if predictions is None:
        raise ValueError("expected samples, got none")
    return SampleStatistics(moments_of, features, predictions)


def batches(
    x: Float[Array, "b *dims"], stratum: Int[np.ndarray, " b"]
) -> list[tuple[Array, np.ndarray]]:
    """Samples and strata in parts of at most `BATCH`."""
    starts = range(0, len(x), BATCH)
    return [(x[i : i + BATCH], stratum[i : i + BATCH]) for i in starts]


def flattened(
    x: Float[Array, "g n *dims"],
) -> tuple[Float[Array, "b *dims"], Int[np.ndarray, " b"]]:
    """Samples one after another, and the stratum of each.

    Raises ValueError for samples that are no floats, not finite, or pixels of 0 to 255.
    """
    flat = checked_examples("samples", x.reshape(-1, *x.shape[2:]))
    return flat, np.repeat(np.arange(len(x)), x.shape[1])


def stratum_of(real: Split) -> Int[np.ndarray, " n"]:
    """The stratum of every example; without strata all are in the first."""
    return np.zeros(len(real.x), np.int32) if real.stratum is None else real.stratum


def pooled(real: Split) -> Split:
    """The same examples in one stratum."""
    return real._replace(stratum=np.zeros(len(real.x), np.int32))


def resamples(stratum: Int[np.ndarray, " n"], *, seed: int) -> list[Int[np.ndarray, " n"]]:
    """Bootstrap draws of indices, as many of each stratum as there are, stratum by stratum."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(stratum == k) for k in np.unique(stratum)]
    return [
        np.concatenate([rng.choice(index, len(index)) for index in members])
        for _ in range(NUM_RESAMPLES)
    ]


def _most_probable(log_p: Float[Array, "b g"]) -> Int[np.ndarray, " b"]:
    """The stratum of the largest posterior; log 0 = -inf is one."""
    known = np.asarray(log_p)
    finite_rows("log_posterior of the samples", np.where(known == -np.inf, 0.0, known))
    return np.asarray(known.argmax(axis=-1))


def _moments_by_stratum(
    features: Float[np.ndarray, "n f"], stratum: Int[np.ndarray, " n"]
) -> list[Moments]:
    return [moments(features[stratum == k]) for k in np.unique(stratum)]


def _stacked(sets: Sequence[Moments]) -> Moments:
    return Moments(*(np.stack(values) for values in zip(*sets, strict=True)))
