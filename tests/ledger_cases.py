"""Damages to every file of a workdir, and what a start says of each."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "first byte": lambda data: flipped(data, 0),
    "middle byte": lambda data: flipped(data, len(data) // 2),
    "last byte": lambda data: flipped(data, len(data) - 1),
    "last line break into a return": lambda data: data.removesuffix(b"\n") + b"\r",
    "a byte less": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\n",
    "nothing left": lambda data: b"",
}
NEVER_READ = {"lock"}  # of the process that runs; written anew at every start


def flipped(data: bytes, place: int) -> bytes:
    """The bytes with the lowest bit of one changed."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def files(run: Path) -> list[str]:
    """Names of all files of a run."""
    names = (str(file.relative_to(run)) for file in run.rglob("*") if file.is_file())
    return sorted(name for name in names if name not in NEVER_READ)


def silent(run: Path, other: Path, start: Callable[[], str]) -> Iterator[str]:
    """What a start of a run does not refuse by name.

    Args:
      run: the folder, the same again at the end.
      other: a folder of another run of the same kind.
      start: opens the run, and returns the message of a refusal.
    """
    if start():
        yield f"refused as it is: {start()}"
    for name in files(run):
        file, whole = run / name, (run / name).read_bytes()
        changed = {damage: change(whole) for damage, change in DAMAGES.items()}
        if (other / name).is_file():
            changed["exchanged for another run's"] = (other / name).read_bytes()
        for damage, data in changed.items():
            if data == whole:
                continue
            file.write_bytes(data)
            if name.split("/")[-1] not in start():
                yield f"{name}: {damage}"
        file.write_bytes(whole)
    yield from _neighbours(run, start)
    if start():
        yield f"refused at the end: {start()}"


def _neighbours(run: Path, start: Callable[[], str]) -> Iterator[str]:
    """Exchange every file with the next one in its folder."""
    names = files(run)
    for one, two in itertools.pairwise(names):
        first, second = (run / one).read_bytes(), (run / two).read_bytes()
        if Path(one).parent != Path(two).parent or first == second:
            continue
        (run / one).write_bytes(second)
        (run / two).write_bytes(first)
        message = start()
        if Path(one).name not in message and Path(two).name not in message:
            yield f"{one} and {two} exchanged"
        (run / one).write_bytes(first)
        (run / two).write_bytes(second)


def exchanged_folders(run: Path, other: Path, names: list[str]) -> Iterator[None]:
    """Put each of these folders of another run in the place of the run's own, for a while."""
    for name in names:
        kept = shutil.move(run / name, run.with_name("kept"))
        shutil.copytree(other / name, run / name)
        yield
        shutil.rmtree(run / name)
        shutil.move(kept, run / name)
