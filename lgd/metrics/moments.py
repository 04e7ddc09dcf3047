"""Means and covariances of features, accumulated over batches in float64.

Parts are merged by the pairwise update of Chan, Golub and LeVeque (1983,
doi 10.1080/00031305.1983.10483115), with the scatter of every part about its mean: large means cost
no digits, and order, batches and shards change results by rounding only.
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
    """Number of features, their mean (f,) and their scatter ``sum (x - mean) (x - mean)'``."""

    num_samples: int
    mean: Float[np.ndarray, " f"]
    scatter: Float[np.ndarray, "f f"]

    @classmethod
    def empty(cls, size: int) -> "FeatureMoments":
        """Return the moments of no features, of ``size`` numbers each."""
        return cls(0, np.zeros(size), np.zeros((size, size)))

    def update(self, features: Float[np.ndarray, "n f"] | Float[Array, "n f"]) -> "FeatureMoments":
        """Return the moments with n >= 0 further features.

        Raises:
          ValueError: for features that are not (n, f) of the same f, or not finite.
        """
        x = checked(features, len(self.mean)).astype(np.float64)
        if not len(x):
            return self
        mean = x.mean(axis=0)
        centred = x - mean
        return self.merge(FeatureMoments(len(x), mean, centred.T @ centred))

    def merge(self, other: "FeatureMoments") -> "FeatureMoments":
        """Return the moments of the union of two sets."""
        count = self.num_samples + other.num_samples
        if not count:
            return self
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.num_samples / count)
        between = np.outer(gap, gap) * (self.num_samples * other.num_samples / count)
        return FeatureMoments(count, mean, self.scatter + other.scatter + between)

    def moments(self) -> Moments:
        """Return the sample mean and covariance (ddof 1), with a warning if num_samples <= f.

        Raises:
          ValueError: for fewer than two features.
        """
        size = len(self.mean)
        if self.num_samples < 2:
            raise ValueError(
                f"features: expected (n, f) with n >= 2, got {(self.num_samples, size)}"
            )
        if self.num_samples <= size:
            warnings.warn(f"covariance of {size} features from {self.num_samples}", stacklevel=2)
        return Moments(self.mean, self.scatter / (self.num_samples - 1))


class ClassMoments(NamedTuple):
    """`FeatureMoments` of every stratum; for labels the strata are the classes."""

    classes: tuple[FeatureMoments, ...]

    @classmethod
    def empty(cls, num_classes: int, size: int) -> "ClassMoments":
        """Return the moments of no features, of ``size`` numbers each."""
        return cls((FeatureMoments.empty(size),) * num_classes)

    def update(
        self,
        features: Float[np.ndarray, "n f"] | Float[Array, "n f"],
        stratum: Int[np.ndarray, " n"] | Int[Array, " n"],
    ) -> "ClassMoments":
        """Return the moments with n further features.

        Raises:
          ValueError: for strata that are not (n,) or not below the number of strata, or features
            that are not (n, f) or not finite.
        """
        features, stratum = np.asarray(features), np.asarray(stratum)
        if stratum.shape != features.shape[:1]:
            raise ValueError(f"expected strata {features.shape[:1]}, got {stratum.shape}")
        if len(stratum) and not 0 <= stratum.min() <= stratum.max() < len(self.classes):
            expected = f"strata from 0 to {len(self.classes) - 1}"
            raise ValueError(f"expected {expected}, got {stratum.min()} to {stratum.max()}")
        return ClassMoments(
            tuple(part.update(features[stratum == k]) for k, part in enumerate(self.classes))
        )

    def merge(self, other: "ClassMoments") -> "ClassMoments":
        """Return the moments of the union of two sets, by stratum."""
        pairs = zip(self.classes, other.classes, strict=True)
        return ClassMoments(tuple(one.merge(another) for one, another in pairs))

    def pooled(self) -> FeatureMoments:
        """Return the moments of all strata together."""
        return functools.reduce(FeatureMoments.merge, self.classes)


def moments(features: np.ndarray) -> Moments:
    """Return the sample mean and covariance (ddof 1) of features (n, f); warn if n <= f.

    Raises:
      ValueError: for n < 2, other shapes or values that are not finite.
    """
    features = checked(features, least=2)
    return FeatureMoments.empty(features.shape[1]).update(features).moments()
