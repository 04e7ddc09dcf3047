"""What a measure of samples by their features takes and gives."""

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Array

BATCH = 4096  # samples that a network sees at once


class Found(NamedTuple):
    """What features say of samples; of resampled real examples, [] where that takes too long."""

    metrics: dict[str, float]
    resampled_frechet: list[float]


class FeatureMeasure(Protocol):
    """Samples (b, *dims) and the classes asked for (b,) -> metrics."""

    def __call__(self, x: Array, labels: np.ndarray) -> Found: ...


def batches(x: Array, labels: np.ndarray) -> list[tuple[Array, np.ndarray]]:
    """Both in parts of at most `BATCH`."""
    starts = range(0, len(x), BATCH)
    return [(x[i : i + BATCH], labels[i : i + BATCH]) for i in starts]
