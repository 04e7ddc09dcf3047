"""Verified save and restore: a state comes back exactly as it was saved, or not at all.

A store is one folder:

    <step>/state/   the arrays, written by Orbax
    <step>/COMMIT   written last, by a rename: step, metadata, the sha256 of every leaf and file
    LEDGER          a sealed line for each commit and each quarantine, see `lgd.machinery.ledger`
    quarantine/     steps that were damaged

COMMIT is sealed as well, and the ledger names its sha256, so that no whole step is swapped or lost
unnoticed. Orbax's own commit file is written before the arrays can be read back and compared.

Of several processes, all of which save and restore together, process 0 alone reads and writes.
"""

import contextlib
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lgd.machinery import digests, files, ledger
from lgd.machinery.arrays import ArrayFolders, not_finite, placed_like
from lgd.machinery.commit import STATE, check_commit, lines_of
from lgd.machinery.ledger import DamagedError, fsync
from lgd.machinery.paths import local
from lgd.machinery.processes import broadcast, from_main, to_host

COMMIT_FILE = "COMMIT"
LEDGER_FILE = "LEDGER"
QUARANTINE = "quarantine"

logger = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A state cannot be saved, or a store cannot be restored from."""


class NotSavedError(CheckpointError):
    """The disk refused a state; earlier steps are unchanged."""


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """What does not fit, a state or what lies in the place of a file, is a `CheckpointError`."""
    try:
        yield
    except ValueError as error:
        raise CheckpointError(str(error)) from error


class Restored(NamedTuple):
    """A verified step, its state and the metadata saved with it."""

    step: int
    state: Any
    metadata: dict[str, Any]


class _OnDisk(NamedTuple):
    """A verified step as it lies on disk."""

    step: int
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


class CheckpointStore(contextlib.AbstractContextManager["CheckpointStore"]):
    """A folder that holds the newest steps; it has one writer at a time.

    Args:
        directory: the folder; it is created if it does not exist.
        keep: number of steps to keep.
        restart_damaged: if every committed step is damaged, restore nothing, so that the run starts
            over, instead of raising an error. The damaged steps stay in quarantine.
        on_ledger: called, in process 0, whenever LEDGER has changed.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 2,
        restart_damaged: bool = False,
        on_ledger: Callable[[], None] = lambda: None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, got {keep}")
        self._keep, self._restart_damaged = keep, restart_damaged
        with _in_words():
            self._root = local(directory).absolute()
            from_main(lambda: str(files.folder(self._root)))
        self._ledger, self._on_ledger = ledger.Ledger(self._root / LEDGER_FILE), on_ledger
        self._arrays = ArrayFolders()

    @_in_words()
    def save(self, step: int, state: Any, metadata: dict[str, Any] | None = None) -> None:
        """Save finite arrays and JSON metadata; return once they are read back and safe on disk.

        A step that exists with the same state is left alone; with another it is an error.
        """
        leaves = to_host(digests.named_leaves(state))
        from_main(lambda: self._save(step, leaves, metadata or {}))

    def _save(self, step: int, leaves: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        for name in not_finite(leaves):
            raise CheckpointError(f"step {step}: leaf {name}: expected finite, got NaN or inf")
        if self._is_saved(step, table := digests.table(leaves)):
            return
        try:
            self._write(step, leaves, table, metadata)
        except Exception as error:
            files.discard(self._root / str(step))
            raise NotSavedError(f"{self._root}: step {step} was not saved: {error}") from error
        try:
            self._record(step)
        except OSError as error:  # the next restore records it
            raise NotSavedError(f"{self._root}: step {step} was not recorded: {error}") from error
        self._prune()
        if step not in self.steps():
            raise CheckpointError(f"{self._root}: expected step {step}, got {self.steps()}")

    @_in_words()
    def restore(self, like: Any) -> Restored | None:
        """Restore the newest verified step, and quarantine every newer one, which is damaged.

        Args:
            like: tree of arrays or `jax.ShapeDtypeStruct`. Numpy leaves come back as numpy arrays,
                others with their sharding, or uncommitted on the default device if they have none.

        Returns:
            The step, or None if nothing was ever committed (but see `restart_damaged`).

        Raises:
            CheckpointError: every committed step is damaged, or the state differs from ``like`` in
                its tree, a shape or a dtype.
        """
        leaves = digests.named_leaves(like)
        arrays: list[np.ndarray] = []

        def newest() -> tuple[int, dict[str, Any]] | None:
            on_disk = self._newest(leaves)
            if on_disk is None:
                return None
            arrays.extend(on_disk.arrays[name] for name in leaves)
            return on_disk.step, on_disk.metadata

        head = from_main(newest)
        if head is None:
            return None
        arrays = broadcast(arrays, list(leaves.values()))
        placed = map(placed_like, arrays, leaves.values())
        return Restored(head[0], jax.tree.unflatten(jax.tree.structure(like), placed), head[1])

    def _newest(self, leaves: dict[str, Any]) -> _OnDisk | None:
        """The newest verified step; None where nothing was ever committed."""
        lines, damages = lines_of(self._ledger)
        sums = {line["step"]: line.get("commit") for line in lines}
        damages += [line["damage"] for line in lines if "damage" in line]
        newest = [step for step in sums if step == max(sums) and sums[step]]  # even if it is gone
        for step in sorted({*newest, *self._folders()}, reverse=True):
            if not sums.get(step) and step not in self.steps():
                files.discard(self._root / str(step))  # an interrupted save
                continue
            try:
                on_disk = self._load(step, sums.get(step), leaves)
            except DamagedError as damage:
                damages.append(self._quarantine(step, damage))
                continue
            if not sums.get(step):  # killed between commit and ledger
                self._record(step)
            return on_disk
        if not lines and not damages:
            return None
        if not self._restart_damaged:
            reasons = "\n".join(damages)
            raise CheckpointError(f"{self._root}: committed, but no step can be used:\n{reasons}")
        self._start_over()
        return None

    def steps(self) -> list[int]:
        """List the committed steps, ascending, as they are on disk now."""
        return [s for s in self._folders() if (self._root / str(s) / COMMIT_FILE).exists()]

    def close(self) -> None:
        """Release what Orbax holds."""
        self._arrays.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _folders(self) -> list[int]:
        names = [path.name for path in self._root.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]*", name))

    def _is_saved(self, step: int, table: dict[str, str]) -> bool:
        steps = self.steps()
        if step not in steps and step < max(steps, default=0):
            raise CheckpointError(f"{self._root}: expected a step above {steps}, got {step}")
        if step not in steps:
            return False
        try:
            same = self._read_commit(step)["leaves"] == table
        except DamagedError as damage:
            raise CheckpointError(f"{self._root}: step {step}: {damage}") from damage
        if not same:
            raise CheckpointError(f"{self._root}: expected the state saved at {step}, got another")
        return True

    def _write(
        self, step: int, leaves: dict[str, Any], table: dict[str, str], metadata: dict[str, Any]
    ) -> None:
        folder = self._root / str(step)
        files.discard(folder)  # an interrupted save
        self._arrays.write(folder / STATE, leaves)
        self._read_arrays(folder, leaves, table)
        written = [path for path in folder.rglob("*") if path.is_file()]
        sums = {str(path.relative_to(folder)): digests.of_file(path) for path in written}
        draft = folder / "draft"
        commit = {"step": step, "metadata": metadata, "leaves": table, "files": sums}
        draft.write_bytes(ledger.seal(commit))
        for path in folder.rglob("*"):
            fsync(path)
        draft.rename(folder / COMMIT_FILE)
        fsync(folder)
        fsync(self._root)

    def _load(self, step: int, commit_sum: str | None, leaves: dict[str, Any]) -> _OnDisk:
        folder = self._root / str(step)
        commit = self._read_commit(step, commit_sum)
        if lines := digests.differing_structures(leaves, commit["leaves"]):
            raise CheckpointError(f"{folder} holds another state:\n" + "\n".join(lines))
        for name, expected in commit["files"].items():
            ledger.check(ledger.read(folder / name), expected, name)
        arrays = self._read_arrays(folder, leaves, commit["leaves"])
        return _OnDisk(step, arrays, commit["metadata"])

    def _read_commit(self, step: int, commit_sum: str | None = None) -> dict[str, Any]:
        raw = ledger.read(self._root / str(step) / COMMIT_FILE)
        check_commit(commit := ledger.unseal(raw, COMMIT_FILE), COMMIT_FILE)
        if commit["step"] != step:
            raise DamagedError(f"{COMMIT_FILE}: expected step {step}, got {commit['step']}")
        if commit_sum:
            ledger.check(raw, commit_sum, COMMIT_FILE)
        return commit

    def _read_arrays(
        self, folder: Path, leaves: dict[str, Any], table: dict[str, str]
    ) -> dict[str, np.ndarray]:
        """Read the arrays to the host, each compared with its digest."""
        try:
            arrays = self._arrays.read(folder / STATE, leaves)
        except Exception as error:  # the files are whole: a matter of memory or versions
            raise CheckpointError(f"{folder}: Orbax cannot read it: {error}") from error
        for name, got in digests.table(arrays).items():
            if got != table[name]:
                raise DamagedError(f"leaf {name}: expected {table[name]}, got {got}")
        return arrays

    def _quarantine(self, step: int, damage: DamagedError) -> str:
        """Move a damaged step aside and return the reason, which the ledger keeps."""
        folder, target = self._root / str(step), self._free_place(str(step))
        if os.path.lexists(folder):
            folder.rename(target)
        logger.warning("%s is damaged, moved to %s: %s", folder, target, damage)
        reason = f"step {step}: {damage}"
        self._append({"step": step, "damage": reason})
        return reason

    def _free_place(self, name: str) -> Path:
        shelf = files.folder(self._root / QUARANTINE)
        places = (shelf / f"{name}.{number}" for number in itertools.count())
        return next(place for place in places if not place.exists())

    def _start_over(self) -> None:
        place = self._free_place(LEDGER_FILE)
        self._ledger.path.rename(place)
        self._on_ledger()
        logger.warning("%s: every step is damaged, starting over; see %s", self._root, place)

    def _prune(self) -> None:
        for step in self.steps()[: -self._keep]:
            (self._root / str(step)).rename(self._root / f"{step}.removed")
        for leftover in self._root.glob("*.removed"):
            files.discard(leftover)

    def _record(self, step: int) -> None:
        file = self._root / str(step) / COMMIT_FILE
        self._append({"step": step, "commit": digests.of_file(file)})

    def _append(self, line: dict[str, Any]) -> None:
        self._ledger.append(line)
        self._on_ledger()
