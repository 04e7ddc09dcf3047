"""The ledger of a workdir: size and sha256 of every file that the run wrote, bound to the run.

It is one sealed file, written as a whole. A file comes by way of a draft: the ledger learns what
the draft holds, then the draft takes the place of the file, so that a kill leaves the file of
before or the new one, and the ledger knows both. Files that grow by lines are known up to where
they were noted last.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lgd.machinery import digests, storage
from lgd.machinery.ledger import DamagedError, fsync, read, seal, unseal
from lgd.machinery.words import shown

LEDGER = "LEDGER"
DRAFTS = "drafts"


class Entry(NamedTuple):
    """What a file holds; of one that grows, its first ``size`` bytes."""

    sha256: str
    size: int
    grows: bool

    def fits(self, file: Path) -> bool:
        """Whether the file is there and holds this."""
        if not file.is_file():
            return False
        size = file.stat().st_size
        whole = size == self.size or (self.grows and size > self.size)
        return whole and digests.of_file(file, first=self.size) == self.sha256


def entry_of(file: Path, *, grows: bool = False) -> Entry:
    """What a file holds now; of one that grows, all finished lines."""
    size = file.stat().st_size
    if grows:
        size = file.read_bytes().rfind(b"\n") + 1
    return Entry(digests.of_file(file, first=size), size, grows)


def _entries(value: Any, where: str) -> dict[str, Entry]:
    """The entries that a ledger holds. Raises DamagedError for anything else."""
    try:
        entries = {str(name): Entry(*entry) for name, entry in value.items()}
    except (AttributeError, TypeError):
        raise DamagedError(f"{where}: expected entries of files, got {shown(value)}") from None
    types = [type(field) for entry in entries.values() for field in entry]
    inside = all(not name.startswith("/") and ".." not in name.split("/") for name in entries)
    if types != [str, int, bool] * len(entries) or not inside:
        raise DamagedError(f"{where}: expected entries of files, got {shown(value)}")
    return entries


class FileLedger:
    """The files of one folder.

    Args:
      root: the folder.
      run: what binds the ledger to the run: a ledger of another one is refused.
    """

    def __init__(self, root: Path, run: str) -> None:
        self.path = root / LEDGER
        self._root, self._run = root, run
        self._files: dict[str, Entry] = {}
        self._pending: dict[str, Entry] = {}  # drafts that are about to take their place

    def open(self) -> None:
        """Read the ledger. Raises DamagedError if there is none, or one that does not hold."""
        value = unseal(read(self.path), str(self.path))
        if value.get("run") != self._run:
            raise DamagedError(f"{self.path}: expected the ledger of this run, got another run's")
        self._files, self._pending = (
            _entries(value.get(part), f"{self.path}: {part}") for part in ("files", "pending")
        )
        for name, entry in self._pending.items():  # a kill came before the file took its place
            if entry.fits(self._root / name):  # or after it
                self._files[name] = entry
        if self._pending:
            self._pending = {}
            self._save()

    def __contains__(self, file: Path) -> bool:
        return self._name(file) in self._files

    def names(self, *beginnings: str) -> list[str]:
        """Names of the known files with one of these beginnings."""
        return [name for name in self._files if name.startswith(beginnings)]

    def damaged(self, names: Iterable[str]) -> list[str]:
        """A message for every known file among these that is not as it was written."""
        return [line for name in names if (line := self._damage(name))]

    def _damage(self, name: str) -> str:
        file, entry = self._root / name, self._files[name]
        if entry.fits(file):
            return ""
        if not file.is_file():
            return f"{file}: expected the file that this run wrote, found none"
        start = "to begin with " if entry.grows else ""
        got = entry_of(file)
        return (
            f"{file}: expected {start}what this run wrote, {entry.size} bytes of sha256 "
            f"{entry.sha256[:16]}, got {got.size} bytes of sha256 {got.sha256[:16]}"
        )

    @contextlib.contextmanager
    def writing(self, file: Path, *, grows: bool = False) -> Iterator[Path]:
        """A draft to write; at the end it takes the place of the file, and the ledger knows it."""
        draft, name = self._root / DRAFTS / file.name, self._name(file)
        draft.parent.mkdir(exist_ok=True)
        try:
            yield draft
            fsync(draft)
            self._pending[name] = entry_of(draft, grows=grows)
            self._save()
            file.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(file)
            fsync(file.parent)
            self._files[name] = self._pending[name]
        finally:
            self._pending.pop(name, None)
            draft.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                draft.parent.rmdir()

    def note(self, *files: Path, grows: bool = False) -> None:
        """Know these files as they are now, and whether they grow."""
        entries = {self._name(file): entry_of(file, grows=grows) for file in files}
        if any(self._files.get(name) != entry for name, entry in entries.items()):
            self._files |= entries
            self._save()

    def forget(self, names: Iterable[str]) -> None:
        """Know these files no longer."""
        if gone := set(names) & self._files.keys():
            self._files = {n: entry for n, entry in self._files.items() if n not in gone}
            self._save()

    def _name(self, file: Path) -> str:
        return file.relative_to(self._root).as_posix()

    def _save(self) -> None:
        value: dict[str, Any] = {
            "run": self._run,
            "files": self._files,
            "pending": self._pending,
        }
        storage.write(self.path, seal(value))
        fsync(self._root)
