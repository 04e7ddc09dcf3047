"""Statistics of real examples for the evaluation of samples, kept on disk between runs.

A file is used only if it is whole and belongs to the same data, feature network and preprocessing;
else the statistics are computed again and the reason is logged. Nothing is unpickled.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lgd.data.dataset import Split, fingerprint
from lgd.machinery import digests, processes, storage
from lgd.machinery.paths import local
from lgd.metrics.features import FeatureSet, extract
from lgd.metrics.frechet import class_frechet_distances, frechet_distance
from lgd.metrics.kid import kid, mean_within
from lgd.metrics.moments import ClassMoments, FeatureMoments
from lgd.metrics.precision_recall import precision_recall, squared_radii
from lgd.types import FeatureFn, Params

FORMAT = 1  # of the file, and of what is computed

_log = logging.getLogger(__name__)


class FeatureNetwork(NamedTuple):
    """A feature function with texts that identify it, see `network_identity`."""

    apply: FeatureFn
    identity: Mapping[str, str]


class Reference(NamedTuple):
    """Statistics of real features (n, f): all parts of the distances that need no samples."""

    moments: ClassMoments
    features: Float[np.ndarray, "n f"]  # float32, see `FeatureSet.rows`
    radii: Float[np.ndarray, " n"]  # see `precision_recall.squared_radii`
    within: float  # see `kid.mean_within`

    def distances(self, moments: ClassMoments, features: FeatureSet) -> dict[str, float]:
        """Return the distances of samples to the real examples, by name.

        The names are frechet_distance, class_frechet_distance, kid, precision and recall.
        """
        rows = features.rows()
        samples, real = moments.pooled().moments(), self.moments.pooled().moments()
        near = precision_recall(rows, self.features, real_radii=self.radii)
        return {
            "frechet_distance": frechet_distance(samples, real),
            "class_frechet_distance": float(class_frechet_distances(moments, self.moments).mean()),
            "kid": kid(rows, self.features, within_y=self.within),
            "precision": near.precision,
            "recall": near.recall,
        }


def network_identity(module: Any, params: Params, *, preprocessing: str = "none") -> dict[str, str]:
    """Return texts that identify the features of a network.

    Args:
      module: a Flax module or another value that `digests.describe` knows.
      params: its parameters.
      preprocessing: what happens to examples before the network.
    """
    return {
        "network": digests.describe(module),
        "params": digests.of_tree(params),
        "preprocessing": preprocessing,
    }


def reference(
    path: str | Path | None, network: FeatureNetwork, real: Split, num_classes: int
) -> Reference:
    """Return statistics of real examples, read from a file if it fits, else computed and written.

    With several processes all of them read or compute, and the main one writes.

    Args:
      path: the file; None: nothing is read or written.
      network: the feature function with its identity.
      real: examples with strata.
      num_classes: number of strata.

    Raises:
      ValueError: for features that are not finite, or examples without strata.
    """
    if path is None:
        return _computed(network, real, num_classes)
    path, identity = local(path), _identity(network, real, num_classes)
    kept = _read(path, identity, network, real, num_classes)
    if kept is not None:
        return kept
    statistics = _computed(network, real, num_classes)
    if processes.is_main_process():
        storage.save_params(path, _tensors(statistics, identity))
    return statistics


def _identity(network: FeatureNetwork, real: Split, num_classes: int) -> np.ndarray:
    """Return the sha256 of everything the statistics depend on, as bytes (32,)."""
    described = {
        "format": FORMAT,
        "data": fingerprint(real),
        "num_classes": num_classes,
        **network.identity,
    }
    return np.frombuffer(bytes.fromhex(digests.of_json(described)), np.uint8)


def _read(
    path: Path, identity: np.ndarray, network: FeatureNetwork, real: Split, num_classes: int
) -> Reference | None:
    example = jax.ShapeDtypeStruct((1, *real.x.shape[1:]), jnp.float32)
    size = jax.eval_shape(network.apply, example).shape[-1]
    try:
        tensors = storage.load_params(path, _like(len(real.x), size, num_classes))
    except FileNotFoundError:
        return None
    except ValueError as error:
        _log.warning("%s; its statistics are computed again", error)
        return None
    if not np.array_equal(tensors["identity"], identity):
        _log.warning("%s: made of other data or with another feature network; computed again", path)
        return None
    parts = (tensors[name] for name in ("count", "mean", "scatter"))
    classes = tuple(FeatureMoments(int(n), *rest) for n, *rest in zip(*parts, strict=True))
    within = float(tensors["within"])
    return Reference(ClassMoments(classes), tensors["features"], tensors["radii"], within)


def _computed(network: FeatureNetwork, real: Split, num_classes: int) -> Reference:
    features = extract(network.apply, real.x)
    moments = ClassMoments.empty(num_classes, features.shape[1]).update(features, real.strata)
    rows = FeatureSet().update(features).rows()
    return Reference(moments, rows, squared_radii(rows), mean_within(rows))


def _like(n: int, f: int, num_classes: int) -> dict[str, np.ndarray]:
    """Return arrays with the shapes and dtypes of the file."""
    shapes = {
        "count": ((num_classes,), np.int64),
        "mean": ((num_classes, f), np.float64),
        "scatter": ((num_classes, f, f), np.float64),
        "features": ((n, f), np.float32),
        "radii": ((n,), np.float64),
        "within": ((), np.float64),
        "identity": ((32,), np.uint8),
    }
    return {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}


def _tensors(statistics: Reference, identity: np.ndarray) -> dict[str, np.ndarray]:
    count, mean, scatter = zip(*statistics.moments.classes, strict=True)
    return {
        "count": np.asarray(count, np.int64),
        "mean": np.stack(mean),
        "scatter": np.stack(scatter),
        "features": statistics.features,
        "radii": statistics.radii,
        "within": np.asarray(statistics.within, np.float64),
        "identity": identity,
    }
