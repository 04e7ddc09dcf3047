"""Pixels of image files of every mode, and files that are refused."""

import io
import os

import numpy as np
import pytest
from PIL import Image

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


@pytest.mark.parametrize("kind", ["EPS", "GIF", "TIFF", "PPM", "WEBP", "BMP", "PDF"])
def test_other_formats_are_refused(kind):
    with pytest.raises(ValueError, match="expected a PNG or JPEG file, got one that begins with"):
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


def deep(dtype):
    return Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("PA", (2, 2), (0, 0)), (255,) * 3),
        (Image.new("YCbCr", (2, 2), (50, 128, 128)), (50,) * 3),
        (deep(">u2"), (0, 1, 128, 255)),
        (deep("<u2"), (0, 1, 128, 255)),
    ],
    ids=["PA", "YCbCr", "I;16B", "I;16"],
)
def test_modes_that_pillow_may_give_have_their_colours(monkeypatch, image, expected):
    """Formats of today need not give them."""
    monkeypatch.setattr(Image, "open", lambda *_, **__: image)
    pixels = np.asarray(image_decoder.decoded(b""))
    got = pixels[0, :, 0] if len(expected) == 4 else pixels[0, 0]
    assert tuple(got.tolist()) == expected


@pytest.mark.parametrize("mode", ["I", "F", "LAB", "HSV", "RGBX", "La", "RGBa"])
def test_modes_without_one_meaning_in_8_bits_are_refused(monkeypatch, mode):
    monkeypatch.setattr(Image, "open", lambda *_, **__: Image.new(mode, (2, 2)))
    with pytest.raises(ValueError, match=f"expected a mode of .*, got {mode}$"):
        image_decoder.decoded(b"")


@pytest.mark.parametrize("suffix", ["webp", "BMP", "gif", "tiff"])
def test_images_of_other_formats_are_named_not_left_out(tmp_path, suffix):
    (folder_of(tmp_path) / "b" / f"9.{suffix}").write_bytes(b"")
    with pytest.raises(DataFileError, match=rf"b/9.{suffix}: expected .png, .* convert it to PNG"):
        image_folder.load(tmp_path, 4, 2, 2, size=2)


def test_an_image_file_of_too_many_bytes_is_refused_unread(tmp_path):
    file = folder_of(tmp_path) / "a" / "0.png"
    train = image_folder.load(tmp_path, 6, 1, 1, size=2, seed=1).train
    os.truncate(file, 2**40)
    match = "0.png: size: expected at most 134217728 bytes, got 1099511627776"
    with pytest.raises(DataFileError, match=match):
        image_folder.load(tmp_path, 6, 1, 1, size=2)
    with pytest.raises(DataFileError, match=match):
        train.x[:]


@pytest.mark.parametrize("name", ["lgd-manifest.json", "classes.txt"])
def test_other_files_of_a_folder_that_are_fifos_are_refused_at_once(tmp_path, name):
    os.mkfifo(folder_of(tmp_path) / name)
    with pytest.raises(DataFileError, match=f"{name}: expected a regular file"):
        image_folder.load(tmp_path, 4, 2, 2, size=2)


# classes.txt


def of_classes(root, content, parts=("",)):
    for part in parts:
        (root / part).mkdir(exist_ok=True)
        folder_of(root / part)
    (root / "classes.txt").write_bytes(content)
    return root


@pytest.mark.parametrize("content", [b"b\na\n", b"b\r\n\r\na", b"\xef\xbb\xbfb \na\n\n"])
@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_a_file_of_classes_gives_their_order(tmp_path, caplog, content, parts):
    caplog.set_level("INFO")
    data = image_folder.load(of_classes(tmp_path, content, parts), 4, 2, 2, size=2)
    assert data.class_names == ("b", "a")
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path}: labels 0 b, 1 a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"b\n", "none missing and a more"),
        (b"b\na\ncat\ndog\n", "cat, dog missing and none more"),
        (b"b\n../a\n", "../a missing and a more"),
        (b"b\na\nb\n", "classes.txt: expected different names .*, got b more than once"),
        (b"\n \n", "classes.txt: expected different names of classes, one a line, got no name"),
        (b"\xff\xfe", "classes.txt: expected names of classes, .*Unicode"),
        (
            b"\n".join(b"%d" % n for n in range(10**4)),
            r"0, 1, 2, .*, 19, ... \(10000 in all\) miss",
        ),
    ],
)
def test_a_file_of_classes_that_does_not_fit_is_refused(tmp_path, content, words):
    with pytest.raises(DataFileError, match=words) as refusal:
        image_folder.load(of_classes(tmp_path, content), 4, 2, 2, size=2)
    assert len(str(refusal.value)) < 1000


def test_labels_follow_the_file_of_classes(tmp_path):
    for name, grey in (("a", 0), ("b", 255)):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("L", (2, 2), grey).save(tmp_path / name / f"{number}.png")
    (tmp_path / "classes.txt").write_text("b\na\n")
    train = image_folder.load(tmp_path, 4, 2, 2, size=2).train
    np.testing.assert_array_equal(train.x[:][:, 0, 0, 0], 1.0 - 2.0 * train.c)


def test_too_many_images_asked_for_name_the_arguments(tmp_path):
    with pytest.raises(
        DataFileError, match=r"num_train . num_validation . num_test: expected at mo"
    ):
        image_folder.load(folder_of(tmp_path), 4, 2, 3, size=2)
