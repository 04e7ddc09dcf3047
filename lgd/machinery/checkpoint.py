"""Verified save and restore: a state comes back exactly as it was saved, or not at all.

A store is one folder:

    <step>/state/   the arrays, written by Orbax
    <step>/COMMIT   written last, by a rename: step, metadata, the sha256 of every leaf and file
    LEDGER          a line for each commit and each quarantine, appended and fsynced
    quarantine/     steps that were damaged

COMMIT and each line of LEDGER are sealed: their own sha256, a space, JSON. The ledger names the
sha256 of each COMMIT, so that no whole step is swapped or lost unnoticed. Orbax's own commit file
is not enough: it is written before the arrays can be read back and compared.

Of several processes, all of which save and restore together, process 0 alone reads and writes.
"""

import hashlib
import itertools
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from lgd.machinery.processes import broadcast, from_main, to_host

COMMIT_FILE = "COMMIT"
LEDGER_FILE = "LEDGER"
QUARANTINE = "quarantine"
_ALONE = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})

logger = logging.getLogger(__name__)
logging.getLogger("absl").addFilter(  # Orbax writes some 20 INFO lines a save
    lambda record: record.levelno >= logging.WARNING or "orbax" not in record.pathname
)


class CheckpointError(RuntimeError):
    """A state that cannot be saved, or a store that cannot be restored from."""


class NotSavedError(CheckpointError):
    """The disk did not take a state; the steps before it are as they were."""


class _DamagedError(CheckpointError):
    """What lies on disk is not what was committed."""


class Restored(NamedTuple):
    """A verified step, its state and the metadata saved with it."""

    step: int
    state: Any
    metadata: dict[str, Any]


class _Found(NamedTuple):
    """A verified step as it lies on disk."""

    step: int
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


class CheckpointStore:
    """One folder of steps, of which the newest `keep` are kept; it has one writer at a time.

    restart_damaged: where steps were committed and all of them are damaged, restore nothing, so
    that the run starts over, instead of raising. What is left of them stays in quarantine.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, keep: int = 2, restart_damaged: bool = False
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, got {keep}")
        self._root = Path(directory).absolute()
        self._keep, self._restart_damaged = keep, restart_damaged
        from_main(lambda: self._root.mkdir(parents=True, exist_ok=True))
        self._orbax = ocp.Checkpointer(
            ocp.PyTreeCheckpointHandler(multiprocessing_options=_ALONE),
            multiprocessing_options=_ALONE,
        )

    def save(self, step: int, state: Any, metadata: dict[str, Any] | None = None) -> None:
        """Save finite arrays and JSON metadata; return once they are read back and safe on disk.

        A step that exists with the same state is left alone; with another it is an error.
        """
        leaves = to_host(_named_leaves(state))
        from_main(lambda: self._save(step, leaves, metadata or {}))

    def _save(self, step: int, leaves: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        _refuse_non_finite(leaves, step)
        table = _describe(leaves)
        if self._is_saved(step, table):
            return
        try:
            self._write(step, leaves, table, metadata)
        except Exception as error:
            shutil.rmtree(self._root / str(step), ignore_errors=True)
            raise NotSavedError(f"{self._root}: step {step} was not saved: {error}") from error
        self._prune()
        if step not in self.steps():
            raise CheckpointError(f"{self._root}: expected step {step}, got {self.steps()}")

    def restore(self, like: Any) -> Restored | None:
        """Restore the newest verified step; quarantine each damaged one met on the way.

        Args:
            like: tree of arrays or `jax.ShapeDtypeStruct`. Numpy leaves come back as numpy arrays,
                others with their sharding, or uncommitted on the default device if they have none.

        Returns:
            None only where nothing was ever committed (but see `restart_damaged`). Steps that were
            committed and all fail, or a tree, shape or dtype other than `like`'s, are a
            `CheckpointError`.
        """
        leaves, found = _named_leaves(like), []

        def find() -> tuple[int, dict[str, Any]] | None:
            found.extend(self._newest(leaves))
            return (found[0].step, found[0].metadata) if found else None

        head = from_main(find)
        if head is None:
            return None
        read = [found[0].arrays[name] for name in leaves] if found else []
        arrays = broadcast(read, list(leaves.values()))
        placed = [_place(*pair) for pair in zip(arrays, leaves.values(), strict=True)]
        step, metadata = head
        return Restored(step, jax.tree.unflatten(jax.tree.structure(like), placed), metadata)

    def _newest(self, leaves: dict[str, Any]) -> list[_Found]:
        """The newest verified step, or none where nothing was ever committed."""
        ledger = self._read_ledger()
        sums = {line["step"]: line.get("commit") for line in ledger}
        newest = [step for step in sums if step == max(sums) and sums[step]]  # even if it is gone
        for step in sorted({*newest, *self._folders()}, reverse=True):
            if not sums.get(step) and step not in self.steps():
                shutil.rmtree(self._root / str(step))  # an interrupted save
                continue
            try:
                found = self._load(step, sums.get(step), leaves)
            except _DamagedError as damage:
                ledger.append(self._quarantine(step, damage))
                continue
            if not sums.get(step):  # killed between commit and ledger
                self._record(step)
            return [found]
        if ledger and self._restart_damaged:
            self._start_over()
        elif ledger:
            reasons = "\n".join(line["damage"] for line in ledger if "damage" in line)
            raise CheckpointError(f"{self._root}: committed, but no step can be used:\n{reasons}")
        return []

    def steps(self) -> list[int]:
        """List the committed steps, ascending, as they are on disk now."""
        return [s for s in self._folders() if (self._root / str(s) / COMMIT_FILE).exists()]

    def close(self) -> None:
        """Release what Orbax holds."""
        self._orbax.close()

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _folders(self) -> list[int]:
        names = [path.name for path in self._root.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]*", name))

    def _is_saved(self, step: int, table: dict[str, str]) -> bool:
        steps = self.steps()
        if step not in steps and step < max(steps, default=0):
            raise CheckpointError(f"{self._root}: expected a step above {steps}, got {step}")
        if step in steps and self._read_commit(step)["leaves"] != table:
            raise CheckpointError(f"{self._root}: expected the state saved at {step}, got another")
        return step in steps

    def _write(
        self, step: int, leaves: dict[str, Any], table: dict[str, str], metadata: dict[str, Any]
    ) -> None:
        folder = self._root / str(step)
        shutil.rmtree(folder, ignore_errors=True)  # an interrupted save
        arrays = [leaves[name] for name in _stored(leaves)]
        self._orbax.save(folder / "state", args=ocp.args.PyTreeSave(arrays))
        self._read_arrays(folder, leaves, table)
        files = [path for path in folder.rglob("*") if path.is_file()]
        sums = {str(path.relative_to(folder)): _sha256(_read(path)) for path in files}
        draft = folder / "draft"
        commit = {"step": step, "metadata": metadata, "leaves": table, "files": sums}
        draft.write_bytes(_seal(commit))
        for path in folder.rglob("*"):
            _fsync(path)
        draft.rename(folder / COMMIT_FILE)
        _fsync(folder)
        _fsync(self._root)
        self._record(step)

    def _load(self, step: int, commit_sum: str | None, leaves: dict[str, Any]) -> _Found:
        folder = self._root / str(step)
        commit = self._read_commit(step, commit_sum)
        _check_structure(leaves, commit["leaves"], folder)
        for name, expected in commit["files"].items():
            _check_sum(_read(folder / name), expected, name)
        return _Found(step, self._read_arrays(folder, leaves, commit["leaves"]), commit["metadata"])

    def _read_commit(self, step: int, commit_sum: str | None = None) -> dict[str, Any]:
        raw = _read(self._root / str(step) / COMMIT_FILE)
        commit = _unseal(raw, COMMIT_FILE)
        if commit["step"] != step:
            raise _DamagedError(f"{COMMIT_FILE}: expected step {step}, got {commit['step']}")
        if commit_sum:
            _check_sum(raw, commit_sum, COMMIT_FILE)
        return commit

    def _read_arrays(
        self, folder: Path, leaves: dict[str, Any], table: dict[str, str]
    ) -> dict[str, np.ndarray]:
        """Read the arrays to the host, each compared with its digest."""
        names = _stored(leaves)
        as_numpy = [ocp.RestoreArgs(restore_type=np.ndarray)] * len(names)
        args = ocp.args.PyTreeRestore(item=[0] * len(names), restore_args=as_numpy)
        try:
            read = self._orbax.restore(folder / "state", args=args)
        except Exception as error:  # the files are whole: a matter of memory or versions
            raise CheckpointError(f"{folder}: Orbax cannot read it: {error}") from error
        empty = {n: np.zeros(v.shape, v.dtype) for n, v in leaves.items() if not v.size}
        arrays = empty | dict(zip(names, read, strict=True))
        for name, got in _describe(arrays).items():
            if got != table[name]:
                raise _DamagedError(f"leaf {name}: expected {table[name]}, got {got}")
        return arrays

    def _quarantine(self, step: int, damage: _DamagedError) -> dict[str, Any]:
        folder, target = self._root / str(step), self._free_place(str(step))
        if folder.exists():
            folder.rename(target)
        logger.warning("%s is damaged, moved to %s: %s", folder, target, damage)
        return self._append({"step": step, "damage": f"step {step}: {damage}"})

    def _free_place(self, name: str) -> Path:
        shelf = self._root / QUARANTINE
        shelf.mkdir(exist_ok=True)
        places = (shelf / f"{name}.{number}" for number in itertools.count())
        return next(place for place in places if not place.exists())

    def _start_over(self) -> None:
        place = self._free_place(LEDGER_FILE)
        (self._root / LEDGER_FILE).rename(place)
        logger.warning("%s: every step is damaged, starting over; see %s", self._root, place)

    def _prune(self) -> None:
        for step in self.steps()[: -self._keep]:
            (self._root / str(step)).rename(self._root / f"{step}.removed")
        for leftover in self._root.glob("*.removed"):
            shutil.rmtree(leftover)

    def _record(self, step: int) -> None:
        self._append({"step": step, "commit": _sha256(_read(self._root / str(step) / COMMIT_FILE))})

    def _append(self, line: dict[str, Any]) -> dict[str, Any]:
        path = self._root / LEDGER_FILE
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        with path.open("ab") as file:
            file.write(b"\n" * torn + _seal(line) + b"\n")
        _fsync(path)
        _fsync(self._root)
        return line

    def _read_ledger(self) -> list[dict[str, Any]]:
        path, lines = self._root / LEDGER_FILE, []
        for raw in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
            try:
                lines.append(_unseal(raw, LEDGER_FILE))
            except _DamagedError as damage:
                logger.warning("%s has an unreadable line: %s", path, damage)
                lines.append({"step": -1, "damage": str(damage)})
        return lines


def digest(state: Any) -> str:
    """Return the sha256 of a tree of arrays: every path, dtype, shape and byte of it."""
    return _sha256(_to_json(_describe(to_host(_named_leaves(state)))))


def _named_leaves(tree: Any) -> dict[str, Any]:
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in pairs}
    for name, leaf in leaves.items():
        dtype = getattr(leaf, "dtype", None)
        if not any(jnp.issubdtype(dtype, kind) for kind in (np.number, np.bool_) if dtype):
            raise CheckpointError(f"leaf {name}: expected numbers, got {dtype or type(leaf)}")
    return leaves


def _refuse_non_finite(leaves: dict[str, Any], step: int) -> None:
    for name, leaf in leaves.items():
        if jnp.issubdtype(leaf.dtype, np.inexact) and not np.isfinite(leaf).all():
            raise CheckpointError(f"step {step}: leaf {name}: expected finite, got NaN or inf")


def _structure(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _describe(leaves: dict[str, Any]) -> dict[str, str]:
    table = {}
    for name, leaf in leaves.items():
        raw = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
        table[name] = f"{_structure(leaf)} {_sha256(raw)}"
    return table


def _check_structure(leaves: dict[str, Any], table: dict[str, str], folder: Path) -> None:
    expected = {name: _structure(leaf) for name, leaf in leaves.items()}
    got = {name: entry.rpartition(" ")[0] for name, entry in table.items()}
    differing = [n for n in sorted(expected | got) if expected.get(n) != got.get(n)]
    if differing:
        lines = [f"leaf {n}: expected {expected.get(n)}, got {got.get(n)}" for n in differing]
        raise CheckpointError(f"{folder} holds another state:\n" + "\n".join(lines))


def _stored(leaves: dict[str, Any]) -> list[str]:
    """Name, in order, the leaves that hold bytes: Orbax refuses the empty ones."""
    return [name for name in sorted(leaves) if leaves[name].size]


def _place(array: np.ndarray, like: Any) -> Any:
    if isinstance(like, np.ndarray | np.generic):
        return array
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return array  # 64 bits that JAX would cut to 32
    if getattr(like, "sharding", None) is None or not getattr(like, "committed", True):
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, like.sharding, lambda index: array[index])


def _to_json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def _seal(value: dict[str, Any]) -> bytes:
    return _sha256(_to_json(value)).encode() + b" " + _to_json(value)


def _unseal(raw: bytes, name: str) -> dict[str, Any]:
    seal, _, text = raw.partition(b" ")
    if seal != _sha256(text).encode():
        raise _DamagedError(f"{name}: its seal does not fit its content")
    return json.loads(text)


def _sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_sum(data: bytes, expected: str, name: str) -> None:
    if (got := _sha256(data)) != expected:
        raise _DamagedError(f"{name}: expected sha256 {expected}, got {got}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise _DamagedError(f"{path.name} is missing") from error


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
