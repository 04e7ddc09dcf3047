"""A labelled data set, split three ways: train, validation (all tuning), test (reported once)."""

import dataclasses
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Examples x (n, *dims), float32, and their labels (n,), int32."""

    x: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three splits that share no example."""

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.train.x.shape[1:]
