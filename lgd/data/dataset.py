"""Examples with conditions in three splits: train, validation (all tuning), test (once)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from lgd import conditions
from lgd.machinery import digests
from lgd.types import Condition


@dataclasses.dataclass(frozen=True, eq=False)
class FileImages:
    """Images (n, h, w, channels) in [-1, 1] that stay in their files: each is read when asked for.

    read: the number of an image -> its pixels (h, w, channels); several threads call it. Raises
    DataFileError where a file is not what it was.
    fingerprint: of the files and of how they are read.
    """

    shape: tuple[int, ...]
    read: Callable[[int], UInt8[np.ndarray, "h w channels"]]
    fingerprint: str

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(
        self, index: Int[np.ndarray, "*any"] | slice
    ) -> Float[np.ndarray, "*any h w channels"]:
        """Images of these numbers, in an array of the index's shape."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        pixels = np.empty((index.size, *self.shape[1:]), np.uint8)
        for row, number in enumerate(index.ravel()):
            pixels[row] = self.read(int(number))
        return scaled(pixels).reshape(*index.shape, *self.shape[1:])


Examples: TypeAlias = np.ndarray | FileImages


class Split(NamedTuple):
    """Examples x (n, *dims), float32, in memory or in files, with their conditions and strata.

    c: leaves (n, ...). stratum: which law an example belongs to, (n,) int32 from 0, or None.
    """

    x: Any  # Examples
    c: Condition
    stratum: Int[np.ndarray, " n"] | None = None

    @property
    def num_strata(self) -> int:
        """Number of strata; 0 without any."""
        return 0 if self.stratum is None else int(self.stratum.max()) + 1

    @property
    def strata(self) -> Int[np.ndarray, " n"]:
        """Strata of all examples. Raises ValueError where there are none."""
        if self.stratum is None:
            raise ValueError("expected examples with strata, got none: give stratum=")
        return self.stratum


def labelled(x: Examples, labels: Int[np.ndarray, " n"]) -> Split:
    """Examples whose conditions and strata are their labels (n,)."""
    return Split(x, labels, labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three splits that share no example. Only the train split may lie in files.

    class_names: names of the strata, in their order.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of strata."""
        return len(self.class_names)

    @property
    def conditions(self) -> Condition:
        """One condition for every stratum, leaves (num_classes, ...)."""
        return conditions.representatives(self.train.c, self.train.strata)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.train.x.shape[1:]


def scaled(pixels: UInt8[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Bytes as float32 in [-1, 1]."""
    return pixels.astype(np.float32) / 127.5 - 1.0


def fingerprint(split: Split) -> str:
    """sha256 of a split: of its arrays, or of the files and of how they are read."""
    arrays = [split.x, *jax.tree.leaves(split.c)]
    if split.stratum is not None and split.stratum is not split.c:
        arrays.append(split.stratum)
    return digests.of_examples(
        f"{array.shape} {array.fingerprint}" if isinstance(array, FileImages) else array
        for array in arrays
    )
