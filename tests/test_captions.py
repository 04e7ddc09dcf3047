"""Images with captions: read, split by caption, refused by name. Generated files only."""

import json

import numpy as np
import pytest
from PIL import Image

from lgd.data import captions
from lgd.data.faults import DataFileError

TEXTS = [f"{colour} {shape}" for colour in ("red", "blue", "green", "black") for shape in "abc"]


def vectors(texts):
    return {"text": np.stack([np.full(3, TEXTS.index(text), np.float32) for text in texts])}


def folder(root, lines=None):
    """Twelve captions, three images of each, of a grey that tells the caption."""
    written = []
    for number, text in enumerate(TEXTS * 3):
        name = f"{number % 2}/{number}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((6, 4, 3), 20 * TEXTS.index(text), np.uint8)
        Image.fromarray(pixels).save(root / name)
        written.append(json.dumps({"file_name": name, "text": text, "more": 1}))
    (root / "metadata.jsonl").write_text("\n".join(lines or written) + "\n")
    return root


def test_images_come_with_the_conditions_of_their_captions_and_splits_share_none(tmp_path):
    data = captions.load(folder(tmp_path), 12, 5, 7, size=4, encode=vectors)
    seen = []
    for split, count in ((data.train, 12), (data.validation, 5), (data.test, 7)):
        x, c = np.asarray(split.x[:]), split.c["text"][:, 0]
        assert x.shape == (count, 4, 4, 3)
        grey = np.round((x[:, 0, 0, 0] + 1.0) * 127.5 / 20.0)
        np.testing.assert_array_equal(grey, c)
        assert split.num_strata == 1
        seen.append(set(c.tolist()))
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert [TEXTS.index(text) for text in data.captions] == data.test.c["text"][:, 0].tolist()
    again = captions.load(tmp_path, 12, 5, 7, size=4, encode=vectors)
    np.testing.assert_array_equal(again.test.x, data.test.x)
    other = captions.load(tmp_path, 12, 5, 7, size=4, encode=vectors, seed=1)
    assert set(other.captions) != set(data.captions)


def test_few_captions_are_not_enough_for_many_images(tmp_path):
    with pytest.raises(DataFileError, match="num_train: expected at most 12, the number of images"):
        captions.load(folder(tmp_path), 14, 10, 11, size=4, encode=vectors)
    with pytest.raises(DataFileError, match="expected at most 36"):
        captions.load(tmp_path, 30, 5, 5, size=4, encode=vectors)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[1]", "line 1: expected a JSON object"),
        ("{", "line 1: expected a JSON object"),
        ('{"file_name": "0/0.png"}', "text: expected a text, got only"),
        ('{"text": "a"}', "file_name: expected a text, got only"),
        ('{"file_name": "0/0.png", "text": "  "}', "text: expected a text"),
        ('{"file_name": "0/0.png", "text": 3}', "text: expected a text, got 3"),
        ('{"file_name": "../0.png", "text": "a"}', "expected a path inside the folder"),
        ('{"file_name": "/0.png", "text": "a"}', "expected a path inside the folder"),
        ('{"file_name": "%s.png", "text": "a"}' % ("9" * 300), "the path of an image"),
        (
            '{"file_name": "%s.png", "text": "a"}' % ("9/" * 3000),
            "expected a path inside the folder",
        ),
        ('{"file_name": "0/1.png", "text": "a"}', "expected an image, got no such file"),
        ('{"file_name": "metadata.jsonl", "text": "a"}', "got another format"),
        ('{"file_name": "0/0.png", "text": "%s"}' % ("a" * 20_000), "at most 10000 characters"),
    ],
)
def test_lines_that_do_not_fit_are_named(tmp_path, line, words):
    with pytest.raises(DataFileError, match=words) as error:
        captions.read(folder(tmp_path, [line]))
    assert str(error.value).startswith(str(tmp_path))


def test_an_image_twice_and_a_missing_file_are_named(tmp_path):
    line = '{"file_name": "0/0.png", "text": "a"}'
    with pytest.raises(DataFileError, match="line 2: file_name: expected every image once"):
        captions.read(folder(tmp_path, [line, line]))
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(DataFileError, match=r"metadata\.jsonl: expected one JSON object a line"):
        captions.read(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("\n \n")
    with pytest.raises(DataFileError, match="expected images with captions, got none"):
        captions.read(tmp_path)


def test_a_changed_image_is_refused_when_it_is_read(tmp_path):
    data = captions.load(folder(tmp_path), 12, 5, 7, size=4, encode=vectors)
    for file in tmp_path.glob("*/*.png"):
        raw = bytearray(file.read_bytes())
        raw[-20] ^= 1
        file.write_bytes(raw)
    with pytest.raises(DataFileError, match="sha256: expected"):
        data.train.x[:]
