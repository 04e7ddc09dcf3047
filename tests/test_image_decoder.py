"""Pixels of image files of every mode, and files that are refused."""

import io
import os

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from lgd.data import image_decoder, image_files, image_folder
from lgd.data.image_files import DataFileError


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette(colour):
    image = Image.new("P", (2, 2), 0)
    image.putpalette([*colour, 9, 9, 9])
    return image


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.fromarray(np.full((2, 2), 32896, np.uint16))), (128,) * 3),
        (encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 0))), (255,) * 3),
        (encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 51))), (204,) * 3),
        (encoded(Image.new("LA", (2, 2), (7, 0))), (255,) * 3),
        (encoded(palette((1, 2, 3))), (1, 2, 3)),
        (encoded(palette((1, 2, 3)), transparency=0), (255,) * 3),
        (encoded(palette((1, 2, 3)), transparency=b"\0\xff"), (255,) * 3),
        (encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3)), (255,) * 3),
        (encoded(Image.new("1", (2, 2), 1)), (255,) * 3),
        (encoded(Image.new("L", (2, 2), 50)), (50,) * 3),
        (encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG"), (0,) * 3),
    ],
)
def test_files_of_every_mode_have_their_colours(content, expected):
    image = image_decoder.decoded(content)
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == expected


@pytest.mark.parametrize("kind", ["EPS", "GIF", "TIFF", "PPM"])
def test_other_formats_are_refused(kind):
    with pytest.raises(UnidentifiedImageError):
        image_decoder.decoded(encoded(Image.new("RGB", (2, 2)), kind))


def test_images_of_too_many_pixels_are_refused_before_decoding():
    with pytest.raises(ValueError, match="at most 16777216 pixels"):
        image_decoder.decoded(encoded(Image.new("1", (2**13, 2**12))))


def folder_of(root, count=4):
    for name in ("a", "b"):
        (root / name).mkdir()
        for number in range(count):
            Image.new("L", (2, 2), number).save(root / name / f"{number}.png")
    return root


def test_hidden_files_are_skipped(tmp_path):
    (folder_of(tmp_path) / "a" / "._1.png").write_bytes(b"junk")
    data = image_folder.load(tmp_path, 4, 2, 2, size=2)
    assert len(data.train.x[:]) == 4


def test_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(folder_of(tmp_path) / "a" / "9.png")
    with pytest.raises(DataFileError, match="expected a regular file"):
        image_folder.load(tmp_path, 4, 2, 2, size=2)


def test_a_fifo_as_npz_or_idx_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    for path in (tmp_path / "x.npz", tmp_path):
        with pytest.raises(DataFileError, match="expected a regular file"):
            image_files.read(path, size=(28, 28), num_classes=10)


def test_classes_have_labels_in_natural_order(tmp_path):
    names = [*(str(number) for number in range(12)), "a", "b2", "b10"]
    for name in ["__MACOSX", *reversed(names)]:
        (tmp_path / name).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / name / "0.png")
    data = image_folder.load(tmp_path, 5, 5, 5, size=2)
    assert data.class_names == tuple(names)
