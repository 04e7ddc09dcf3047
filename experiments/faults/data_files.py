"""Data files that are damaged before a run, and between two runs of one workdir."""

import contextlib
import gzip
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.faults.bench import Bench, Ended
from experiments.faults.damage import DAMAGES
from experiments.faults.endings import REFUSED, wrong_end
from lgd.data.image_files import IDX_FILES

BEFORE = ("deleted", "truncated", "flipped")  # the first run
SETTINGS = ("classifier.num_steps=5", "classifier.width=8", "classifier.num_features=8")


def values(num_test: int = 120) -> dict[str, np.ndarray]:
    """Return 240 training images and some test images of noise, 28x28 grey, in ten classes."""
    rng = np.random.default_rng(num_test)
    counts = {"x": 240, "y": 240, "xt": num_test, "yt": num_test}
    return {
        key: (
            rng.integers(0, 256, (count, 28, 28), np.uint8)
            if key.startswith("x")
            else (np.arange(count) % 10).astype(np.uint8)
        )
        for key, count in counts.items()
    }


def npz(root: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write one .npz file."""
    x, y, xt, yt = (arrays[name] for name in ("x", "y", "xt", "yt"))
    np.savez(root / "data.npz", x=x, y=y, xt=xt, yt=yt)
    return root / "data.npz"


def idx(root: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write a folder of plain IDX files."""
    for key, name in IDX_FILES.items():
        array = arrays[key]
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (root / name).write_bytes(head + array.tobytes())
    return root


def gzipped(root: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write a folder of gzipped IDX files."""
    for file in list(idx(root, arrays).iterdir()):
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    return root


def images(root: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write folders of PNG files."""
    for part, x, y in (("train", arrays["x"], arrays["y"]), ("test", arrays["xt"], arrays["yt"])):
        for number, (pixels, label) in enumerate(zip(x, y, strict=True)):
            folder = root / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[:8, :8]).save(folder / f"{number:03}.png")
    return root


Write = Callable[[Path, dict[str, np.ndarray]], Path]
KINDS: dict[str, tuple[Write, tuple[str, ...]]] = {
    "npz": (npz, ("data.name=npz",)),
    "IDX": (idx, ("data.name=mnist",)),
    "gzipped IDX": (gzipped, ("data.name=mnist",)),
    "images": (images, ("data.name=images", "data.size=8")),
}

FILES = {  # of which one is damaged
    "npz": "data.npz",
    "IDX": IDX_FILES["x"],
    "gzipped IDX": IDX_FILES["x"] + ".gz",
}


EXCHANGES = ("images of training and test", "labels of another set")


def damaged(bench: Bench, kind: str, damage: str) -> Iterator[str]:
    """Damage a file before the first run, which refuses it by name."""
    with _folder(bench) as folder:
        path = KINDS[kind][0](folder, values())
        DAMAGES[damage](folder / FILES[kind])
        yield _refused_at_once(bench, folder, kind, path)


def exchanged(bench: Bench, kind: str, what: str) -> Iterator[str]:
    """Exchange intact files before the first run; their numbers of examples reveal it."""
    with _folder(bench) as folder:
        arrays, others = values(), values(num_test=300)
        changes = {"x": arrays["xt"], "xt": arrays["x"]}
        changes = changes if what.startswith("images") else {"y": others["yt"]}
        path = KINDS[kind][0](folder, arrays | changes)
        yield _refused_at_once(bench, folder, kind, path)


def between_runs(bench: Bench, kind: str) -> Iterator[str]:
    """Change files in ways that no format detects: the second run refuses them.

    Train and test images of equal number are exchanged, labels permuted, and one pixel changed.
    """
    with _folder(bench) as folder:
        arrays = values(num_test=240)
        path, workdir = KINDS[kind][0](folder, arrays), folder / "run"
        first = _launch(bench, workdir, kind, path, "denoiser")
        yield "" if first.code == 0 else f"expected a run to end with 0, got {first}"
        before = _files(workdir)
        pixel = arrays["x"].copy()
        pixel[:, 3, 3] ^= 1  # of each image, for a run may not use all
        for changes in (
            {"x": arrays["xt"], "xt": arrays["x"]},
            {"y": np.roll(arrays["y"], 1)},
            {"x": pixel},
        ):
            KINDS[kind][0](folder, arrays | changes)
            ended = _launch(bench, workdir, kind, path, "guidance")
            wrong = wrong_end(ended, REFUSED, "made with other data", " sha256: ")
            yield wrong or ("the workdir changed" if _files(workdir) != before else "")


def known_images(bench: Bench) -> Iterator[str]:
    """Damage a folder of images that was used before: the error names the file."""
    with _folder(bench) as folder:
        path = images(folder / "images", values())
        first = _launch(bench, folder / "run", "images", path, "denoiser")
        yield "" if first.code == 0 else f"expected a run to end with 0, got {first}"
        one = path / "train" / "1" / "001.png"
        whole, other = one.read_bytes(), one.with_name("011.png").read_bytes()
        changes = [*(DAMAGES[name] for name in BEFORE), lambda file: file.write_bytes(other)]
        for number, change in enumerate(changes):
            change(one)
            ended = _launch(bench, folder / str(number), "images", path, "denoiser")
            yield wrong_end(ended, REFUSED, f"{one}: ", "lgd-manifest.json")
            one.write_bytes(whole)


@contextlib.contextmanager
def _folder(bench: Bench) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        yield Path(folder)


def _refused_at_once(bench: Bench, folder: Path, kind: str, path: Path) -> str:
    """Return "" if a first run names the file and creates no workdir."""
    workdir = folder / "run"
    wrong = wrong_end(
        _launch(bench, workdir, kind, path, "denoiser"), REFUSED, f"data.path: {path}"
    )
    return wrong or ("a workdir was made" if workdir.exists() else "")


def _launch(bench: Bench, workdir: Path, kind: str, path: Path, stage: str) -> Ended:
    settings = (*KINDS[kind][1], f"data.path={path}", *SETTINGS)
    return bench.launch(workdir, [stage], *(f"--config.{setting}" for setting in settings))


def _files(workdir: Path) -> dict[str, bytes]:
    files = [file for file in sorted(workdir.rglob("*")) if file.is_file()]
    return {str(file): file.read_bytes() for file in files if file.name != "lock"}
