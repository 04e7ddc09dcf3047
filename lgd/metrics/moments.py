"""Means and covariances of features, gathered in a stream.

Everything is float64. Parts are joined by the pairwise update of Chan, Golub and LeVeque (1983),
every part about its own mean, so that large means cost no digits: order, batches and shards change
results by float64 rounding only.
"""

import functools
import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from lgd.metrics.checks import checked


class Moments(NamedTuple):
    """Mean (f,) and covariance (f, f) of a set of features."""

    mean: np.ndarray
    covariance: np.ndarray


class FeatureMoments(NamedTuple):
    """Number of features seen, their mean and their scatter ``sum (x - mean) (x - mean)'``."""

    num_samples: int
    mean: Float[np.ndarray, " f"]
    scatter: Float[np.ndarray, "f f"]

    @classmethod
    def empty(cls, size: int) -> "FeatureMoments":
        """Of no features yet, of ``size`` numbers each."""
        return cls(0, np.zeros(size), np.zeros((size, size)))

    def update(self, features: Float[np.ndarray, "n f"] | Float[Array, "n f"]) -> "FeatureMoments":
        """With n >= 0 more. Raises ValueError for other shapes and values that are not finite."""
        x = checked(features, len(self.mean)).astype(np.float64)
        if not len(x):
            return self
        mean = x.mean(axis=0)
        centred = x - mean
        return self.merge(FeatureMoments(len(x), mean, centred.T @ centred))

    def merge(self, other: "FeatureMoments") -> "FeatureMoments":
        """Of both together."""
        count = self.num_samples + other.num_samples
        if not count:
            return self
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.num_samples / count)
        between = np.outer(gap, gap) * (self.num_samples * other.num_samples / count)
        return FeatureMoments(count, mean, self.scatter + other.scatter + between)

    def moments(self) -> Moments:
        """Sample mean and covariance (ddof 1); warns where num_samples <= f. ValueError below 2."""
        size = len(self.mean)
        if self.num_samples < 2:
            raise ValueError(
                f"expected features (n, f) with n >= 2, got {(self.num_samples, size)}"
            )
        if self.num_samples <= size:
            warnings.warn(f"covariance of {size} features from {self.num_samples}", stacklevel=2)
        return Moments(self.mean, self.scatter / (self.num_samples - 1))


class ClassMoments(NamedTuple):
    """`FeatureMoments` of every stratum, as those of labels are: the classes."""

    classes: tuple[FeatureMoments, ...]

    @classmethod
    def empty(cls, num_classes: int, size: int) -> "ClassMoments":
        """Of no features yet."""
        return cls((FeatureMoments.empty(size),) * num_classes)

    def update(
        self,
        features: Float[np.ndarray, "n f"] | Float[Array, "n f"],
        stratum: Int[np.ndarray, " n"] | Int[Array, " n"],
    ) -> "ClassMoments":
        """With n more, of strata below the number of classes. Raises ValueError for others."""
        features, stratum = np.asarray(features), np.asarray(stratum)
        if stratum.shape != features.shape[:1]:
            raise ValueError(f"expected strata {features.shape[:1]}, got {stratum.shape}")
        if len(stratum) and not 0 <= stratum.min() <= stratum.max() < len(self.classes):
            expected = f"strata from 0 to {len(self.classes) - 1}"
            raise ValueError(f"expected {expected}, got {stratum.min()} to {stratum.max()}")
        return ClassMoments(
            tuple(each.update(features[stratum == k]) for k, each in enumerate(self.classes))
        )

    def merge(self, other: "ClassMoments") -> "ClassMoments":
        """Of both together."""
        pairs = zip(self.classes, other.classes, strict=True)
        return ClassMoments(tuple(mine.merge(theirs) for mine, theirs in pairs))

    def pooled(self) -> FeatureMoments:
        """Of all classes at once."""
        return functools.reduce(FeatureMoments.merge, self.classes)


def moments(features: np.ndarray) -> Moments:
    """Sample mean and covariance (ddof 1) of features (n, f); warns where n <= f."""
    features = checked(features, least=2)
    return FeatureMoments.empty(features.shape[1]).update(features).moments()
