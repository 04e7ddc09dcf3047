"""Generated files only: folders of small images, and array_record files as tfds writes them."""

import contextlib
import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lgd.data import (
    fashion_mnist,
    file_images,
    image_decoder,
    image_folder,
    manifest,
    pipeline,
    tfds_records,
)
from lgd.data.dataset import FileImages, fingerprint
from lgd.data.image_files import DataFileError

SIZES = (6, 3, 3)
CLASSES = ("cat", "dog")


def picture(number, size=(4, 4)):
    """One colour, so that it survives resizing; no two alike."""
    return np.full((*size, 3), (number, 255 - number, 7 * number % 256), np.uint8)


def encoded(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def folder(root, per_class=6, first=0):
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            number = first + per_class * label + i
            size = (4, 4) if i % 2 else (3, 8)
            (root / name / f"{number:03}.png").write_bytes(encoded(picture(number, size)))
    return root


def load(root, sizes=SIZES, **settings):
    return image_folder.load(root, *sizes, **({"size": 4} | settings))


def numbers(split):
    """Which pictures a split holds, in order."""
    pixels = np.round((np.asarray(split.x[:], np.float64) + 1) * 127.5).astype(int)
    assert (pixels == pixels[:, :1, :1]).all()
    return pixels[:, 0, 0, 0].tolist()


def refused(act, *words):
    with pytest.raises(DataFileError) as refusal:
        act()
    message = str(refusal.value)
    assert ": expected " in message
    missing = [word for word in words if str(word) not in message]
    assert not missing, message


# Folders of images


def test_images_come_from_the_folders_of_their_class_each_in_one_split(tmp_path):
    dataset = load(folder(tmp_path))
    assert (dataset.shape, dataset.class_names) == ((4, 4, 3), CLASSES)
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split.x) for split in splits] == [6, 3, 3]
    assert isinstance(dataset.train.x, FileImages)
    assert isinstance(dataset.test.x, np.ndarray)
    found = [numbers(split) for split in splits]
    assert sorted(np.concatenate(found)) == list(range(12))
    for split, each in zip(splits, found, strict=True):
        assert split.stratum.tolist() == [number // 6 for number in each]
    again = load(tmp_path)
    assert found == [numbers(split) for split in (again.train, again.validation, again.test)]
    assert numbers(load(tmp_path, seed=1).train) != found[0]


def test_training_and_test_images_may_lie_apart(tmp_path):
    folder(tmp_path / "train", 5)
    folder(tmp_path / "test", 2, first=100)
    dataset = load(tmp_path, (6, 4, 4))
    assert sorted(numbers(dataset.train) + numbers(dataset.validation)) == list(range(10))
    assert sorted(numbers(dataset.test)) == [100, 101, 102, 103]
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "cow")
    refused(
        lambda: load(tmp_path, (6, 4, 4)),
        tmp_path,
        "test: expected the same folders as in",
        "got dog missing and cow more",
    )


def test_images_are_cropped_to_the_centre_and_resized():
    """Closed form: the outer thirds of a wide image go; a square of blocks keeps its means."""
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 200
    assert (np.asarray(file_images.fitted(Image.fromarray(wide), 4)) == 200).all()
    tall = Image.fromarray(wide.transpose(1, 0, 2))
    assert (np.asarray(file_images.fitted(tall, 2)) == 200).all()
    same = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    np.testing.assert_array_equal(file_images.fitted(Image.fromarray(same), 5), same)


def test_grey_and_jpeg_images_are_read_as_colours(tmp_path):
    root = folder(tmp_path)
    grey = io.BytesIO()
    Image.new("L", (4, 4), 99).save(grey, "PNG")
    (root / "cat" / "000.png").write_bytes(grey.getvalue())
    (root / "dog" / "006.png").unlink()
    (root / "dog" / "006.JPEG").write_bytes(encoded(np.full((9, 9, 3), 50, np.uint8), "JPEG"))
    (root / "dog" / "notes.txt").write_text("no image")
    dataset = load(root, (10, 1, 1))
    x = np.concatenate([dataset.train.x[:], dataset.validation.x, dataset.test.x])
    means = np.round(127.5 * (x.mean(axis=(1, 2)) + 1)).astype(int).tolist()
    assert [99, 99, 99] in means
    assert any(np.abs(np.asarray(mean) - 50).max() <= 2 for mean in means)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: shutil.rmtree(root), ["a folder of one folder of images", "no such file"]),
        (lambda root: [shutil.rmtree(root / name) for name in CLASSES], ["each class, got none"]),
        (lambda root: [f.unlink() for f in (root / "dog").iterdir()], ["dog: ", ".png", "none"]),
        (
            lambda root: (root / "cat" / "001.png").unlink(),
            ["num_train + num_validation + num_test: expected at most 11", "got 12"],
        ),
    ],
)
def test_folders_that_do_not_fit_are_named(tmp_path, change, words):
    root = folder(tmp_path / "root")
    change(root)
    refused(lambda: load(root), root, *words)


DAMAGES = {
    "missing": (lambda file: file.unlink(), "got no such file"),
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:-5]), "size: expected"),
    "flipped": (lambda file: file.write_bytes(flipped(file.read_bytes())), "sha256: expected"),
    "swapped": (lambda file: swap(file, file.with_name("003.png")), "sha256: expected"),
}


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def swap(one, other):
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_image_that_is_not_what_it_was_is_named(tmp_path, damage):
    root = folder(tmp_path)
    change, word = DAMAGES[damage]
    load(root)
    change(root / "cat" / "001.png")
    refused(lambda: load(root).train.x[:], "/cat/00", word)


def test_a_new_image_is_named_until_the_manifest_is_removed(tmp_path):
    root = folder(tmp_path)
    before = fingerprint(load(root).train)
    assert fingerprint(load(root).train) == before
    assert fingerprint(load(root, size=5).train) != before
    (root / "cat" / "new.png").write_bytes(encoded(picture(99)))
    refused(lambda: load(root), root / "cat" / "new.png", "got another", "remove lgd-manifest.json")
    (root / manifest.NAME).unlink()
    load(root, (6, 3, 4))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"cat/000.png": 3}', b"\xff"])
def test_a_manifest_that_does_not_fit_is_named(tmp_path, content):
    root = folder(tmp_path)
    (root / manifest.NAME).write_bytes(content)
    refused(lambda: load(root), tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_read(tmp_path):
    root = folder(tmp_path)
    root.chmod(0o555)
    load(root)
    assert not (root / manifest.NAME).exists()


def test_images_in_files_are_read_ahead(tmp_path):
    split = load(folder(tmp_path)).train
    batches = pipeline.examples(split, 4, seed=0)
    with pipeline.reading_ahead(batches, threads=2, ahead=2) as ahead:
        for step in range(5):
            np.testing.assert_array_equal(ahead(step).x0, split.x[batches.index(step)])


FUZZ = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
WHOLE = {kind: encoded(picture(3, (6, 5)), kind) for kind in ("PNG", "JPEG")}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.filterwarnings("ignore")  # of Pillow, about what it could still read
def test_any_image(tmp_path, kind):
    """Pixels of the size asked for, or a DataFileError."""
    root = folder(tmp_path, 2)
    file = root / "cat" / "000.png"

    @FUZZ
    @given(st.integers(0, len(WHOLE[kind])), st.binary(max_size=6), st.booleans())
    def check(start, new, cut):
        content = WHOLE[kind][:start] + new + (b"" if cut else WHOLE[kind][start + len(new) :])
        file.write_bytes(content)
        (root / manifest.NAME).unlink(missing_ok=True)
        with contextlib.suppress(DataFileError):
            assert load(root, (2, 1, 1)).train.x[:].shape == (2, 4, 4, 3)

    check()


# TensorFlow Datasets: its own files, without TensorFlow


def varint(number):
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def record(pixels, label, text):
    """A tf.train.Example: features by name, each of them a list of bytes or of integers.

    label: a number, or binary attributes by name. text: by name too.
    """
    features = {b"image": field(1, field(1, encoded(pixels)))}
    features |= {name.encode(): field(1, field(1, text[name].encode())) for name in text}
    numbers = label if isinstance(label, dict) else {"label": label}
    for name, number in numbers.items():
        path = f"attributes/{name}" if numbers is label else name
        features[path.encode()] = field(3, field(1, varint(number)))
    pairs = (field(1, field(1, name) + field(2, each)) for name, each in features.items())
    return field(1, b"".join(pairs))


IMAGE = "tensorflow_datasets.core.features.image_feature.Image"
LABEL = "tensorflow_datasets.core.features.class_label_feature.ClassLabel"
TEXT = "tensorflow_datasets.core.features.text_feature.Text"
SCALAR = "tensorflow_datasets.core.features.scalar.Scalar"
DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"


def records(
    root,
    shape=(4, 4, 3),
    splits=(("train", 10), ("test", 4)),
    file_format="array_record",
    attributes=(),
    name="tiny",
    classes=("0", "1"),
    text=(),
):
    """A data set of two shards for each split; example i of a split has its number as colour.

    Its label is i modulo the number of classes; attribute k of it is bit k of i; its texts, which
    features of these names hold, are the name of the split.
    """
    here = root / name / "1.2.0"
    here.mkdir(parents=True)
    infos = []
    for part, count in splits:
        for shard in range(2):
            file = here / f"{name}-{part}.{file_format}-{shard:05}-of-00002"
            writer = ArrayRecordWriter(str(file), "group_size:1")
            for i in range(shard * count // 2, (shard + 1) * count // 2):
                pixels = picture(i, tuple(length or 4 for length in shape[:2]))
                bits = {attribute: i >> bit & 1 for bit, attribute in enumerate(attributes)}
                grey = shape[-1:] == (1,)
                label = bits or i % len(classes)
                texts = dict.fromkeys(text, part)
                writer.write(record(pixels[..., 0] if grey else pixels, label, texts))
            writer.close()
        lengths = [str(count // 2)] * 2
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        infos.append({"name": part, "shardLengths": lengths, "filepathTemplate": template})
    info = {"name": name, "version": "1.2.0", "fileFormat": file_format, "splits": infos}
    dimensions = [str(length) if length else "-1" for length in shape]
    features = {
        "image": {
            "pythonClassName": IMAGE,
            "image": {"shape": {"dimensions": dimensions}, "dtype": "uint8"},
        },
        "label": {"pythonClassName": LABEL, "classLabel": {"numClasses": f"{len(classes)}"}},
    } | {feature: {"pythonClassName": TEXT, "text": {}} for feature in text}
    if attributes:
        del features["label"]
        flags = {
            name: {"pythonClassName": SCALAR, "tensor": {"shape": {}, "dtype": "bool",
                                                         "encoding": "none"}}
            for name in attributes
        }  # fmt: skip
        features["attributes"] = {"pythonClassName": DICT, "featuresDict": {"features": flags}}
    whole = {"pythonClassName": DICT, "featuresDict": {"features": features}}
    (here / "dataset_info.json").write_text(json.dumps(info))
    (here / "features.json").write_text(json.dumps(whole))
    (here / "label.labels.txt").write_text("\n".join(classes))
    return root / name


def load_records(path, sizes=(6, 4, 4), **settings):
    return tfds_records.load(path, *sizes, **settings)


def test_records_come_back_without_tensorflow(tmp_path):
    dataset = load_records(records(tmp_path))
    assert (dataset.shape, dataset.class_names) == ((4, 4, 3), ("0", "1"))
    assert sorted(numbers(dataset.train) + numbers(dataset.validation)) == list(range(10))
    assert sorted(numbers(dataset.test)) == list(range(4))
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.stratum.tolist() == [number % 2 for number in numbers(split)]
    assert isinstance(dataset.train.x, FileImages)
    assert "tensorflow" not in sys.modules
    again, other = (load_records(tmp_path / "tiny", seed=seed).train for seed in (0, 1))
    assert fingerprint(again) == fingerprint(dataset.train) != fingerprint(other)


NAMED = {  # image, classes and texts of the data sets that docs/data.md names
    "mnist": ((28, 28, 1), tuple("0123456789"), ()),
    "fashion_mnist": ((28, 28, 1), fashion_mnist.CLASS_NAMES, ()),
    "cifar10": ((32, 32, 3), tuple(f"kind {digit}" for digit in range(10)), ("id",)),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_name_is_that_of_a_data_set_that_tfds_knows(tmp_path, monkeypatch, name):
    """Sizes are those of the real images."""
    shape, classes, text = NAMED[name]
    parts = (("train", 40), ("test", 20))
    records(tmp_path / "tensorflow_datasets", shape, parts, name=name, classes=classes, text=text)
    monkeypatch.setenv("HOME", str(tmp_path))
    dataset = load_records(name, (20, 20, 20))
    assert (dataset.shape, dataset.class_names) == (shape, classes)
    assert sorted(numbers(dataset.train) + numbers(dataset.validation)) == list(range(40))
    assert sorted(numbers(dataset.test)) == list(range(20))
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.stratum.tolist() == [number % 10 for number in numbers(split)]
    assert "tensorflow" not in sys.modules


def test_grey_records_are_fitted_and_threads_read_them(tmp_path):
    split = load_records(records(tmp_path, shape=(4, 4, 1)), size=2).train
    assert split.x.shape == (6, 2, 2, 1)
    batches = pipeline.examples(split, 3, seed=0)
    with pipeline.reading_ahead(batches, threads=3, ahead=6) as ahead:
        for step in range(20):
            np.testing.assert_array_equal(ahead(step).x0, split.x[batches.index(step)])


def test_records_of_several_sizes_need_one(tmp_path):
    path = records(tmp_path, shape=(None, None, 3))
    refused(lambda: load_records(path), "images of one size, or data.size above 0")
    assert load_records(path, size=3).shape == (3, 3, 3)


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "swapped"])
@pytest.mark.parametrize("known", [True, False], ids=["used before", "new"])
def test_a_shard_that_is_damaged_is_named(tmp_path, damage, known):
    path = records(tmp_path)
    shards = sorted((path / "1.2.0").glob("tiny-train*"))
    if known:
        load_records(path)
    elif damage == "swapped":
        return  # nothing tells
    if damage == "swapped":
        swap(*shards)
    else:
        DAMAGES[damage][0](shards[1])
    named = shards[0 if damage == "swapped" else 1]  # of two, the one that is compared first
    words = ["lgd-manifest.json"] if known else []
    refused(lambda: load_records(path).train.x[:], f"{named}: ", *words)


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize(
    "change",
    [lambda content: content[:200], lambda content: bytes(each ^ 1 for each in content)],
    ids=["truncated", "flipped"],
)
def test_a_shard_that_is_damaged_while_it_is_used_is_named(tmp_path, shard, change):
    path = records(tmp_path)
    split = load_records(path).train
    file = sorted((path / "1.2.0").glob("tiny-train*"))[shard]
    file.write_bytes(change(file.read_bytes()))
    refused(lambda: split.x[:], f"{file}: ")


def test_what_is_not_prepared_is_named_with_the_command_that_prepares_it(tmp_path):
    command = f"tfds.builder('tiny', data_dir='{tmp_path}', file_format='array_record')"
    refused(lambda: load_records(tmp_path / "tiny"), "got no version of it", command)
    path = records(tmp_path, file_format="tfrecord")
    refused(lambda: load_records(path), "got files of FileFormat.TFRECORD", command)


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    path = records(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    refused(lambda: load_records(path), "expected the package", "pip install 'lgd[tfds]'")


def test_classes_are_combinations_of_attributes(tmp_path):
    """Bits 2 and 0 of the number of a picture: the attribute named first counts 1."""
    path = records(tmp_path, attributes=("Male", "Hat", "Young"))
    dataset = load_records(path, attributes=("Young", "Male"))
    assert dataset.class_names == (
        *("not Young, not Male", "Young, not Male", "not Young, Male", "Young, Male"),
    )
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.stratum.tolist() == [(i >> 2 & 1) + 2 * (i & 1) for i in numbers(split)]
    refused(
        lambda: load_records(path, attributes=("Young", "Old")),
        "expected attributes ['Old'], got only ['Hat', 'Male', 'Young']",
    )
    refused(lambda: load_records(path), "expected a feature label, got ['attributes', 'image']")


def test_the_split_validation_stands_in_where_there_is_no_test(tmp_path):
    path = records(tmp_path, splits=(("train", 10), ("validation", 4)))
    dataset = load_records(path)
    assert sorted(numbers(dataset.test)) == list(range(4))
    assert sorted(numbers(dataset.train) + numbers(dataset.validation)) == list(range(10))


def test_a_data_set_with_a_config_is_prepared_by_its_whole_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = "~/tensorflow_datasets/imagenet_resized/64x64"
    refused(lambda: load_records(path), "tfds.builder('imagenet_resized/64x64', data_dir=")


def test_a_split_that_is_missing_is_named(tmp_path):
    path = records(tmp_path, splits=(("train", 10),))
    refused(lambda: load_records(path), "no split test")


def rewritten(path, change):
    """Change the features of a data set of tfds, as its file names them."""
    file = path / "1.2.0" / "features.json"
    features = json.loads(file.read_text())
    change(features["featuresDict"]["features"]["image"]["image"])
    file.write_text(json.dumps(features))


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda image: image.update(dtype="uint16"), "uint16 (4, 4, 3)"),
        (lambda image: image["shape"].update(dimensions=["4", "4", "4"]), "uint8 (4, 4, 4)"),
    ],
)
def test_records_of_other_images_are_refused(tmp_path, change, got):
    path = records(tmp_path)
    rewritten(path, change)
    refused(lambda: load_records(path), "images of uint8 with 1 or 3 channels", got)


def test_images_of_records_are_read_by_the_decoder_of_files(tmp_path, monkeypatch):
    """Its bounds and its formats hold there too."""
    path = records(tmp_path)
    monkeypatch.setattr(image_decoder, "LARGEST", 15)
    refused(lambda: load_records(path), "tiny-train", "expected at most 15 pixels")
    monkeypatch.setattr(image_decoder, "FORMATS", ("JPEG",))
    refused(lambda: load_records(path), "tiny-train", "expected a JPEG file")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "lgd-manifest.json"])
def test_a_fifo_in_a_data_set_of_tfds_is_refused_at_once(tmp_path, name):
    path = records(tmp_path)
    (path / "1.2.0" / name).unlink(missing_ok=True)
    os.mkfifo(path / "1.2.0" / name)
    refused(lambda: load_records(path), f"{name}: expected a regular file")
