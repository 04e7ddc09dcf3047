"""Batches as pure functions of the step: the step number is the only state.

With several processes each one reads its part of every batch, see `parallel.local_rows`; together
the parts are the batch that a single process would read. Only conditions take memory for every
example.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from lgd import conditions
from lgd.data import order
from lgd.data.dataset import FileImages, Split, fingerprint
from lgd.types import Batch

READ_THREADS = 4  # each reads a batch
READ_BATCHES = 8  # held in memory while a step computes

Part = Int[np.ndarray, " n"] | None  # ascending; None: everything


@dataclasses.dataclass(frozen=True)
class IndexedBatches:
    """Batches of a split, as a function of the step.

    Args:
      split: the examples.
      index: function of the step that returns numbers of examples, (b,), or (g, n) for groups.
      settings: numbers that determine the index, apart from the part that this process reads.
    """

    split: Split
    index: Callable[[int], Int[np.ndarray, "..."]]
    settings: Mapping[str, int]

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step, x0 and c with the leading axes (b,) or (g, n)."""
        return self.at(self.index(step))

    def at(self, index: Int[np.ndarray, "..."]) -> Batch:
        """Return the examples of these numbers, with the axes of the index in front."""
        return Batch(self.split.x[index], conditions.take(self.split.c, index))

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """Digests and settings, by name, that a resumed training must share with its start."""
        settings = {name: str(value) for name, value in self.settings.items()}
        return {**settings, "order": order.identity(), "data sha256": fingerprint(self.split)}

    def dataset(self) -> Any:
        """Return the batches of all steps as a `grain.MapDataset`, to use in other pipelines."""
        import grain  # takes a while, and examples in memory need none of it

        return grain.MapDataset.range(sys.maxsize).map(self)


def examples(split: Split, batch_size: int, *, seed: int, rows: Part = None) -> IndexedBatches:
    """Return batches of examples x0 (b, *dims), c (b, ...), in epochs that are shuffled anew.

    Args:
      split: the examples.
      batch_size: b.
      seed: for the order of the examples.
      rows: entries of the batch that are read, ascending; None: all.

    Raises:
      ValueError: for a batch size below 1 or an empty split.
    """
    if batch_size < 1 or not len(split.x):
        raise ValueError(f"expected batch_size >= 1 and data, got {batch_size} and {len(split.x)}")
    size = len(split.x)
    rows = np.arange(batch_size) if rows is None else rows

    @functools.lru_cache(maxsize=64)
    def keys(epoch: int) -> np.ndarray:
        return order.keys(seed, epoch, count=1)

    def index(step: int) -> np.ndarray:
        epochs, positions = np.divmod(step * batch_size + rows, size)
        distinct, where = np.unique(epochs, return_inverse=True)
        key = np.concatenate([keys(int(epoch)) for epoch in distinct], axis=1)[:, where]
        return order.permuted(positions, np.full_like(positions, size), key)

    return IndexedBatches(split, index, {"batch_size": batch_size, "seed": seed})


def groups(
    split: Split,
    group_size: int,
    *,
    seed: int,
    rounds: int = 1,
    strata: int | None = None,
    groups: Part = None,
    members: Part = None,
) -> IndexedBatches:
    """Return batches of groups x0 (g, n, *dims), c (g, n, ...), ``rounds`` of every stratum.

    n = group_size, g = rounds x strata, group i of the (i mod strata)-th stratum of the step;
    without strata all examples are one stratum. Members of a group are drawn without replacement; a
    stratum with fewer than n examples is repeated in whole permutations. A step with fewer strata
    than there are takes the next of a permutation, drawn anew when fewer are left: at every step a
    simple random sample of them, and over the steps all equally often. The work of a step grows
    with its groups, not with the strata.

    Args:
      split: the examples.
      group_size: members of a group.
      seed: for the draws.
      rounds: groups of every stratum of the step.
      strata: of a step, at most; None: all.
      groups: groups that are read, ascending; None: all.
      members: members that are read, ascending; None: all.

    Raises:
      ValueError: if a stratum below the largest one has no example, or for a group size or a
        number of strata below 1.
    """
    stratum = np.zeros(len(split.x), np.int32) if split.stratum is None else split.stratum
    counts = np.bincount(stratum)
    empty = np.flatnonzero(counts == 0)[:10].tolist()
    if empty or group_size < 1:
        raise ValueError(
            f"expected examples of every stratum, got none of {empty}; size {group_size}"
        )
    if strata is not None and strata < 1:
        raise ValueError(f"expected strata >= 1, got {strata}")
    drawn = len(counts) if strata is None else min(strata, len(counts))
    by_stratum = np.argsort(stratum, kind="stable")
    starts = np.cumsum(counts) - counts
    places = np.tile(np.arange(drawn), rounds)
    groups = np.arange(len(places)) if groups is None else groups
    members = np.arange(group_size) if members is None else members
    shape = (len(groups), len(members))
    most = -(-group_size // int(counts.min()))  # permutations that a group takes

    def index(step: int) -> np.ndarray:
        of_step = _strata(len(counts), drawn, seed, step)
        drawn_from = of_step[places[groups]][:, None]
        sizes = np.broadcast_to(counts[drawn_from], shape)
        times, positions = np.divmod(np.broadcast_to(members, shape), sizes)
        key = order.keys(seed, step, count=len(places) * most).reshape(-1, len(places), most)
        numbers = order.permuted(positions, sizes, key[:, groups[:, None], times])
        return by_stratum[starts[drawn_from] + numbers]

    settings = {"group_size": group_size, "rounds": rounds, "seed": seed}
    if drawn < len(counts):
        settings["strata"] = drawn
    return IndexedBatches(split, index, settings)


def _strata(count: int, drawn: int, seed: int, step: int) -> Int[np.ndarray, " s"]:
    """The strata of a step: all, or the next of a permutation, see `groups`."""
    if drawn == count:
        return np.arange(count)
    epoch, block = divmod(step, count // drawn)
    key = order.keys(seed, epoch, 1, count=1)  # 0 would be that of no further purpose
    places = block * drawn + np.arange(drawn)
    return order.permuted(places, np.full(drawn, count), np.repeat(key, drawn, axis=1))


@runtime_checkable
class Indexed(Protocol):
    """Batches that know the numbers of their examples."""

    def index(self, step: int) -> Int[np.ndarray, "..."]:
        """Return the numbers of the examples of a step."""


@runtime_checkable
class Identified(Protocol):
    """Batches that know what they are drawn from."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Data, order, seed and batch size as texts, by name."""


def identity_of(batches: Any) -> dict[str, str]:
    """Return the identity of batches, empty if they are not `Identified`."""
    return dict(batches.identity) if isinstance(batches, Identified) else {}


def check_identity(recorded: Mapping[str, str], current: Mapping[str, str]) -> None:
    """Raise ValueError, naming the differences, if recorded batches have another identity.

    Without either of the two there is nothing to compare, and nothing is raised.
    """
    lines = [
        f"{name}: expected {recorded.get(name, 'none')}, got {current.get(name, 'none')}"
        for name in sorted({*recorded, *current})
        if recorded.get(name) != current.get(name)
    ]
    if recorded and current and lines:
        raise ValueError(
            "store: expected checkpoints of a training with the same batches, use another folder; "
            + "; ".join(lines)
        )


@contextlib.contextmanager
def reading_ahead(
    batches: Callable[[int], Batch], *, threads: int = READ_THREADS, ahead: int = READ_BATCHES
) -> Iterator[Callable[[int], Batch]]:
    """Yield the same batches, read ahead by threads if their examples are in files.

    They are still a function of the step, and fast if steps are consecutive. An exception in a
    thread is raised at its step. The threads end with the context.

    Args:
      batches: a function of the step.
      threads: threads that read, a batch each.
      ahead: batches held in memory.
    """
    if not (isinstance(batches, IndexedBatches) and isinstance(batches.split.x, FileImages)):
        yield batches
        return
    with contextlib.closing(_ReadingAhead(batches, threads, ahead)) as reader:
        yield reader


class _ReadingAhead:
    """`IndexedBatches` read by an iterator over the steps after the last one."""

    def __init__(self, batches: IndexedBatches, threads: int, ahead: int) -> None:
        self._batches, self._threads, self._ahead = batches, threads, ahead
        self._iterator: Any = None
        self._last: tuple[int, Batch | None] = (-1, None)
        self.index, self.identity = batches.index, batches.identity

    def __call__(self, step: int) -> Batch:
        last, batch = self._last
        if batch is None or step != last:
            if self._iterator is None or step != last + 1:
                self._start(step)
            try:
                batch = next(self._iterator)
            except BaseException:
                self.close()
                raise
            self._last = (step, batch)
        return batch

    def _start(self, step: int) -> None:
        import grain

        self.close()
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._ahead)
        self._iterator = iter(self._batches.dataset()[step:].to_iter_dataset(options))

    def close(self) -> None:
        """End the threads."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator, self._last = None, (-1, None)
