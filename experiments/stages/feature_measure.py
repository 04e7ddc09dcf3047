"""What a measure of samples by their features takes and gives."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Array

from lgd.metrics.features import FeatureSet
from lgd.metrics.moments import ClassMoments
from lgd.metrics.predictions import Predictions

BATCH = 4096  # samples that a network sees at once


class Found(NamedTuple):
    """What features say of samples; of resampled real examples, [] where that takes too long."""

    metrics: dict[str, float]
    resampled_frechet: list[float]


class FeatureMeasure(Protocol):
    """Samples (b, *dims) and the classes asked for (b,) -> metrics."""

    def __call__(self, x: Array, labels: np.ndarray) -> Found: ...


class Gathered(NamedTuple):
    """What samples leave behind of their features and labels."""

    moments: ClassMoments
    features: FeatureSet
    predictions: Predictions


def gathered(
    outputs: Callable[[Array], tuple[Array, Array]],
    x: Array,
    labels: np.ndarray,
    *,
    num_classes: int,
    num_features: int,
) -> Gathered:
    """In batches; outputs: (b, *dims) -> features (b, f) and logits (b, k)."""
    moments, features = ClassMoments.empty(num_classes, num_features), FeatureSet()
    predictions: Predictions | None = None
    for part, asked in batches(x, labels):
        phi, logits = map(np.asarray, outputs(part))
        moments, features = moments.update(phi, asked), features.update(phi)
        predictions = predictions or Predictions.empty(logits.shape[1])
        predictions = predictions.update(logits, asked)
    if predictions is None:
        raise ValueError("expected samples, got none")
    return Gathered(moments, features, predictions)


def batches(x: Array, labels: np.ndarray) -> list[tuple[Array, np.ndarray]]:
    """Both in parts of at most `BATCH`."""
    starts = range(0, len(x), BATCH)
    return [(x[i : i + BATCH], labels[i : i + BATCH]) for i in starts]
