"""Batches as pure functions of the step: the step number is all the state there is.

One of several processes names the part of each batch that it reads, see `parallel.local_rows`; the
parts of all make up the batch that one process would read.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from lgd.data.dataset import Split
from lgd.types import Batch

Part = Int[np.ndarray, " n"] | None  # ascending; None: everything


@dataclasses.dataclass(frozen=True)
class IndexedBatches:
    """Step -> batch of a split.

    index: step -> which examples: (b,), or (g, n) for groups of one class each.
    """

    split: Split
    index: Callable[[int], Int[np.ndarray, "..."]]

    def __call__(self, step: int) -> Batch:
        """x0 (b, *dims) or (g, n, *dims), and the labels, (b,) or (g,)."""
        index = self.index(step)
        return Batch(
            self.split.x[index], self.split.labels[index if index.ndim == 1 else index[:, 0]]
        )


def examples(split: Split, batch_size: int, *, seed: int, rows: Part = None) -> IndexedBatches:
    """Step -> examples x0 (b, *dims), c (b,): shuffled epochs, every example once in each.

    rows: which of the batch's entries are read, all by default. Raises ValueError for a batch size
    below 1 or an empty split.
    """
    if batch_size < 1 or not len(split.x):
        raise ValueError(f"expected batch_size >= 1 and data, got {batch_size} and {len(split.x)}")
    size = len(split.x)
    rows = np.arange(batch_size) if rows is None else rows

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(size)

    def index(step: int) -> np.ndarray:
        position = step * batch_size + rows
        epochs, offsets = np.divmod(position, size)
        return np.concatenate([order(int(e))[offsets[epochs == e]] for e in np.unique(epochs)])

    return IndexedBatches(split, index)


def class_groups(
    split: Split,
    group_size: int,
    *,
    seed: int,
    rounds: int = 1,
    groups: Part = None,
    members: Part = None,
) -> IndexedBatches:
    """Step -> ``rounds`` groups for each class: x0 (g, group_size, *dims), c (g,).

    g = rounds x classes. Members are drawn without replacement, or in whole rounds where a class
    has too few. groups, members: which are read, all by default. Raises ValueError if a label below
    the largest one has no example.
    """
    by_class = [np.flatnonzero(split.labels == label) for label in range(split.labels.max() + 1)]
    empty = [label for label, index in enumerate(by_class) if not len(index)]
    if empty or group_size < 1:
        raise ValueError(
            f"expected examples of every class, got none of {empty}; size {group_size}"
        )
    classes = np.tile(np.arange(len(by_class), dtype=np.int32), rounds)
    groups = np.arange(len(classes)) if groups is None else groups
    members = np.arange(group_size) if members is None else members

    def index(step: int) -> np.ndarray:
        rng = np.random.default_rng((seed, step))
        drawn = np.stack([_draw(rng, by_class[label], group_size) for label in classes])
        return drawn[np.ix_(groups, members)]

    return IndexedBatches(split, index)


def _draw(rng: np.random.Generator, index: np.ndarray, size: int) -> np.ndarray:
    rounds = -(-size // len(index))
    return np.concatenate([rng.permutation(index) for _ in range(rounds)])[:size]
