import hashlib
import itertools
import re
import threading
import time
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from lgd import schedules
from lgd.data import (
    FileImages,
    Split,
    digits,
    fashion_mnist,
    labelled,
    mnist,
    order,
    pipeline,
    spiral,
)
from lgd.data.dataset import checked_split
from lgd.data.image_files import IDX_FILES, DataFileError, Pin
from tests.idx_files import gzipped_folder, idx_folder, images_and_labels

FLOW = schedules.rectified_flow()


def numbered(size, num_classes=1):
    """Example i holds the number i; labels go round."""
    return labelled(
        np.arange(size, dtype=np.float32)[:, None],
        (np.arange(size) % num_classes).astype(np.int32),
    )


def with_labels(*labels):
    return labelled(np.arange(len(labels), dtype=np.float32)[:, None], np.asarray(labels, np.int32))


def numbers(batch):
    """Which examples of `numbered` a batch holds."""
    return batch.x0[..., 0].astype(int)


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def splits(dataset):
    return dataset.train, dataset.validation, dataset.test


# Digits


def test_digits_are_scikit_learns_each_in_one_split():
    dataset = digits.load()
    assert [len(split.x) for split in splits(dataset)] == [900, 400, 497]
    assert (dataset.shape, dataset.num_classes) == ((8, 8, 1), 10)
    assert dataset.class_names == tuple("0123456789")
    x = np.concatenate([split.x for split in splits(dataset)])
    labels = np.concatenate([split.stratum for split in splits(dataset)])
    assert (x.dtype, labels.dtype) == (np.float32, np.int32)
    assert (x.min(), x.max()) == (-1.0, 1.0)

    images, digit = load_digits(return_X_y=True)  # pixels 0 to 16, all images different
    ours = {(*np.round(8 * (x + 1)).ravel(), y) for x, y in zip(x, labels, strict=True)}
    assert ours == {(*image, y) for image, y in zip(images, digit, strict=True)}
    assert len(ours) == 1797


def test_digits_are_shuffled_by_the_seed():
    first, again, other = (digits.load(100, 50, 60, seed=seed) for seed in (1, 1, 2))
    assert [len(split.x) for split in splits(first)] == [100, 50, 60]
    assert all(equal(a, b) for a, b in zip(splits(first), splits(again), strict=True))
    assert not any(equal(a, b) for a, b in zip(splits(first), splits(other), strict=True))
    assert all(len(np.unique(split.stratum)) == 10 for split in splits(first))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((1000, 500, 298), "num_train .*: expected a sum <= 1797, got sum 1798"),
        ((0, 10, 10), "expected positive sizes, got num_train 0$"),
        ((10, 0, -1), "expected positive sizes, got num_validation 0, num_test -1$"),
    ],
)
def test_digits_refuse_sizes_that_do_not_fit(sizes, words):
    with pytest.raises(ValueError, match=words):
        digits.load(*sizes)


# IDX files of known sets (all else about IDX files: test_image_files.py)

PUBLISHED = images_and_labels()  # 240 training and 120 test images
OTHER = {"x": "xt", "xt": "x", "y": "yt", "yt": "y"}


@pytest.fixture(params=[mnist, fashion_mnist], ids=["mnist", "fashion_mnist"])
def known(request, monkeypatch, tmp_path):
    """A loader, as if the files of `PUBLISHED` were those published."""
    files = idx_folder(tmp_path, PUBLISHED)
    pins = {
        key: Pin(len(PUBLISHED[key]), hashlib.sha256((files / name).read_bytes()).hexdigest())
        for key, name in IDX_FILES.items()
    }
    monkeypatch.setattr(request.param, "PINS", pins)
    return lambda path: request.param.load(path, 60, 20, 100)


def short(*keys):
    return {key: PUBLISHED[key][:-1] for key in keys}


def exchanged(change=lambda values: values):
    return {key: change(PUBLISHED[other]) for key, other in OTHER.items()}


@pytest.mark.parametrize("write", [idx_folder, gzipped_folder], ids=["plain", "gzipped"])
@pytest.mark.parametrize(
    ("changes", "key", "got"),
    [
        (exchanged(), "x", "those of t10k-images-idx3-ubyte"),
        ({key: PUBLISHED[OTHER[key]] for key in ("x", "y")}, "x", "those of t10k-images"),
        ({"x": PUBLISHED["x"][:120], "y": PUBLISHED["yt"]}, "y", "those of t10k-labels"),
        ({"xt": PUBLISHED["x"], "yt": PUBLISHED["y"]}, "xt", "those of train-images"),
        (exchanged(lambda values: values[::-1]), "x", "120 others"),
        (short("x", "y"), "x", "239 others"),
        (short("xt", "yt"), "xt", "119 others"),
    ],
    ids=[
        *("exchanged", "test images twice", "labels of test", "training images twice"),
        *("exchanged and changed", "one training image less", "one test image less"),
    ],
)
def test_known_files_that_are_not_all_in_their_place_are_refused(
    tmp_path, known, write, changes, key, got
):
    for file in tmp_path.iterdir():
        file.unlink()
    path = write(tmp_path, PUBLISHED | changes)
    expected = f"expected the {len(PUBLISHED[key])} published as {IDX_FILES[key]}, of sha256 "
    with pytest.raises(DataFileError, match=re.escape(expected) + f".*, got {got}") as refusal:
        known(path)
    assert str(refusal.value).startswith(str(path / IDX_FILES[key]))


def test_ones_own_idx_files_may_have_any_other_number_of_images(tmp_path, known):
    """As many training images as there are published test images, too."""
    assert known(tmp_path).shape == (28, 28, 1)  # those published
    for num_train, num_test in ((120, 119), (239, 121), (120, 121)):
        counts = {"x": num_train, "y": num_train, "xt": num_test, "yt": num_test}
        own = {key: np.zeros((n, *PUBLISHED[key].shape[1:]), np.uint8) for key, n in counts.items()}
        assert known(idx_folder(tmp_path, own)).shape == (28, 28, 1)


# Spiral


@pytest.fixture(scope="module")
def spirals():
    return spiral.load(16_000, 16_003, 16_007, schedule=FLOW, seed=3)


def test_spiral_splits_are_balanced_and_different(spirals):
    assert [len(split.x) for split in splits(spirals)] == [16_000] * 3
    assert (spirals.shape, spirals.num_classes, len(spirals.class_names)) == ((2,), 8, 8)
    for split in splits(spirals):
        assert (split.x.dtype, split.stratum.dtype) == (np.float32, np.int32)
        assert set(np.bincount(split.stratum)) == {len(split.stratum) // 8}
    for one, other in itertools.combinations(splits(spirals), 2):
        assert not {tuple(x) for x in one.x} & {tuple(x) for x in other.x}


def test_spiral_draws_have_the_mean_and_covariance_of_their_class(spirals):
    exact, params = spiral.mixture(FLOW)
    labels, means = np.asarray(exact.labels), np.asarray(params.means, np.float64)
    variances = np.asarray(params.variances, np.float64)
    for label in range(spirals.num_classes):
        mine = labels == label
        x = spirals.train.x[spirals.train.stratum == label].astype(np.float64)
        mean = means[mine].mean(axis=0)
        covariance = np.cov(means[mine].T, ddof=0) + np.diag(variances[mine].mean(axis=0))
        error = np.sqrt(np.diag(covariance) / len(x))
        assert (np.abs(x.mean(axis=0) - mean) < 4.5 * error).all()
        products = np.einsum("ni,nj->nij", x - mean, x - mean)
        error = products.std(axis=0) / len(x) ** 0.5
        assert (np.abs(products.mean(axis=0) - covariance) < 4.5 * error).all()


def test_spiral_is_deterministic_and_lies_where_it_says(spirals):
    again = spiral.load(16_000, 16_003, 16_007, schedule=FLOW, seed=3)
    assert all(equal(a, b) for a, b in zip(splits(spirals), splits(again), strict=True))
    other = spiral.load(16_000, 16_003, 16_007, schedule=FLOW, seed=4)
    assert not np.array_equal(spirals.test.x, other.test.x)
    exact, params = spiral.mixture(FLOW)
    assert exact.labels == tuple(sorted(exact.labels))
    reach = jnp.abs(params.means) + 3.0 * jnp.sqrt(params.variances)
    assert float(jnp.max(reach)) <= 2.0


# Batches of examples


@pytest.mark.parametrize(("size", "batch_size"), [(12, 4), (10, 3), (7, 7), (5, 13), (6, 1)])
def test_examples_come_once_in_every_epoch(size, batch_size):
    batches = pipeline.examples(numbered(size), batch_size, seed=0)
    seen = np.concatenate([numbers(batches(step)) for step in range(4 * size)])
    epochs = seen[: len(seen) // size * size].reshape(-1, size)
    assert (np.sort(epochs, axis=1) == np.arange(size)).all()
    assert len({tuple(epoch) for epoch in epochs}) > len(epochs) // 2


def test_examples_keep_their_labels_and_types():
    split = numbered(10, num_classes=3)
    batch = pipeline.examples(split, 4, seed=5)(7)
    assert (batch.x0.shape, batch.c.shape) == ((4, 1), (4,))
    assert (batch.x0.dtype, batch.c.dtype) == (np.float32, np.int32)
    assert np.array_equal(batch.c, numbers(batch) % 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: pipeline.examples(numbered(10), 3, seed=seed),
        lambda seed: pipeline.groups(numbered(10, 2), 3, seed=seed, rounds=2),
    ],
    ids=["examples", "groups"],
)
def test_batch_is_a_function_of_the_step(make):
    forwards = make(1)
    expected = [forwards(step) for step in range(40)]
    jumping = make(1)
    for step in (39, 3, 0, 39, 17, 4, 3):
        assert equal(jumping(step), expected[step])
    other = make(2)
    assert not all(equal(other(step), expected[step]) for step in range(3))
    assert not equal(expected[0], expected[1])


@pytest.mark.parametrize("size", [10, 7, 3])  # a batch within an epoch, over two, over three
def test_parts_of_a_batch_of_examples_make_up_the_whole(size):
    split, rows = numbered(size, num_classes=3), (np.asarray([0, 2, 5]), np.asarray([1, 3, 4]))
    whole = pipeline.examples(split, 6, seed=0)
    parts = [pipeline.examples(split, 6, seed=0, rows=part) for part in rows]
    for step in range(8):
        for part, batches in zip(rows, parts, strict=True):
            assert equal(batches(step), [array[part] for array in whole(step)])


def test_neighbouring_seeds_and_epochs_have_other_orders():
    """Epoch 1 of a seed is not epoch 0 of the next one, as where the two are added."""
    orders = {
        tuple(pipeline.examples(numbered(50), 50, seed=seed).index(epoch))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


@pytest.mark.parametrize("size", [1, 2, 5, 97, 10**12])
def test_a_permutation_takes_different_positions_to_different_places(size):
    key = order.keys(3, 1, count=1)
    position = np.arange(min(size, 3000)) * max(1, size // 3000)
    places = order.permuted(position, np.full_like(position, size), key.repeat(len(position), 1))
    assert len(np.unique(places)) == len(position)
    assert places.min() >= 0
    assert places.max() < size


@pytest.mark.parametrize("size", [3, 5, 10])
def test_permutations_are_uniform(size):
    """Every pair of places for the first two positions is equally likely (chi-squared)."""
    count = 30_000
    shape = (2, count)
    key = np.broadcast_to(order.keys(0, count=count)[:, None], (order.ROUNDS, *shape))
    position = np.broadcast_to(np.arange(2)[:, None], shape)
    first, second = order.permuted(position, np.full(shape, size), key)
    drawn = np.bincount(first * size + second, minlength=size**2).reshape(size, size)
    drawn = drawn[~np.eye(size, dtype=bool)]
    assert drawn.sum() == count
    expected, free = count / len(drawn), len(drawn) - 1
    excess = (np.square(drawn - expected) / expected).sum() - free
    assert abs(excess) < 4.5 * (2 * free) ** 0.5


@pytest.mark.parametrize(("size", "batch_size"), [(10, 0), (0, 4)])
def test_examples_refuse_no_batch_and_no_data(size, batch_size):
    with pytest.raises(ValueError, match=f"expected batch_size .*, got {batch_size} and {size}"):
        pipeline.examples(numbered(size), batch_size, seed=0)


# Groups of a class


def test_groups_hold_different_members_of_their_class():
    batches = pipeline.groups(numbered(60, 3), 15, seed=0, rounds=2)
    for step in range(5):
        batch = batches(step)
        assert (batch.x0.shape, batch.x0.dtype, batch.c.dtype) == ((6, 15, 1), np.float32, np.int32)
        assert batch.c[:, 0].tolist() == [0, 1, 2, 0, 1, 2]
        assert (numbers(batch) % 3 == batch.c).all()
        assert all(len(set(group)) == 15 for group in numbers(batch))
        assert not np.array_equal(numbers(batch)[:3], numbers(batch)[3:])


def test_groups_of_small_classes_take_whole_rounds():
    labels = [0, 1, 1, 1, 0, 0, 0, 0, 2]
    batch = pipeline.groups(with_labels(*labels), 8, seed=0)(11)
    for label, group in enumerate(numbers(batch)):
        members = np.flatnonzero(np.asarray(labels) == label)
        whole = 8 // len(members) * len(members)
        counts = np.bincount(group, minlength=len(labels))[members]
        assert counts.sum() == 8
        assert counts.max() - counts.min() <= 1
        assert (np.bincount(group[:whole])[members] == 8 // len(members)).all()


def test_parts_of_a_batch_of_groups_make_up_the_whole():
    split, some = numbered(30, 3), np.asarray([1, 2, 5])
    whole = pipeline.groups(split, 6, seed=0, rounds=2)
    by_group = pipeline.groups(split, 6, seed=0, rounds=2, groups=some)
    by_member = pipeline.groups(split, 6, seed=0, rounds=2, members=some)
    for step in range(3):
        x0, c = whole(step)
        assert equal(by_group(step), (x0[some], c[some]))
        assert equal(by_member(step), (x0[:, some], c[:, some]))


def test_members_of_a_group_keep_their_own_conditions():
    stratum = np.repeat([0, 1], 10).astype(np.int32)
    c = {"place": np.arange(20, dtype=np.float32)[:, None]}
    x = np.arange(20, dtype=np.float32)[:, None]
    batch = pipeline.groups(Split(x, c, stratum), 4, seed=0)(3)
    np.testing.assert_array_equal(batch.c["place"], batch.x0)
    assert (batch.x0[0] < 10).all()
    assert (batch.x0[1] >= 10).all()


def test_without_strata_all_examples_are_one_group():
    x = np.arange(20, dtype=np.float32)[:, None]
    batch = pipeline.groups(Split(x, {"place": x}), 20, seed=0)(0)
    assert batch.x0.shape == (1, 20, 1)
    assert sorted(batch.x0.ravel().tolist()) == x.ravel().tolist()


def test_every_member_of_a_class_is_drawn_in_the_end():
    batches = pipeline.groups(numbered(40, 2), 5, seed=0)
    drawn = np.concatenate([numbers(batches(step)).ravel() for step in range(40)])
    assert set(drawn) == set(range(40))


def test_strata_are_drawn_without_replacement_and_equally_often():
    batches = pipeline.groups(numbered(70, 7), 4, seed=0, rounds=2, strata=3)
    drawn = []
    for step in range(200):
        batch = batches(step)
        assert batch.x0.shape == (6, 4, 1)
        assert (numbers(batch) % 7 == batch.c).all()
        labels = batch.c[:, 0].tolist()
        assert labels[:3] == labels[3:]
        assert len(set(labels)) == 3
        drawn.append(labels[:3])
    sets = np.sort(np.asarray(drawn), axis=1)
    pairs = np.zeros((7, 7))
    for labels in sets:
        pairs[np.ix_(labels, labels)] += 1
    assert np.ptp(np.diag(pairs)) < 40  # 2 of 7 strata in steps of 3 leave one out, at random
    expected = 200 * 3 * 2 / (7 * 6)
    assert np.abs(pairs[~np.eye(7, dtype=bool)] - expected).max() < 5 * expected**0.5
    firsts, seconds = np.asarray(drawn)[::2], np.asarray(drawn)[1::2]  # two steps, one permutation
    assert all(not set(a) & set(b) for a, b in zip(firsts.tolist(), seconds.tolist(), strict=True))


def test_parts_of_a_batch_of_drawn_strata_make_up_the_whole():
    split, some = numbered(60, 6), np.asarray([1, 2, 3])
    settings = {"seed": 0, "rounds": 2, "strata": 2}
    whole = pipeline.groups(split, 6, **settings)
    for step in range(4):
        x0, c = whole(step)
        assert equal(pipeline.groups(split, 6, groups=some, **settings)(step), (x0[some], c[some]))
        members = pipeline.groups(split, 6, members=some, **settings)(step)
        assert equal(members, (x0[:, some], c[:, some]))


@pytest.mark.parametrize("strata", [3, 7])
def test_as_many_strata_as_there_are_change_nothing(strata):
    split = numbered(30, 3)
    plain, same = (pipeline.groups(split, 6, seed=0, strata=each) for each in (None, strata))
    assert equal(plain(5), same(5))
    assert plain.identity == same.identity
    assert pipeline.groups(split, 6, seed=0, strata=2).identity != plain.identity


def test_groups_refuse_no_strata():
    with pytest.raises(ValueError, match="expected strata >= 1, got 0"):
        pipeline.groups(numbered(30, 3), 6, seed=0, strata=0)


@pytest.mark.parametrize(
    ("labels", "group_size", "got"), [((0, 2, 2), 4, r"\[1\]"), ((0, 1), 0, "size 0")]
)
def test_groups_refuse_a_class_without_examples(labels, group_size, got):
    with pytest.raises(ValueError, match=f"expected .*, got .*{got}"):
        pipeline.groups(with_labels(*labels), group_size, seed=0)


# Examples in files


def in_files(size, read=None, fingerprint="files"):
    """`numbered`, as images of one pixel that are read one by one."""
    labels = (np.arange(size) % 3).astype(np.int32)

    def pixel(number):
        return np.full((1, 1, 1), number % 256, np.uint8)

    return labelled(FileImages((size, 1, 1, 1), read or pixel, fingerprint), labels)


def in_memory(split):
    return labelled(split.x[:], split.stratum)


def reading_threads():
    return [each for each in threading.enumerate() if each.name.startswith("grain-prefetch")]


@pytest.fixture
def _no_threads_left():
    yield
    end = time.monotonic() + 10
    while reading_threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not reading_threads()


def test_examples_in_files_are_those_in_memory():
    split = in_files(200)
    for make in (
        lambda split: pipeline.examples(split, 7, seed=1),
        lambda split: pipeline.groups(split, 4, seed=1),
    ):
        assert equal(make(split)(5), make(in_memory(split))(5))
    assert split.x[np.asarray([[3, 0], [199, 2]])].shape == (2, 2, 1, 1, 1)
    assert split.x[:1].item() == -1.0


@pytest.mark.usefixtures("_no_threads_left")
def test_reading_ahead_is_the_same_function_of_the_step():
    split = in_files(200)
    batches = pipeline.examples(split, 6, seed=0, rows=np.asarray([1, 2, 5]))
    with pipeline.reading_ahead(batches, threads=2, ahead=3) as ahead:
        for step in (0, 0, 1, 2, 3, 40, 41, 7, 8, 8, 9):
            assert equal(ahead(step), batches(step))
        assert reading_threads()
        assert ahead.identity == batches.identity
        assert np.array_equal(ahead.index(3), batches.index(3))


@pytest.mark.usefixtures("_no_threads_left")
def test_batches_are_read_before_they_are_asked_for():
    seen = []

    def read(number):
        seen.append(number)
        return np.zeros((1, 1, 1), np.uint8)

    batches = pipeline.examples(in_files(200, read), 5, seed=0)
    with pipeline.reading_ahead(batches, threads=1, ahead=3) as ahead:
        ahead(2)
        end = time.monotonic() + 10
        while len(seen) < 20 and time.monotonic() < end:
            time.sleep(0.01)
    expected = np.concatenate([batches.index(step) for step in (2, 3, 4, 5)])
    assert seen[:20] == expected.tolist()


@pytest.mark.usefixtures("_no_threads_left")
def test_what_a_reader_raises_is_raised_at_its_step_every_time():
    def read(number):
        if number == bad:
            raise OSError(f"no {number}")
        return np.zeros((1, 1, 1), np.uint8)

    batches = pipeline.examples(in_files(200, read), 5, seed=0)
    bad = batches.index(3)[2]
    with pipeline.reading_ahead(batches, threads=2, ahead=4) as ahead:
        for step in range(3):
            ahead(step)
        for _ in range(2):
            with pytest.raises(OSError, match=f"no {bad}"):
                ahead(3)
        assert ahead(4).x0.shape == (5, 1, 1, 1)


def test_batches_in_memory_are_read_without_threads():
    batches = pipeline.examples(numbered(5), 2, seed=0)
    with pipeline.reading_ahead(batches) as ahead:
        assert ahead is batches


def test_batches_are_a_grain_data_set():
    batches = pipeline.examples(numbered(20), 3, seed=0)
    assert equal(batches.dataset()[11], batches(11))


def test_identity_names_all_that_batches_depend_on():
    def of(split=None, batch_size=3, seed=0):
        split = numbered(10, 2) if split is None else split
        return pipeline.examples(split, batch_size, seed=seed).identity

    def differing(other):
        return {name for name in of() if other[name] != of()[name]}

    assert differing(of()) == set()
    assert differing(of(batch_size=4)) == {"batch_size"}
    assert differing(of(seed=1)) == {"seed"}
    assert differing(of(numbered(11, 2))) == differing(of(numbered(10, 3))) == {"data sha256"}
    files, others = (pipeline.examples(in_files(9, None, name), 3, seed=0) for name in "ab")
    assert files.identity["data sha256"] != others.identity["data sha256"]
    rows = pipeline.examples(numbered(10, 2), 3, seed=0, rows=np.asarray([1]))
    assert rows.identity == of()


def test_a_pipeline_takes_no_memory_for_its_examples():
    """A table of a million positions would take 8 MB."""
    split = labelled(in_files(1_000_000).x, np.zeros(1_000_000, np.int32))
    tracemalloc.start()
    try:
        batches = pipeline.examples(split, 64, seed=0)
        for step in (0, 7, 10**9):
            batches(step)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


# Pixels that a reader of one's own gives, and examples in memory


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (np.full((2, 3, 1), 0.5, np.float32), "float32 (2, 3, 1)"),
        (np.full((2, 3, 1), 200.0), "float64 (2, 3, 1)"),
        (np.full((2, 3, 1), 200, np.int64), "int64 (2, 3, 1)"),
        (np.full((2, 3, 1), 200, np.uint16), "uint16 (2, 3, 1)"),
        (np.ones((2, 3, 1), bool), "bool (2, 3, 1)"),
        (np.zeros((2, 3), np.uint8), "uint8 (2, 3)"),
        (np.zeros((1, 1, 1), np.uint8), "uint8 (1, 1, 1)"),
        (np.zeros((3, 2, 1), np.uint8), "uint8 (3, 2, 1)"),
        (np.zeros((2, 3, 3), np.uint8), "uint8 (2, 3, 3)"),
        (np.zeros((1, 2, 3, 1), np.uint8), "uint8 (1, 2, 3, 1)"),
    ],
)
@pytest.mark.parametrize("index", [slice(4, 5), np.array([[4]])])
def test_a_reader_that_gives_other_pixels_is_refused(pixels, got, index):
    images = FileImages((9, 2, 3, 1), lambda number: pixels, "files")
    expected = f"image 4: expected pixels of 0 to 255 from read, uint8 (2, 3, 1), got {got}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        images[index]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint16, bool])
def test_examples_of_integers_are_refused_with_what_converts_them(dtype):
    words = rf"x0: expected floats, got {np.dtype(dtype)} .*; .*x0 / 127.5 - 1"
    with pytest.raises(ValueError, match=words):
        checked_split(np.ones((4, 8, 8, 3), dtype), np.arange(4), None)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_0_to_255_are_refused_with_what_converts_them(dtype, channels):
    x0 = np.linspace(0, 255, 4 * 64 * channels).reshape(4, 8, 8, channels).astype(dtype)
    words = r"x0: expected images in \[-1, 1\], got 0 to 255; .*x0 / 127.5 - 1"
    with pytest.raises(ValueError, match=words):
        checked_split(x0, np.arange(4), None)
    x = checked_split(x0 / 127.5 - 1, np.arange(4), None).x
    assert (x.dtype, x.min(), x.max()) == (np.float32, -1.0, 1.0)


def test_examples_that_are_no_images_may_have_any_scale():
    assert checked_split(np.full((4, 2), 200.0), np.arange(4), None).x.max() == 200.0
