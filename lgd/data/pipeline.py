"""Batches as pure functions of the step: the step number is all the state there is.

One of several processes names the part of each batch that it reads, see `parallel.local_rows`; the
parts of all make up the batch that one process would read.
"""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from lgd.data.dataset import Split
from lgd.types import Batch

Batches = Callable[[int], Batch]
Part = Int[np.ndarray, " n"] | None  # ascending; None: everything


def examples(split: Split, batch_size: int, *, seed: int, rows: Part = None) -> Batches:
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

    def batch(step: int) -> Batch:
        position = step * batch_size + rows
        epochs, offsets = np.divmod(position, size)
        index = np.concatenate([order(int(e))[offsets[epochs == e]] for e in np.unique(epochs)])
        return Batch(split.x[index], split.labels[index])

    return batch


def class_groups(
    split: Split,
    group_size: int,
    *,
    seed: int,
    rounds: int = 1,
    groups: Part = None,
    members: Part = None,
) -> Batches:
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

    def batch(step: int) -> Batch:
        rng = np.random.default_rng((seed, step))
        index = np.stack([_draw(rng, by_class[label], group_size) for label in classes])
        return Batch(split.x[index[np.ix_(groups, members)]], classes[groups])

    return batch


def _draw(rng: np.random.Generator, index: np.ndarray, size: int) -> np.ndarray:
    rounds = -(-size // len(index))
    return np.concatenate([rng.permutation(index) for _ in range(rounds)])[:size]
