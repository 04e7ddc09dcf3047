"""Frechet distance between two sets of features, in float64."""

import numpy as np
from jaxtyping import Float

from lgd.machinery.arguments import finite_rows
from lgd.metrics.checks import REAL, SAMPLES
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
    The trace of the root is the sum of the singular values of A'B, where ``C_x = A A'`` and
    ``C_y = B B'``: no number is rooted that is 0 but for rounding, so the distance is exact to
    rounding also where there are fewer rows than features.

    Args:
      x: moments of the samples.
      y: moments of the real examples.

    Raises:
      ValueError: for other shapes, or values that are not finite.

    >>> import numpy as np
    >>> from lgd.metrics.frechet import Moments, frechet_distance
    >>> x = Moments(mean=np.zeros(1), covariance=np.ones((1, 1)))
    >>> y = Moments(mean=np.array([3.0]), covariance=np.array([[4.0]]))
    >>> frechet_distance(x, y)  # 3^2 + (1 - 2)^2
    10.0
    """
    return float(frechet_distances(x, y))


def frechet_distances(x: Moments, y: Moments) -> np.ndarray:
    """Return `frechet_distance` of x to n sets, (n,); y has means (n, f), covariances (n, f, f).

    Raises:
      ValueError: as `frechet_distance`.
    """
    x = _checked(x, np.shape(x.mean)[-1:], SAMPLES)
    y = _checked(y, (*np.shape(y.mean)[:-1], *x.mean.shape), REAL)
    factors = _factor(x.covariance).T @ _factor(y.covariance)
    roots = np.linalg.svd(factors, compute_uv=False).sum(axis=-1)
    traces = np.trace(x.covariance) + np.trace(y.covariance, axis1=-2, axis2=-1)
    distances = np.sum((x.mean - y.mean) ** 2, axis=-1) + traces - 2.0 * roots
    return np.asarray(np.maximum(distances, 0.0))  # below 0 by rounding alone


def class_frechet_distances(x: ClassMoments, y: ClassMoments) -> Float[np.ndarray, " classes"]:
    """Return `frechet_distance` of every stratum; the mean is the class-averaged distance.

    Raises:
      ValueError: for other numbers of strata, and as `frechet_distance`.
    """
    if len(x.classes) != len(y.classes):
        raise ValueError(f"{SAMPLES}: expected {len(y.classes)} strata, got {len(x.classes)}")
    pairs = zip(x.classes, y.classes, strict=True)
    return np.array([frechet_distance(one.moments(), other.moments()) for one, other in pairs])


def _checked(of: Moments, shape: tuple[int, ...], name: str) -> Moments:
    """Moments in float64, with means of this shape."""
    mean, covariance = (np.asarray(each, np.float64) for each in of)
    if mean.shape != shape or not shape or covariance.shape != (*shape, *shape[-1:]):
        expected = f"mean {shape or '(f,)'} and covariance {(*shape, *shape[-1:]) or '(f, f)'}"
        raise ValueError(f"{name}: expected {expected}, got {mean.shape} and {covariance.shape}")
    finite_rows(f"mean of the {name}", mean[..., None], axes=mean.ndim)
    finite_rows(f"covariance of the {name}", covariance, axes=mean.ndim)
    return Moments(mean, covariance)


def _factor(covariance: Float[np.ndarray, "*n f f"]) -> Float[np.ndarray, "*n f r"]:
    """A matrix A with ``A A' = C`` and as many columns as the rank, the largest of several C."""
    values, vectors = np.linalg.eigh(covariance)
    rounding = covariance.shape[-1] * np.finfo(np.float64).eps * values[..., -1:]
    rank = max(1, int((values > rounding).sum(axis=-1).max()))
    values = np.where(values > rounding, values, 0.0)[..., -rank:]
    return np.asarray(vectors[..., -rank:] * np.sqrt(values)[..., None, :])
