"""What the arrays of a shard of statistics must be."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lgd.gram.layout import Layout, StatisticsError
from lgd.machinery.tensors import nested
from lgd.machinery.words import shown

_MAX_DEPTH = 16  # of the dicts of a condition
_FIXED = {"t": np.float32, "gram": np.float32, "source": np.int32, "features": np.float32}


def check_alike(
    file: Path, tensors: Mapping[str, np.ndarray], first: Mapping[str, np.ndarray]
) -> None:
    """Raise StatisticsError unless the arrays fit behind those of the first shard."""

    def kinds(shard: Mapping[str, np.ndarray]) -> dict[str, str]:
        return {name: f"{x.dtype} {x.shape[1:]}" for name, x in sorted(shard.items())}

    if kinds(tensors) != kinds(first):
        raise StatisticsError(
            f"{file}: expected arrays as in the first shard, {shown(kinds(first))}, "
            f"got {shown(kinds(tensors))}"
        )


def check_tensors(
    file: Path, tensors: Mapping[str, np.ndarray], count: int, layout: Layout
) -> None:
    """Raise StatisticsError unless names, dtypes, shapes and values are those of statistics."""
    m = layout.num_particles
    shapes: dict[str, tuple[int, ...]] = {
        "t": (count,),
        "gram": (count, layout.packed),
        "source": (count,),
    }
    if layout.has_features:
        shapes["features"] = (count, m, layout.num_features)
    conditions = [name for name in tensors if is_condition(name)]
    if sorted({*tensors} - {*conditions}) != sorted(shapes) or not conditions:
        raise StatisticsError(
            f"{file}: expected {sorted(shapes)} and c, got {shown(sorted(tensors))}"
        )
    _check_names(file, conditions)
    for name, shape in shapes.items():
        got = tensors[name]
        if got.shape != shape or got.dtype != _FIXED[name]:
            raise StatisticsError(
                f"{file}: {name}: expected {np.dtype(_FIXED[name])} {shape}, "
                f"got {got.dtype} {got.shape}"
            )
    leading = (count, m) if layout.members == "mixed" else (count,)
    for name in conditions:
        if tensors[name].shape[: len(leading)] != leading:
            raise StatisticsError(
                f"{file}: {name}: expected leading axes {leading}, got {tensors[name].shape}"
            )
    for name, value in tensors.items():
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise StatisticsError(f"{file}: {name}: expected finite values, got others")
    _check_values(file, tensors, layout)


def is_condition(name: str) -> bool:
    """Whether an array of a shard is a leaf of the condition."""
    return name == "c" or name.startswith("c/")


def _check_names(file: Path, conditions: list[str]) -> None:
    """Raise StatisticsError unless names are those of one array, or of a tree of dicts."""
    try:
        nested(dict.fromkeys(conditions), max_depth=_MAX_DEPTH + 1)
    except ValueError:
        raise StatisticsError(
            f"{file}: expected conditions as one array, or as dicts of arrays at most "
            f"{_MAX_DEPTH} deep, got {shown(sorted(conditions))}"
        ) from None


def _check_values(file: Path, tensors: Mapping[str, np.ndarray], layout: Layout) -> None:
    """Raise StatisticsError for times outside [0, 1], or products beyond Cauchy-Schwarz."""
    t = tensors["t"]
    if len(t) and not (t.min() >= 0.0 and t.max() <= 1.0):
        raise StatisticsError(f"{file}: t: expected times in [0, 1], got {t.min()} to {t.max()}")
    rows, columns = np.tril_indices(layout.num_rows)
    squares = tensors["gram"][:, rows == columns].astype(np.float64)
    bound = np.sqrt(np.maximum(squares[:, rows], 0.0) * np.maximum(squares[:, columns], 0.0))
    slack = 1e-3 * bound + 1e-12
    if squares.min(initial=0.0) < 0.0 or (np.abs(tensors["gram"]) > bound + slack).any():
        raise StatisticsError(f"{file}: gram: expected inner products, got what no vectors have")
