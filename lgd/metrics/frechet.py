"""Frechet distance between two sets of features, in float64."""

import numpy as np
from jaxtyping import Float

from lgd.metrics.moments import ClassMoments, Moments, moments

__all__ = [
    "Moments",
    "class_frechet_distances",
    "frechet_distance",
    "frechet_distances",
    "moments",
]


def frechet_distance(x: Moments, y: Moments) -> float:
    """Return ``|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))``.

    This is the Frechet distance between Gaussians of these means m and covariances C
    (Heusel et al., 2017, arXiv 1706.08500, Eq. 6). `moments` returns both for features (n, f).

    >>> import numpy as np
    >>> from lgd.metrics.frechet import Moments, frechet_distance
    >>> x = Moments(mean=np.zeros(1), covariance=np.ones((1, 1)))
    >>> y = Moments(mean=np.array([3.0]), covariance=np.array([[4.0]]))
    >>> frechet_distance(x, y)  # 3^2 + (1 - 2)^2
    10.0
    """
    return float(frechet_distances(x, y))


def frechet_distances(x: Moments, y: Moments) -> np.ndarray:
    """Return `frechet_distance` of x to n sets, (n,); y has means (n, f), covariances (n, f, f)."""
    root = _root(x.covariance)
    cross = np.linalg.eigvalsh(root @ y.covariance @ root)
    traces = np.trace(x.covariance) + np.trace(y.covariance, axis1=-2, axis2=-1)
    roots = np.sqrt(np.maximum(cross, 0.0)).sum(axis=-1)
    distances = np.sum((x.mean - y.mean) ** 2, axis=-1) + traces - 2.0 * roots
    return np.asarray(np.maximum(distances, 0.0))  # below 0 by rounding alone


def class_frechet_distances(x: ClassMoments, y: ClassMoments) -> Float[np.ndarray, " classes"]:
    """Return `frechet_distance` of every stratum; the mean is the class-averaged distance."""
    pairs = zip(x.classes, y.classes, strict=True)
    return np.array([frechet_distance(one.moments(), other.moments()) for one, other in pairs])


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
