"""Distances to validation data, by which parameters are selected.

A distance takes samples x (g, n, *dims), n of each of g strata in their order, and returns entries
(d,). `metrics.energy.ClassEnergyDistance` has one for each stratum, (g,); those below have that of
all strata at once before them, (1 + g,).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int

from lgd.data.dataset import Split
from lgd.evaluation.measures import batches, flattened, pooled, stratum_of
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.features import extract
from lgd.metrics.frechet import class_frechet_distances, frechet_distance
from lgd.metrics.moments import ClassMoments
from lgd.metrics.reference import FeatureNetwork, reference
from lgd.types import FeatureFn

Distance: TypeAlias = Callable[[Array], Any]  # (g, n, *dims) -> (d,)


class ValidationFrechet:
    """Frechet distances of features: of all strata at once, and of each, (1 + g,).

    The features are those of a network that neither an objective nor a test sees.
    """

    def __init__(self, feature_fn: FeatureFn, real: Split) -> None:
        self._feature_fn = feature_fn
        stratum = stratum_of(real)
        self._num_strata = int(stratum.max()) + 1
        self._real = self._moments(real.x, stratum)

    def __call__(self, x: Float[Array, "g n *dims"]) -> Float[np.ndarray, " d"]:
        """The distances."""
        samples = self._moments(*flattened(x))
        pair = (moments.pooled().moments() for moments in (samples, self._real))
        return np.concatenate(
            [[frechet_distance(*pair)], class_frechet_distances(samples, self._real)]
        )

    def _moments(
        self,
        x: Float[np.ndarray, "b *dims"] | Float[Array, "b *dims"],
        stratum: Int[np.ndarray, " b"],
    ) -> ClassMoments:
        features = extract(self._feature_fn, x)
        return ClassMoments.empty(self._num_strata, features.shape[1]).update(features, stratum)


class ValidationInception:
    """The Frechet distance of all strata at once, then the energy distance of each, (1 + g,).

    Rows are selected by the first, the strata of a row by the others: a Frechet distance of one
    stratum would take thousands of images of it.

    Args:
      network: the features, and what makes them.
      real: the images to compare with.
      file: where statistics of the images are kept; None: nowhere.
    """

    def __init__(self, network: FeatureNetwork, real: Split, *, file: Path | None = None) -> None:
        self._apply = network.apply
        self._reference = reference(file, network, pooled(real), 1)
        self._energy = ClassEnergyDistance(real)

    def __call__(self, x: Float[Array, "g n *dims"]) -> Float[np.ndarray, " d"]:
        """The distances."""
        samples = ClassMoments.empty(1, self._reference.features.shape[1])
        flat, stratum = flattened(x)
        for part, zeros in batches(flat, np.zeros_like(stratum)):
            samples = samples.update(np.asarray(self._apply(part)), zeros)
        pair = (moments.pooled().moments() for moments in (samples, self._reference.moments))
        return np.concatenate([[frechet_distance(*pair)], np.asarray(self._energy(x))])
