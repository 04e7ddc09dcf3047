"""Frechet distance between two sets of features, in float64."""

import warnings
from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Mean (f,) and covariance (f, f) of a set of features."""

    mean: np.ndarray
    covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """Sample mean and covariance (ddof 1) of features (n, f); warns where n <= f."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"expected features (n, f) with n >= 2, got {features.shape}")
    if len(features) <= features.shape[1]:
        warnings.warn(
            f"covariance of {features.shape[1]} features from {len(features)}", stacklevel=2
        )
    return Moments(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(x: Moments, y: Moments) -> float:
    """``|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))`` (Heusel et al., 2017)."""
    return float(frechet_distances(x, y))


def frechet_distances(x: Moments, y: Moments) -> np.ndarray:
    """`frechet_distance` of x to several sets: means (n, f), covariances (n, f, f) -> (n,)."""
    root = _root(x.covariance)
    cross = np.linalg.eigvalsh(root @ y.covariance @ root)
    traces = np.trace(x.covariance) + np.trace(y.covariance, axis1=-2, axis2=-1)
    roots = np.sqrt(np.maximum(cross, 0.0)).sum(axis=-1)
    return np.asarray(np.sum((x.mean - y.mean) ** 2, axis=-1) + traces - 2.0 * roots)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
