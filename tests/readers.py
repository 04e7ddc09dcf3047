"""The inventory of readers: what each reads, the part of it that is changed, what it may raise.

A reader here is a set of valid files with one part that tests change: the bytes of a file, or a
text inside it, around which digests, seals and lengths are made to fit again.
"""

import functools
import gzip
import io
import json
import shutil
import struct
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from idx_files import idx_folder, images_and_labels
from PIL import Image
from torch_files import FORMATS, state_program, streamed, torch_bytes, zipped

import lgd
from lgd import omega
from lgd.data import captions, image_files, image_folder, npz
from lgd.data.faults import DataFileError
from lgd.data.image_files import IDX_FILES
from lgd.evaluation.journal import Journal, JournalError, _sealed
from lgd.exchange import schedules
from lgd.exchange.files import FileError
from lgd.exchange.kinds import ScheduleError
from lgd.gram import Layout, StatisticsError, store
from lgd.gram.layout import pack
from lgd.machinery import digests, ledger, storage
from lgd.machinery.checkpoint import CheckpointError, CheckpointStore
from lgd.machinery.tensors import packed, unpacked
from lgd.metrics.inception import torch_file
from lgd.objectives import UniformTimes

Files = dict[str, bytes]  # content by path


class Reader(NamedTuple):
    """How files of one kind are made, changed and read."""

    write: Callable[[Path], object]  # into an empty folder
    name: str  # of the file that is changed
    read: Callable[[Path], object]  # the folder
    errors: tuple[type[Exception], ...]  # that are documented
    get: Callable[[Files, str], bytes] = lambda files, name: files[name]
    put: Callable[[Files, str, bytes], Files] = lambda files, name, part: files | {name: part}
    is_json: bool = False


@functools.cache
def _valid(write: Callable[[Path], object]) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return contents(Path(folder))


def contents(folder: Path) -> Files:
    """All files of a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def part_of(reader: Reader) -> bytes:
    """The part of the valid files that is changed."""
    return reader.get(_valid(reader.write), reader.name)


def place(reader: Reader, folder: Path, part: bytes) -> None:
    """Write the files into a folder, with a part in the place of the valid one."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in reader.put(_valid(reader.write), reader.name, part).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def outcome(reader: Reader, folder: Path) -> str:
    """What comes of reading a folder: "read", "refused: ...", or "fault: ..." in words."""
    try:
        reader.read(folder)
    except Exception as error:
        causes = list(_causes(error))
        named = isinstance(error, reader.errors) and folder.name in str(error)
        bounded = len(str(error)) < 20_000
        wrong = [e for e in causes if isinstance(e, MemoryError | RecursionError)]
        if named and bounded and not wrong:
            return f"refused: {str(error)[:500]}"
        return "fault: " + "".join(traceback.format_exception(error))[-3000:]
    return "read"


def _causes(error: BaseException | None) -> Any:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# Data


def _npz(folder: Path, compressed: bool = True) -> None:
    save = np.savez_compressed if compressed else np.savez
    save(folder / "a.npz", **images_and_labels(5, 3, (4, 4), 3))


def _stored_npz(folder: Path) -> None:
    _npz(folder, compressed=False)


def _npy_header(files: Files, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(files[name])) as archive:
        member = archive.read("x.npy")
    return member[10 : 10 + int.from_bytes(member[8:10], "little")]


def _with_npy_header(files: Files, name: str, header: bytes) -> Files:
    out, header = io.BytesIO(), header[:65_535]
    with zipfile.ZipFile(io.BytesIO(files[name])) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.namelist():
            member = old.read(entry)
            if entry == "x.npy":
                values = member[10 + int.from_bytes(member[8:10], "little") :]
                member = member[:8] + struct.pack("<H", len(header)) + header + values
            new.writestr(entry, member)
    return files | {name: out.getvalue()}


def _read_npz(folder: Path) -> None:
    npz.load(folder / "a.npz", 3, 1, 2)


def _idx(folder: Path) -> None:
    idx_folder(folder / "idx", images_and_labels(5, 3, (4, 4), 3))


def _idx_gz(folder: Path) -> None:
    idx_folder(folder / "idx", images_and_labels(5, 3, (4, 4), 3), gzipped=IDX_FILES)


def _read_idx(folder: Path) -> None:
    image_files.read(folder / "idx", size=(4, 4), num_classes=3)


def _images(folder: Path, kind: str = "PNG") -> None:
    rng = np.random.default_rng(0)
    for label in range(2):
        (folder / "images" / f"{label}").mkdir(parents=True)
        for k in range(3):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            file = folder / "images" / f"{label}" / f"{k}.{'png' if kind == 'PNG' else 'jpg'}"
            Image.fromarray(pixels).save(file, kind, progressive=True)
    (folder / "images" / "classes.txt").write_text("1\n0\n")


def _jpegs(folder: Path) -> None:
    _images(folder, "JPEG")


def _known_images(folder: Path) -> None:
    _images(folder)
    _read_images(folder)


def _read_images(folder: Path) -> None:
    image_folder.load(folder / "images", 2, 2, 2, size=4).train.x[:]


def _captions(folder: Path) -> None:
    _images(folder)
    lines = [
        json.dumps({"file_name": f"{k}/{i}.png", "text": f"a {k} {i}"})
        for k in range(2)
        for i in range(3)
    ]
    (folder / "images" / captions.METADATA).write_text("\n".join(lines))


def _read_captions(folder: Path) -> None:
    def encode(texts: Any) -> np.ndarray:
        return np.zeros((len(texts), 2), np.float32)

    captions.load(folder / "images", 1, 1, 1, size=4, encode=encode).train.x[:]


DATA = (DataFileError,)

# Parameters, guidance, schedules

PARAMS = {"dense": {"kernel": np.ones((2, 3), np.float32)}, "n": np.arange(3, dtype=np.int32)}


def _params(folder: Path) -> None:
    storage.save_params(folder / "a.safetensors", PARAMS)


def _read_params(folder: Path) -> None:
    storage.load_params(folder / "a.safetensors", PARAMS)


def _header(files: Files, name: str) -> bytes:
    return files[name][8 : 8 + int.from_bytes(files[name][:8], "little")]


def _with_header(files: Files, name: str, header: bytes) -> Files:
    body = files[name][8 + int.from_bytes(files[name][:8], "little") :]
    return files | {name: struct.pack("<Q", len(header)) + header + body}


def _guidance(folder: Path) -> None:
    c = np.asarray([0, 1], np.int32)
    network = omega.default_network(lgd.schedules.cosine(), c, omega.Support())
    network = omega.Network(schedule=network.schedule, encoder=network.encoder, width=2, depth=2)
    shapes = jax.eval_shape(network.init, jax.random.key(0), c)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    history = {"loss": [1.0, 0.5], "step": [0, 1]}
    provenance = {"of": "a test"}
    lgd.save(
        omega.Guidance(network, params, "init", network.schedule, history, provenance),
        folder / "a.safetensors",
    )


def _read_guidance(folder: Path) -> None:
    str(lgd.load(folder / "a.safetensors"))


def _description(files: Files, name: str) -> bytes:
    return unpacked(files[name]).metadata["description"].encode()


def _with_description(files: Files, name: str, text: bytes) -> Files:
    said = text.decode(errors="replace")
    metadata = {"description": said, "description_sha256": digests.of_bytes(said.encode())}
    return files | {name: packed(unpacked(files[name]).tensors, metadata)}


SCHEDULES = [
    {"name": "late", "kind": "limited_interval", "w": 2.4, "lo": 0.0, "hi": 0.15},
    {"name": "mine", "kind": "table", "times": [1.0, 0.5, 0.0], "values": [0.3, 1.2]},
    {"name": "each", "kind": "table", "times": [1.0, 0.0], "values": [[0.3], [1.2], [1.0]]},
    {"name": "per class", "kind": "limited_interval_per_class", "w": [1.0, 2.0, 1.5],
     "lo": [0.0, 0.1, 0.2], "hi": [0.5, 0.6, 0.7]},
]  # fmt: skip


def _schedules(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps(SCHEDULES))


def _read_schedules(folder: Path) -> None:
    schedules.read([str(folder / "a.json")], num_strata=3)


# Statistics


def _statistics(folder: Path) -> None:
    layout, rng = Layout(num_particles=2, dim=3), np.random.default_rng(0)
    manifest = store.Manifest(
        layout=layout,
        law=UniformTimes(),
        fingerprint={"schedule": "RectifiedFlow()"},
        num_examples=8,
        shard_examples=4,
    )
    (folder / "statistics").mkdir()
    for index in range(2):
        rows = rng.normal(size=(4, layout.num_rows, layout.dim)).astype(np.float32)
        part = {
            "t": rng.uniform(0.1, 0.9, 4).astype(np.float32),
            "gram": np.ascontiguousarray(pack(rows @ rows.swapaxes(1, 2))),
            "source": np.arange(4, dtype=np.int32),
            "c": np.arange(4, dtype=np.int32) % 2,
        }
        shard = store.write_shard(folder / "statistics", index, part, layout)
        manifest = manifest.with_shard(shard)
    store.write_manifest(folder / "statistics", manifest)


def _read_statistics(folder: Path) -> None:
    store.read(folder / "statistics", progress=False)


MANIFEST = "statistics/manifest.json"


def _manifest(files: Files, name: str) -> bytes:
    return json.dumps({k: v for k, v in json.loads(files[name]).items() if k != "sha256"}).encode()


def _with_manifest(files: Files, name: str, text: bytes) -> Files:
    """With the digest of the values, where there are values."""
    try:
        values = json.loads(text)
        text = json.dumps(values | {"sha256": digests.of_json(values)}).encode()
    except (ValueError, TypeError, RecursionError):
        pass
    return files | {name: text}


def _with_shard(files: Files, name: str, content: bytes) -> Files:
    values = json.loads(_manifest(files, MANIFEST))
    values["shards"][0]["sha256"] = digests.of_bytes(content)
    return _with_manifest(files | {name: content}, MANIFEST, json.dumps(values).encode())


# Checkpoints and journals

STATE = {"w": np.ones((2, 3), np.float32)}


def _checkpoints(folder: Path) -> None:
    with CheckpointStore(folder / "store") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, STATE, {"at": step})


def _read_checkpoints(folder: Path) -> None:
    with CheckpointStore(folder / "store") as checkpoints:
        checkpoints.restore(STATE)


def _sealed_text(files: Files, name: str) -> bytes:
    """The last line of a sealed file, without its seal."""
    return files[name].splitlines()[-1].partition(b" ")[2]


def _with_sealed_text(files: Files, name: str, text: bytes) -> Files:
    lines = files[name].splitlines(keepends=True)
    end = b"\n" if lines[-1].endswith(b"\n") else b""
    sealed = digests.of_bytes(text).encode() + b" " + text + end
    kept = {k: v for k, v in files.items() if not name.endswith("COMMIT") or "LEDGER" not in k}
    return kept | {name: b"".join(lines[:-1]) + sealed}


def _largest_array(files: Files, name: str) -> bytes:
    return files[_array_name(files, name)]


def _array_name(files: Files, name: str) -> str:
    """The file of the state with the values, whose name Orbax makes up."""
    inside = [key for key in files if key.startswith(f"{name.removesuffix('COMMIT')}state/")]
    return max(inside, key=lambda key: (len(files[key]), key))


def _with_array(files: Files, name: str, content: bytes) -> Files:
    changed = _array_name(files, name)
    commit = ledger.unseal(files[name], name)
    commit["files"][changed.removeprefix(name.removesuffix("COMMIT"))] = digests.of_bytes(content)
    text = ledger.seal(commit).partition(b" ")[2]
    return _with_sealed_text(files | {changed: content}, name, text)


def _journal(folder: Path) -> None:
    journal = Journal(folder / "a.jsonl", binding="mine")
    for key in ("one", "two", "three"):
        journal(key, lambda: {"metrics": [0.5, 1.0], "n": 3})


def _read_journal(folder: Path) -> None:
    Journal(folder / "a.jsonl", binding="mine")


def _pairs(files: Files, name: str) -> bytes:
    lines = [json.loads(line) for line in files[name].splitlines()]
    return json.dumps([[line["key"], line["value"]] for line in lines]).encode()


def _with_pairs(files: Files, name: str, text: bytes) -> Files:
    """Sealed lines of the pairs; what is no list of pairs is a line itself."""
    try:
        lines, last = [], "mine"
        for key, value in json.loads(text):
            line, last = _sealed(key, value, last)
            lines.append(line.encode() + b"\n")
        return files | {name: b"".join(lines)}
    except (ValueError, TypeError, RecursionError):
        return files | {name: files[name] + text + b"\n"}


# Files of PyTorch

TENSORS = {"a": np.ones((2, 3), np.float32), "b": np.asarray(7, np.int64)}


def _torch(form: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "a.pth").write_bytes(torch_bytes(TENSORS, form))


def _torch_program(form: str) -> Reader:
    """The pickle of the tensors, in a file of one of both formats."""
    write, old = FORMATS[form]
    return Reader(
        TORCH[form],
        "a.pth",
        _read_torch,
        (ValueError,),
        lambda files, name: state_program(TENSORS, old),
        lambda files, name, program: files | {name: write(program, TENSORS)},
    )


def _read_torch(folder: Path) -> None:
    torch_file.read(folder / "a.pth")


TORCH = {form: _torch(form) for form in FORMATS}
assert {zipped, streamed} == {write for write, _ in FORMATS.values()}

X, IMAGE = f"idx/{IDX_FILES['x']}", "images/0/1"
SAFETENSORS = "a.safetensors"
SHARD = "statistics/shard-00000.safetensors"
STATISTICS = (StatisticsError,)
STORE = (CheckpointError,)
READERS = {
    "npz": Reader(_npz, "a.npz", _read_npz, DATA),
    "npz, stored": Reader(_stored_npz, "a.npz", _read_npz, DATA),
    "npz, header": Reader(_stored_npz, "a.npz", _read_npz, DATA, _npy_header, _with_npy_header),
    "idx": Reader(_idx, X, _read_idx, DATA),
    "idx.gz": Reader(_idx_gz, f"{X}.gz", _read_idx, DATA),
    "idx.gz, unpacked": Reader(
        _idx_gz, f"{X}.gz", _read_idx, DATA,
        lambda files, name: gzip.decompress(files[name]),
        lambda files, name, part: files | {name: gzip.compress(part)},
    ),
    "png": Reader(_images, f"{IMAGE}.png", _read_images, DATA),
    "jpeg": Reader(_jpegs, f"{IMAGE}.jpg", _read_images, DATA),
    "classes.txt": Reader(_images, "images/classes.txt", _read_images, DATA),
    "manifest of images": Reader(
        _known_images, "images/lgd-manifest.json", _read_images, DATA, is_json=True
    ),
    "captions": Reader(_captions, "images/metadata.jsonl", _read_captions, DATA),
    "parameters": Reader(_params, SAFETENSORS, _read_params, (ValueError,)),
    "parameters, header": Reader(
        _params, SAFETENSORS, _read_params, (ValueError,), _header, _with_header, True
    ),
    "guidance": Reader(_guidance, SAFETENSORS, _read_guidance, (FileError,)),
    "guidance, header": Reader(
        _guidance, SAFETENSORS, _read_guidance, (FileError,), _header, _with_header, True
    ),
    "guidance, description": Reader(
        _guidance, SAFETENSORS, _read_guidance, (FileError,), _description, _with_description, True
    ),
    "schedules": Reader(_schedules, "a.json", _read_schedules, (ScheduleError,), is_json=True),
    "statistics, manifest": Reader(
        _statistics, MANIFEST, _read_statistics, STATISTICS, _manifest, _with_manifest, True
    ),
    "statistics, shard": Reader(
        _statistics, SHARD, _read_statistics, STATISTICS, put=_with_shard
    ),
    "statistics, header of a shard": Reader(
        _statistics, SHARD, _read_statistics, STATISTICS, _header,
        lambda files, name, part: _with_shard(files, name, _with_header(files, name, part)[name]),
        True,
    ),
    "checkpoint, ledger": Reader(
        _checkpoints, "store/LEDGER", _read_checkpoints, STORE,
        _sealed_text, _with_sealed_text, True,
    ),
    "checkpoint, commit": Reader(
        _checkpoints, "store/2/COMMIT", _read_checkpoints, STORE,
        _sealed_text, _with_sealed_text, True,
    ),
    "checkpoint, array": Reader(
        _checkpoints, "store/2/COMMIT", _read_checkpoints, STORE, _largest_array, _with_array
    ),
    "journal": Reader(_journal, "a.jsonl", _read_journal, (JournalError,)),
    "journal, sealed": Reader(
        _journal, "a.jsonl", _read_journal, (JournalError,), _pairs, _with_pairs, True
    ),
    **{
        f"torch, {form}": Reader(write, "a.pth", _read_torch, (ValueError,))
        for form, write in TORCH.items()
    },
    **{f"torch, pickle of the {form}": _torch_program(form) for form in TORCH},
}  # fmt: skip
