"""Statistics of real examples that samples are measured against, kept on disk between runs.

A file is used only if it was made of the same data, feature network and preprocessing, and is
whole; else the statistics are computed again and the reason is logged. Nothing is unpickled.
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
from lgd.metrics.features import FeatureSet, extract
from lgd.metrics.frechet import class_frechet_distances, frechet_distance
from lgd.metrics.kid import kid, mean_within
from lgd.metrics.moments import ClassMoments, FeatureMoments
from lgd.metrics.precision_recall import precision_recall, squared_radii
from lgd.types import FeatureFn, Params

FORMAT = 1  # of the file, and of what is computed

_log = logging.getLogger(__name__)


class FeatureNetwork(NamedTuple):
    """A feature function, and in words what it is; see `network_identity`."""

    apply: FeatureFn
    identity: Mapping[str, str]


class Reference(NamedTuple):
    """Of real features (n, f): everything that does not depend on samples."""

    moments: ClassMoments
    features: Float[np.ndarray, "n f"]  # float32, see `FeatureSet.rows`
    radii: Float[np.ndarray, " n"]  # see `precision_recall.squared_radii`
    within: float  # see `kid.mean_within`

    def distances(self, moments: ClassMoments, features: FeatureSet) -> dict[str, float]:
        """frechet_distance, class_frechet_distance, kid, precision and recall of samples."""
        rows = features.rows()
        pooled = (each.pooled().moments() for each in (moments, self.moments))
        near = precision_recall(rows, self.features, real_radii=self.radii)
        return {
            "frechet_distance": frechet_distance(*pooled),
            "class_frechet_distance": float(class_frechet_distances(moments, self.moments).mean()),
            "kid": kid(rows, self.features, within_y=self.within),
            "precision": near.precision,
            "recall": near.recall,
        }


def network_identity(module: Any, params: Params, *, preprocessing: str = "none") -> dict[str, str]:
    """What changes a network's features: the module, its parameters, what is done to x before."""
    return {
        "network": digests.describe(module),
        "params": digests.of_tree(params),
        "preprocessing": preprocessing,
    }


def reference(
    path: str | Path | None, network: FeatureNetwork, real: Split, num_classes: int
) -> Reference:
    """Statistics of real examples, from the file where it fits, and written to it where not.

    Of several processes all read and compute, and process 0 writes.

    Args:
      path: the file; None: nothing is kept.
      network: the feature function, and what it is.
      real: examples with strata.
      num_classes: number of strata.

    Raises:
      ValueError: for features that are not finite, and strata of fewer than two examples.
    """
    if path is None:
        return _computed(network, real, num_classes)
    path, identity = Path(path), _identity(network, real, num_classes)
    kept = _read(path, identity, network, real, num_classes)
    if kept is not None:
        return kept
    statistics = _computed(network, real, num_classes)
    if processes.is_main_process():
        storage.save_params(path, _tensors(statistics, identity))
    return statistics


def _identity(network: FeatureNetwork, real: Split, num_classes: int) -> np.ndarray:
    """sha256 (32,) of all that the statistics depend on."""
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
    """Shapes and dtypes of the file."""
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
