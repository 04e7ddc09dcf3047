"""The pixels of PNG and JPEG files: 8-bit colours, whatever the file's own mode is."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG")  # no others: Pillow starts a program for some
LARGEST = 2**24  # pixels that are decoded, at most 64 MiB a copy
LARGEST_FILE = 2**27  # bytes: as many pixels of 16-bit RGBA, unpacked
_JPEG_MARKERS = {  # and how often a JPEG file may have them: each costs time beyond its bytes
    b"\xff\xda": 100,  # a scan, which passes over all pixels; progressive files have ten or so
    b"\xff\xff": 2**20,  # fill between markers, which Pillow reads byte by byte
}
_DEEP = ("I;16", "I;16B", "I;16L")
_PLAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def decoded(content: bytes) -> Image.Image:
    """Return the first frame of a PNG or JPEG file in mode RGB, as stored: EXIF turns nothing.

    16-bit grey is scaled to 8 bits; what is transparent is composed on white.

    Raises:
      ValueError: for bytes of another format, for more than 2^24 pixels or 100 scans of a JPEG
        file, seen before they are decoded, or another mode.
      Exception: any of Pillow's, for a damaged file.
    """
    _check_markers(content)
    with _opened(content) as image:
        if image.width * image.height > LARGEST:
            raise ValueError(f"expected at most {LARGEST} pixels, got {image.size}")
        if image.mode in _DEEP and "transparency" not in image.info:
            grey = np.asarray(image).astype(np.float64) / 257.0
            return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
        if image.mode not in _PLAIN:
            raise ValueError(f"expected a mode of {_PLAIN} or opaque 16-bit grey, got {image.mode}")
        if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
            layer = image.convert("RGBA")
            white = Image.new("RGBA", layer.size, "white")
            return Image.alpha_composite(white, layer).convert("RGB")
        return image.convert("RGB")


def _check_markers(content: bytes) -> None:
    if not content.startswith(b"\xff\xd8"):
        return
    for marker, most in _JPEG_MARKERS.items():
        if (count := content.count(marker)) > most:
            raise ValueError(f"expected at most {most} markers {marker.hex()}, got {count}")


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(
            f"expected a {' or '.join(FORMATS)} file, got one that begins with {content[:8]!r}"
        ) from None
