"""Generated files only, of images two by three; Fashion-MNIST's own size for its loader."""

import contextlib
import gzip
import hashlib
import io
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lgd.data import fashion_mnist, image_files, mnist
from lgd.data import npz as images_of_ones_own
from lgd.data.image_files import IDX_FILES, DataFileError, Pin
from tests.idx_files import idx_bytes, idx_folder, images_and_labels

SIZE, NUM_CLASSES = (2, 3), 4


def arrays(train=5, test=3, size=SIZE, num_classes=NUM_CLASSES):
    """Arrays as a .npz file holds them; images all different."""
    return images_and_labels(train, test, size, num_classes)


def npz(path, values, save=np.savez_compressed):
    save(path, **values)
    return path


def read(path):
    return image_files.read(path, size=SIZE, num_classes=NUM_CLASSES)


def refused(path, *words):
    with pytest.raises(DataFileError) as refusal:
        read(path)
    message = str(refusal.value)
    assert message.startswith(str(path))
    assert ": expected " in message
    assert ", got " in message
    assert "\n" not in message
    missing = [word for word in words if word not in message]
    assert not missing, message


# What is read


@pytest.mark.parametrize(
    "write",
    [
        lambda path, values: npz(path / "a.npz", values),
        lambda path, values: npz(path / "a.npz", values, np.savez),
        lambda path, values: npz(path / "a.npz", values | {"more": np.zeros(2)}),
        lambda path, values: idx_folder(path, values),
        lambda path, values: idx_folder(path, values, gzipped=IDX_FILES),
        lambda path, values: str(idx_folder(path, values, gzipped=("x", "yt"))),
    ],
    ids=["npz", "npz stored", "npz with more", "idx", "idx gzipped", "idx mixed, str"],
)
def test_arrays_come_back(tmp_path, write):
    values = arrays()
    train, test = read(write(tmp_path, values))
    for got, key in ((train.images, "x"), (train.labels, "y"), (test.images, "xt")):
        assert got.dtype == (np.int32 if key == "y" else np.uint8)
        np.testing.assert_array_equal(got, values[key])
    np.testing.assert_array_equal(test.labels, values["yt"])


# What is refused


@pytest.mark.parametrize(
    ("key", "wrong", "got"),
    [
        ("x", lambda x: x.astype(np.float32), "got float32 (5, 2, 3)"),
        ("xt", lambda x: x[:, :, :2], "got uint8 (3, 2, 2)"),
        ("x", lambda x: x.reshape(5, 6), "got uint8 (5, 6)"),
        ("x", lambda x: x[:0], "got uint8 (0, 2, 3)"),
        ("y", lambda y: y[:, None], "got uint8 (5, 1)"),
        ("y", lambda y: y.astype(np.float64), "expected integer labels (n >= 1), got float64 (5,)"),
        ("y", lambda y: y > 1, "got bool (5,)"),
        ("y", lambda y: y.astype(np.int64) - 1, "expected labels in [0, 4), got -1"),
        ("y", lambda y: y + np.uint64(2**64 - 4), "got 18446744073709551615"),
        ("yt", lambda y: y.astype(np.int64) + 2**32, "got 4294967298"),
        ("yt", lambda y: y[:2], "expected 3 labels, one for each image of"),
        ("y", lambda y: y + np.uint8(1), "expected labels in [0, 4), got 4"),
    ],
)
def test_npz_with_an_array_that_does_not_fit(tmp_path, key, wrong, got):
    values = arrays()
    refused(npz(tmp_path / "a.npz", values | {key: wrong(values[key])}), f"a.npz: {key}: ", got)


def test_npz_without_a_key_names_those_it_has(tmp_path):
    values = arrays()
    del values["yt"]
    refused(npz(tmp_path / "a.npz", values), "a.npz: yt: expected an array", "['x', 'xt', 'y']")


class Trap:
    """Unpickled, it would make the test fail."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_nothing_is_unpickled(tmp_path):
    trap = np.asarray([Trap()], object)
    refused(npz(tmp_path / "a.npz", arrays() | {"x": trap}), "a.npz: x: ", "never unpickled")
    np.save(tmp_path / "b.npy", trap, allow_pickle=True)
    refused(tmp_path / "b.npy", "expected a .npz file", "no zip archive")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"x" * 100])
def test_file_that_is_no_npz(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    refused(path, "expected a .npz file", "cannot be read")


@pytest.mark.parametrize("path", ["no/such.npz", "\0", "x" * 5000])
def test_path_to_nothing(path):
    refused(path, "expected a .npz file")


def changed(key, change, gzipped=False):
    def write(path):
        idx_folder(path, arrays(), gzipped=(key,) if gzipped else ())
        file = path / (IDX_FILES[key] + (".gz" if gzipped else ""))
        file.write_bytes(change(file.read_bytes()))

    return write


HUGE = bytes([0, 0, 8, 3]) + b"\xff" * 8


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (changed("x", lambda b: b""), ("train-images-idx3-ubyte: magic number", "got no bytes")),
        (changed("y", lambda b: b[:3]), ("magic number: expected 00000801", "got 000008")),
        (changed("x", lambda b: b"\0\0\x0d" + b[3:]), ("expected 00000803, got 00000d03",)),
        (changed("yt", lambda b: gzip.compress(b)), ("t10k-labels-idx1-ubyte: magic", "1f8b")),
        (changed("x", lambda b: b[:9]), ("dimensions: expected 16 bytes, got 9",)),
        (changed("x", lambda b: b[:-1]), ("data: expected 30 bytes", "(5, 2, 3), got 29")),
        (changed("yt", lambda b: b + b"\0"), ("data: expected 3 bytes", "got 4")),
        (changed("x", lambda b: HUGE + b"\0" * 4), ("idx3-ubyte: expected", "cannot be read")),
        (changed("x", lambda b: HUGE + b"\xff" * 4), ("data: expected 79228162",)),
        (changed("xt", lambda b: idx_bytes(np.zeros((3, 3, 2), np.uint8))), ("got uint8 (3, 3",)),
        (changed("y", lambda b: b[:-1] + b"\4"), ("labels-idx1-ubyte: expected labels in [0, 4)",)),
        (changed("x", lambda b: b[:-9], True), ("ubyte.gz: expected an IDX file", "EOFError")),
        (changed("x", lambda b: b"zip" + b, True), ("ubyte.gz", "BadGzipFile")),
        (changed("x", lambda b: b[:-8] + bytes(8), True), ("ubyte.gz", "BadGzipFile")),
    ],
)
def test_idx_file_that_does_not_fit(tmp_path, write, words):
    write(tmp_path)
    refused(tmp_path, *words)


def test_idx_file_that_is_missing(tmp_path):
    with pytest.raises(DataFileError) as refusal:
        read(tmp_path)
    lines = str(refusal.value).splitlines()
    for line, name in zip(lines, IDX_FILES.values(), strict=True):
        assert line == f"{tmp_path / name}: expected an IDX file, got no such file"
    idx_folder(tmp_path, arrays())
    (tmp_path / IDX_FILES["yt"]).unlink()
    refused(tmp_path, "t10k-labels-idx1-ubyte: expected an IDX file", "got no such file")


# Any bytes

FUZZ = settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def npz_bytes(save):
    file = io.BytesIO()
    save(file, **arrays())
    return file.getvalue()


WHOLE = {
    "npz": npz_bytes(np.savez_compressed),
    "npz stored": npz_bytes(np.savez),
    "idx": idx_bytes(arrays()["x"]),
    "gzipped idx": gzip.compress(idx_bytes(arrays()["x"]), mtime=0),
}


@st.composite
def corrupt(draw, whole):
    """The bytes of a file, some of them replaced, cut out or put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(start + 8, len(content))))
        content[start:end] = draw(st.binary(max_size=8))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


def read_or_refuse(path):
    """Arrays that fit, or a DataFileError; anything else is a bug."""
    try:
        train, test = read(path)
    except DataFileError:
        return
    for images, labels in (train, test):
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        assert images.shape == (len(labels), *SIZE)
        assert labels.max() < NUM_CLASSES


@pytest.mark.parametrize("kind", ["npz", "npz stored"])
def test_any_npz(tmp_path, kind):
    @FUZZ
    @given(corrupt(WHOLE[kind]) | st.binary(max_size=50))
    def check(content):
        (tmp_path / "a.npz").write_bytes(content)
        read_or_refuse(tmp_path / "a.npz")

    check()


@pytest.mark.parametrize("kind", ["idx", "gzipped idx"])
def test_any_idx_file(tmp_path, kind):
    key = ("x",) if kind == "gzipped idx" else ()
    idx_folder(tmp_path, arrays(), gzipped=key)
    file = tmp_path / (IDX_FILES["x"] + (".gz" if key else ""))

    @FUZZ
    @given(corrupt(WHOLE[kind]) | st.binary(max_size=50))
    def check(content):
        file.write_bytes(content)
        read_or_refuse(tmp_path)

    check()


# Fashion-MNIST


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    values = arrays(train=40, test=20, size=(28, 28), num_classes=10)
    values["x"][0, 0, :2] = 0, 255
    return npz(tmp_path_factory.mktemp("fashion") / "a.npz", values), values


def contents(images, labels):
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def rows(split):
    """Images as the file has them, with their labels."""
    pixels = np.round(127.5 * (split.x.astype(np.float64) + 1.0)).astype(np.uint8)
    return contents(pixels, split.stratum)


def test_fashion_mnist_has_every_image_in_one_split(fashion):
    path, values = fashion
    dataset = fashion_mnist.load(path, 25, 15, 20)
    assert (dataset.shape, dataset.num_classes) == ((28, 28, 1), 10)
    for split, size in ((dataset.train, 25), (dataset.validation, 15), (dataset.test, 20)):
        assert (split.x.dtype, split.stratum.dtype) == (np.float32, np.int32)
        assert (len(split.x), len(split.stratum), len(rows(split))) == (size, size, size)
    train, validation = rows(dataset.train), rows(dataset.validation)
    assert not train & validation
    for got, images, labels in (
        (train | validation, values["x"], values["y"]),
        (rows(dataset.test), values["xt"], values["yt"]),
    ):
        assert got == contents(images, labels)
    x = np.concatenate([dataset.train.x, dataset.validation.x])
    assert (x.min(), x.max()) == (-1.0, 1.0)


def test_fashion_mnist_is_shuffled_by_the_seed(fashion):
    first, again, other = (fashion_mnist.load(fashion[0], 20, 10, 10, seed=s) for s in (1, 1, 2))
    for name in ("train", "validation", "test"):
        one, same, different = (getattr(dataset, name) for dataset in (first, again, other))
        np.testing.assert_array_equal(one.x, same.x)
        np.testing.assert_array_equal(one.stratum, same.stratum)
        assert rows(one) != rows(different)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            (30, 11, 5),
            "num_train . num_validation: expected at most 40, .* got 41",
        ),
        ((10, 10, 21), "num_test: expected at most 20, the number of test images, got 21"),
    ],
)
def test_fashion_mnist_refuses_files_of_too_few_images(fashion, sizes, message):
    with pytest.raises(DataFileError, match=message):
        fashion_mnist.load(fashion[0], *sizes)


@pytest.mark.parametrize("sizes", [(0, 10, 10), (10, -1, 10), (10, 10, 0)])
def test_fashion_mnist_refuses_empty_splits(fashion, sizes):
    with pytest.raises(ValueError, match="expected positive sizes, got"):
        fashion_mnist.load(fashion[0], *sizes)


def test_fashion_mnist_says_where_to_get_it():
    with pytest.raises(DataFileError, match=r"no/such: expected .*dataset-fashion-mnist.*zalando"):
        fashion_mnist.load("no/such")


# MNIST


def test_mnist_is_read_by_the_same_reader(fashion):
    one, other = mnist.load(fashion[0], 25, 15, 20), fashion_mnist.load(fashion[0], 25, 15, 20)
    assert one.class_names == tuple("0123456789")
    for name in ("train", "validation", "test"):
        assert rows(getattr(one, name)) == rows(getattr(other, name))


def test_mnist_says_where_to_get_it():
    with pytest.raises(DataFileError, match=r"no/such: expected MNIST, .*train-images-idx3-ubyte"):
        mnist.load("no/such")


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
@pytest.mark.parametrize("gzipped", [(), IDX_FILES])
def test_a_flipped_pixel_of_a_known_data_set_is_found(tmp_path, monkeypatch, module, gzipped):
    """Those of this size are known; of another, one's own."""
    values = arrays(train=40, test=20, size=(28, 28), num_classes=10)
    sums = {key: hashlib.sha256(idx_bytes(value)).hexdigest() for key, value in values.items()}
    pins = {key: Pin(len(values[key]), sums[key]) for key in values}
    monkeypatch.setattr(module, "PINS", pins)
    module.load(idx_folder(tmp_path, values, gzipped), 20, 10, 10)
    values["x"][3, 5, 5] ^= 1
    with pytest.raises(DataFileError, match=r"train-images.*: data: expected .*published.*, got"):
        module.load(idx_folder(tmp_path, values, gzipped), 20, 10, 10)
    monkeypatch.setattr(module, "PINS", pins | {"x": pins["x"]._replace(num_examples=41)})
    module.load(tmp_path, 20, 10, 10)


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_published_sums_are_of_all_four_files(module):
    counts = {key: pin.num_examples for key, pin in module.PINS.items()}
    assert counts == {"x": 60_000, "y": 60_000, "xt": 10_000, "yt": 10_000}
    assert len({pin.sha256 for pin in module.PINS.values()}) == 4


# Images of one's own


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (4, 4, 3)])
def test_npz_of_images_of_any_shape(tmp_path, shape):
    values = arrays(train=9, test=5, size=shape)
    dataset = images_of_ones_own.load(npz(tmp_path / "a.npz", values), 5, 4, 5)
    assert dataset.shape == (*shape, 1)[:3]
    assert dataset.class_names == ("0", "1", "2", "3")
    assert rows(dataset.train) | rows(dataset.validation) == contents(values["x"], values["y"])
    assert rows(dataset.test) == contents(values["xt"], values["yt"])


@pytest.mark.parametrize(
    ("key", "wrong", "got"),
    [
        ("xt", lambda x: x[:, :, :2], "xt: expected images, uint8 (n >= 1, 2, 3), got uint8"),
        ("yt", lambda y: y + np.uint8(2), "yt: expected labels in [0, 4)"),
        ("y", lambda y: y[:4], "y: expected 5 labels"),
    ],
)
def test_npz_of_images_that_do_not_fit(tmp_path, key, wrong, got):
    values = arrays()
    path = npz(tmp_path / "a.npz", values | {key: wrong(values[key])})
    with pytest.raises(DataFileError, match=re.escape(f"a.npz: {got}")):
        images_of_ones_own.load(path, 2, 2, 2)


CHANNELS = "uint8 (n, height, width) or (n, height, width, channels) with 1 or 3 channels, got "


@pytest.mark.parametrize(
    ("shape", "dtype", "got"),
    [
        ((5, 3, 32, 32), np.uint8, "uint8 (5, 3, 32, 32); transpose channels to the end by"),
        ((5, 1, 8, 8), np.uint8, "uint8 (5, 1, 8, 8); transpose"),
        ((5, 8, 8, 4), np.uint8, "uint8 (5, 8, 8, 4)"),
        ((5, 8, 8, 2), np.uint8, "uint8 (5, 8, 8, 2)"),
        ((5, 6), np.uint8, "uint8 (5, 6)"),
        ((5,), np.uint8, "uint8 (5,)"),
        ((5, 0, 8), np.uint8, "uint8 (5, 0, 8)"),
        ((5, 1, 1, 1, 1), np.uint8, "uint8 (5, 1, 1, 1, 1)"),
        ((5, 8, 8, 3), np.float32, "float32 (5, 8, 8, 3); scale pixels to 0 to 255"),
        ((5, 8, 8), np.int64, "int64 (5, 8, 8); scale pixels to 0 to 255"),
    ],
)
def test_npz_of_images_of_other_shapes_says_which_fit(tmp_path, shape, dtype, got):
    values = arrays(size=shape[1:]) | {"x": np.zeros(shape, dtype), "xt": np.zeros((3, 8, 8))}
    with pytest.raises(DataFileError, match=re.escape(f"x: expected images, {CHANNELS}{got}")):
        images_of_ones_own.load(npz(tmp_path / "a.npz", values), 2, 2, 2)


@pytest.mark.parametrize("dtype", ["i1", "i8", ">i8", "u2", ">u4", "u8"])
def test_labels_may_have_any_integer_dtype(tmp_path, dtype):
    values = arrays()
    values |= {key: values[key].astype(dtype) for key in ("y", "yt")}
    dataset = images_of_ones_own.load(npz(tmp_path / "a.npz", values), 2, 2, 2)
    assert dataset.train.stratum.dtype == np.int32
    assert dataset.class_names == ("0", "1", "2", "3")


def test_all_faults_of_a_npz_come_at_once(tmp_path):
    values = arrays(size=(3, 8, 8))
    values |= {"y": values["y"] / 2, "yt": values["yt"].astype(np.int64) - 1}
    values["xt"] = values["xt"][:2, :, :4]
    path = npz(tmp_path / "a.npz", values)
    with pytest.raises(DataFileError) as refusal:
        images_of_ones_own.load(path, 2, 2, 2)
    lines = str(refusal.value).splitlines()
    keys = [line.removeprefix(f"{path}: ").split(":")[0] for line in lines]
    assert keys == ["x", "y", "xt", "yt", "yt"]
    assert "expected labels in [0, 65536), got -1" in lines[3]
    assert "expected 2 labels, one for each image" in lines[4]


def test_labels_do_not_name_millions_of_classes(tmp_path):
    values = arrays() | {"y": np.full(5, 10**9)}
    with pytest.raises(DataFileError, match=r"y: expected labels in \[0, 65536\), got 1000000000"):
        images_of_ones_own.load(npz(tmp_path / "a.npz", values), 2, 2, 2)


@pytest.mark.parametrize("kind", ["npz", "npz stored"])
def test_any_npz_of_images(tmp_path, kind):
    @FUZZ
    @given(corrupt(WHOLE[kind]))
    def check(content):
        (tmp_path / "a.npz").write_bytes(content)
        with contextlib.suppress(DataFileError):
            dataset = images_of_ones_own.load(tmp_path / "a.npz", 2, 2, 2)
            assert len(dataset.shape) == 3
            assert dataset.train.stratum.max() < dataset.num_classes

    check()
