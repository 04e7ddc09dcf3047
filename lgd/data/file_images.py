"""Image files of a folder as examples: PNG or JPEG of any size, read when they are indexed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lgd.data import image_decoder, manifest
from lgd.data.dataset import FileImages
from lgd.data.faults import DataFileError, content, reading, require_regular
from lgd.machinery import digests

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif")
OTHER_SUFFIXES = (
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".avif",
    ".ppm",
    ".pgm",
    ".jp2",
)


def of(
    root: Path, files: Sequence[str], pinned: Mapping[str, manifest.Entry], size: int
) -> FileImages:
    """Colour images (n, size, size, 3) of these files of a folder, see `fitted`.

    Args:
      root: the folder.
      files: paths in it.
      pinned: size and sha256 of each, see `manifest`; an image that is read and is another one
        raises DataFileError.
      size: side in pixels.
    """

    def read(number: int) -> UInt8[np.ndarray, "h w channels"]:
        file = root / files[number]
        with reading(f"{file}", "an image"):
            data = content(file, image_decoder.LARGEST_FILE)
        manifest.check(file, data, pinned[files[number]])
        with reading(f"{file}", "an image"):
            return np.asarray(fitted(image_decoder.decoded(data), size))

    lines = [f"{name} {pinned[name].sha256}" for name in files]
    return FileImages(
        shape=(len(files), size, size, 3),
        read=read,
        fingerprint=digests.of_bytes("\n".join(["RGB on white, centre, bicubic", *lines]).encode()),
    )


def fitted(image: Image.Image, size: int) -> Image.Image:
    """Return the largest central square of an image, resized to (size, size) by bicubic filter."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.BICUBIC)


def require_image(file: Path) -> None:
    """Raise DataFileError for a file that is no regular one, too large, or of another format."""
    if not file.name.lower().endswith(SUFFIXES):
        raise DataFileError(
            f"{file}: expected {', '.join(SUFFIXES)} files, got another format; convert it to PNG"
        )
    if not file.exists():
        raise DataFileError(f"{file}: expected an image, got no such file")
    require_regular(file, image_decoder.LARGEST_FILE)
