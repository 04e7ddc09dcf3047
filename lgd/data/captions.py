"""Images with captions: image files of a folder, named with their texts in its metadata.jsonl.

A line of metadata.jsonl is an object with the path of an image in the folder and its caption, the
convention of image folders on the hubs::

    {"file_name": "train/0001.png", "text": "a calm person with short hair"}
"""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from lgd.data import file_images, manifest, splits
from lgd.data.dataset import Dataset, Split
from lgd.data.faults import DataFileError, content, local, reading
from lgd.machinery import json_file
from lgd.machinery.words import shown
from lgd.types import Condition

METADATA = "metadata.jsonl"
NAME = "all captions"  # of the one stratum
MAX_CHARACTERS = 10_000  # of a caption
_MAX_PATH = 1000  # characters
_LARGEST = 2**30  # bytes

Encode = Callable[[Sequence[str]], Condition]  # texts (n) -> conditions, leaves (n, ...)


class Captioned(NamedTuple):
    """Paths of images in a folder, and their captions."""

    files: list[str]
    texts: list[str]


def load(
    path: str | Path,
    num_train: int,
    num_validation: int,
    num_test: int,
    *,
    size: int,
    encode: Encode,
    seed: int = 0,
) -> Dataset:
    """Return colour images (n, size, size, 3) in [-1, 1] with the conditions of their captions.

    No caption is in two splits: those of test are drawn first, then those of validation. All
    examples are of one stratum.

    Args:
      path: a folder with images and metadata.jsonl.
      num_train: images of the train split.
      num_validation: images of the validation split.
      num_test: images of the test split.
      size: side in pixels that images are resized to, see `file_images.fitted`.
      encode: the conditions of texts. It is called once for each split.
      seed: for the order of captions and images.

    Raises:
      DataFileError: for a folder, a line or an image that does not fit; also when an image is read
        that is damaged or has changed since the folder was first used, see `manifest`.
      ValueError: for a size or number below 1.
    """
    if size < 1:
        raise ValueError(f"expected size >= 1, got {size}")
    root, sizes = local(path, "a folder of images"), (num_train, num_validation, num_test)
    splits.check_positive(sizes)
    captioned = read(root)
    parts = splits.by_caption(root, captioned.texts, sizes, seed=seed)
    pinned = manifest.pins(root, sorted(captioned.files))

    def split(numbers: np.ndarray) -> Split:
        files = [captioned.files[number] for number in numbers]
        c = encode([captioned.texts[number] for number in numbers])
        return Split(file_images.of(root, files, pinned, size), c, np.zeros(len(files), np.int32))

    train, validation, test = map(split, parts)
    return Dataset(
        train=train,
        validation=validation._replace(x=validation.x[:]),
        test=test._replace(x=test.x[:]),
        class_names=(NAME,),
        captions=tuple(captioned.texts[number] for number in parts[2]),
    )


def read(root: Path) -> Captioned:
    """The images of a folder and their captions, in the order of metadata.jsonl.

    Raises DataFileError, which names the line.
    """
    file = root / METADATA
    with reading(f"{file}", "one JSON object a line, with file_name and text"):
        lines = content(file, _LARGEST).split(b"\n")
    captions: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}: line {number}"
        name, text = _entry(where, line)
        if name in captions:
            raise DataFileError(f"{where}: file_name: expected every image once, got {shown(name)}")
        with reading(f"{where}: file_name", "the path of an image"):
            file_images.require_image(root / name)
        captions[name] = text
    if not captions:
        raise DataFileError(f"{file}: expected images with captions, got none")
    return Captioned(list(captions), list(captions.values()))


def _entry(where: str, line: bytes) -> tuple[str, str]:
    """The path and the caption of a line. Raises DataFileError."""
    try:
        value = json_file.parsed(line)
    except ValueError as error:
        raise DataFileError(f"{where}: expected a JSON object, got {error}") from None
    if not isinstance(value, dict):
        raise DataFileError(f"{where}: expected a JSON object, got {shown(value)}")
    name = _text(where, value, "file_name")
    place = PurePosixPath(name)
    is_inside = not place.is_absolute() and ".." not in place.parts
    if not is_inside or not name.isprintable() or len(name) > _MAX_PATH:
        raise DataFileError(
            f"{where}: file_name: expected a path inside the folder, got {shown(name)}"
        )
    text = _text(where, value, "text")
    if len(text) > MAX_CHARACTERS:
        raise DataFileError(
            f"{where}: text: expected at most {MAX_CHARACTERS} characters, got {len(text)}"
        )
    return str(place), text


def _text(where: str, value: dict[str, Any], field: str) -> str:
    text = value.get(field)
    if not isinstance(text, str) or not text.strip():
        got = shown(text) if field in value else f"only {shown(list(value))}"
        raise DataFileError(f"{where}: {field}: expected a text, got {got}")
    return text
