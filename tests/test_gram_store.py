"""Folders of statistics: what is written is read; every fault is one error that names it."""

import contextlib
import dataclasses
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from lgd import gram
from lgd.gram import Layout, StatisticsError, store
from lgd.gram.layout import pack, unpack
from lgd.machinery import digests
from lgd.objectives import TimeLaw, UniformTimes

LAYOUT = Layout(num_particles=2, dim=3)
SHARDS = ("shard-00000.safetensors", "shard-00001.safetensors")
FUZZ = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def tensors(seed, count=4, layout=LAYOUT):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, layout.num_rows, layout.dim)).astype(np.float32)
    return {
        "t": rng.uniform(0.1, 0.9, count).astype(np.float32),
        "gram": np.ascontiguousarray(pack(rows @ rows.swapaxes(1, 2))),
        "source": np.arange(count, dtype=np.int32),
        "c": np.arange(count, dtype=np.int32) % 2,
    }


def write(folder, parts, layout=LAYOUT, **changes):
    """A folder with these shards, whatever they hold, and a manifest that agrees with them."""
    manifest = store.Manifest(
        layout=layout,
        law=UniformTimes(),
        fingerprint={"schedule": "RectifiedFlow()"},
        num_examples=sum(len(part["t"]) for part in parts),
        shard_examples=4,
    )
    folder.mkdir(exist_ok=True)
    for index, part in enumerate(parts):
        name, data = f"shard-{index:05d}.safetensors", save(part)
        (folder / name).write_bytes(data)
        shard = store.Shard(name, digests.of_bytes(data), len(part["t"]))
        manifest = manifest.with_shard(shard)
    store.write_manifest(folder, dataclasses.replace(manifest, **changes))
    return folder


@pytest.fixture
def folder(tmp_path):
    """8 examples in two shards."""
    return write(tmp_path / "statistics", [tensors(0), tensors(1)])


def read(folder):
    return gram.read(folder, progress=False)


def refused(folder, message):
    with pytest.raises(StatisticsError, match=message):
        read(folder)


# Round trips


def test_what_is_written_is_read(folder):
    statistics = read(folder)
    parts = [tensors(0), tensors(1)]
    for name in ("t", "gram", "source", "c"):
        expected = np.concatenate([part[name] for part in parts])
        np.testing.assert_array_equal(getattr(statistics, name), expected)
    assert statistics.features.shape == (8, 2, 0)
    assert (statistics.layout, statistics.law) == (LAYOUT, UniformTimes())
    part = statistics.take(np.asarray([5, 1]))
    np.testing.assert_array_equal(part.t, statistics.t[[5, 1]])
    np.testing.assert_array_equal(part.gram, statistics.gram[[5, 1]])
    assert part.size == 2


@pytest.mark.parametrize(
    ("layout", "law"),
    [
        (Layout(members="mixed", num_particles=3, dim=5, has_features=True), TimeLaw(s_min=0.2)),
        (Layout(dim=1, directions=("uncond", "weaker")), UniformTimes(t_min=0.1)),
    ],
)
def test_manifests_are_read_as_they_were(tmp_path, layout, law):
    manifest = store.Manifest(
        layout=layout,
        law=law,
        fingerprint={"schedule": "a", "data": "naïve"},
        num_examples=7,
        shard_examples=4,
        shards=(store.Shard("shard-00000.safetensors", "0" * 64, 4),),
    )
    store.write_manifest(tmp_path, manifest)
    assert store.read_manifest(tmp_path) == manifest
    assert manifest.collected == 4


def test_triangles_are_packed_row_by_row():
    matrix = np.arange(9.0, dtype=np.float32).reshape(1, 3, 3)
    packed = np.asarray(pack(matrix))
    np.testing.assert_array_equal(packed, [[0, 3, 4, 6, 7, 8]])
    np.testing.assert_array_equal(unpack(packed, 3), np.tril(matrix))
    np.testing.assert_array_equal(unpack(pack(matrix), 3), np.tril(matrix))


# Shards


def test_missing_shards_and_manifests_are_named(folder):
    (folder / SHARDS[1]).unlink()
    refused(folder, rf"{SHARDS[1]}: expected a shard, found none")
    (folder / "manifest.json").unlink()
    refused(folder, r"manifest\.json: expected a manifest of statistics, got no file")
    refused(folder / SHARDS[0], r"expected a manifest of statistics, got no file")


def test_swapped_shards_are_found(folder):
    first, second = (folder / name for name in SHARDS)
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])
    refused(folder, rf"{SHARDS[0]}: expected sha256")


def test_a_collection_that_is_not_complete_is_refused(folder):
    shards = store.read_manifest(folder).shards
    manifest = dataclasses.replace(store.read_manifest(folder), shards=shards[:1])
    store.write_manifest(folder, manifest)
    refused(folder, r"manifest\.json: expected 8 examples, got 4: the collection was interrupted")


@FUZZ
@given(shard=st.sampled_from(SHARDS), place=st.floats(0, 1), flip=st.integers(1, 255))
def test_any_changed_byte_of_a_shard_is_found(folder, shard, place, flip):
    original = (folder / shard).read_bytes()
    data = bytearray(original)
    data[int(place * (len(data) - 1))] ^= flip
    (folder / shard).write_bytes(data)
    refused(folder, f"{shard}: expected sha256")
    (folder / shard).write_bytes(original[: int(place * (len(data) - 1))])
    refused(folder, f"{shard}: expected sha256")
    (folder / shard).write_bytes(original)
    assert read(folder).size == 8


@FUZZ
@given(data=st.binary(max_size=64))
def test_files_that_are_no_shards_are_refused(tmp_path, data):
    """Also where the manifest has their digest."""
    folder = write(tmp_path / "statistics", [tensors(0)])
    (folder / SHARDS[0]).write_bytes(data)
    digest = digests.of_bytes(data)
    manifest = store.read_manifest(folder)
    changed = dataclasses.replace(manifest, shards=(store.Shard(SHARDS[0], digest, 4),))
    store.write_manifest(folder, changed)
    refused(folder, SHARDS[0])


def changed(name, change):
    part = tensors(0)
    return {key: change(value) if key == name else value for key, value in part.items()}


def without(name):
    return {key: value for key, value in tensors(0).items() if key != name}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (changed("t", lambda t: t.astype(np.float64)), "t: expected float32"),
        (changed("gram", lambda g: g.astype(np.float16)), "gram: expected float32"),
        (changed("source", lambda s: s.astype(np.int64)), "source: expected int32"),
        (changed("gram", lambda g: g[:, :-1]), r"gram: expected float32 \(4, 21\), got"),
        (changed("source", lambda s: s[:-1]), r"source: expected int32 \(4,\), got"),
        (changed("c", lambda c: c[:-1]), r"c: expected leading axes \(4,\), got \(3,\)"),
        (changed("t", lambda t: t + 1.0), r"t: expected times in \[0, 1\], got"),
        (changed("t", lambda t: t * np.nan), "t: expected finite values"),
        (changed("gram", lambda g: g * np.inf), "gram: expected finite values"),
        (changed("c", lambda c: np.full(4, np.nan)), "c: expected finite values"),
        (changed("gram", lambda g: -g), "gram: expected inner products, got what no vectors have"),
        (changed("gram", lambda g: g + 9.0 * np.eye(1, 21, 1, dtype=np.float32)), "inner products"),
        (without("c"), r"expected \['gram', 'source', 't'\] and c, got"),
        (without("source"), r"expected \['gram', 'source', 't'\] and c, got"),
        (tensors(0) | {"x": np.ones(4)}, r"expected .* and c, got .*'x'"),
        (tensors(0) | {"features": np.ones((4, 2, 4), np.float32)}, "got .*'features'"),
    ],
)
def test_shards_that_hold_no_statistics_are_refused(tmp_path, part, message):
    """By `read`, and by `write_shard` before anything is written."""
    folder = write(tmp_path / "statistics", [part])
    refused(folder, rf"{SHARDS[0]}: .*{message}")
    if "t" in part:
        with pytest.raises(StatisticsError, match=message):
            store.write_shard(tmp_path, 0, part, LAYOUT)
        assert not (tmp_path / SHARDS[0]).exists()


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (dataclasses.replace(LAYOUT, num_particles=3), "gram: expected"),
        (dataclasses.replace(LAYOUT, has_features=True), "expected .*'features'"),
        (dataclasses.replace(LAYOUT, directions=("uncond", "weaker")), "gram: expected"),
        (dataclasses.replace(LAYOUT, members="mixed"), "gram: expected"),
    ],
)
def test_shards_of_another_layout_are_refused(tmp_path, layout, message):
    refused(write(tmp_path / "statistics", [tensors(0)], layout), message)


def test_members_with_conditions_of_their_own_must_have_them(tmp_path):
    layout = dataclasses.replace(LAYOUT, members="mixed")
    part = tensors(0, layout=layout)
    refused(write(tmp_path / "statistics", [part], layout), r"c: expected leading axes \(4, 2\)")


# Manifests


@FUZZ
@given(text=st.text(max_size=40) | st.binary(max_size=40))
def test_junk_is_no_manifest(folder, text):
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    (folder / "manifest.json").write_bytes(data)
    refused(folder, r"manifest\.json: ")


@FUZZ
@given(place=st.integers(0, 10_000), text=st.text(max_size=3), cut=st.integers(0, 3))
def test_any_change_of_what_a_manifest_says_is_found(folder, place, text, cut):
    """A stretch of its text replaced: refused, unless it says the same."""
    file = folder / "manifest.json"
    before = file.read_text()
    place %= len(before)
    after = before[:place] + text + before[place + cut :]
    file.write_bytes(after.encode("utf-8", "surrogatepass"))
    try:
        same = json.loads(after) == json.loads(before)
    except ValueError:
        same = False
    if same:
        assert read(folder).size == 8
    else:
        refused(folder, r"manifest\.json: ")
    file.write_text(before)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = [
    ("format",),
    ("layout",),
    ("layout", "members"),
    ("layout", "num_particles"),
    ("layout", "directions"),
    ("law",),
    ("law", "name"),
    ("law", "t_max"),
    ("fingerprint",),
    ("num_examples",),
    ("shard_examples",),
    ("shards",),
    ("shards", 0),
    ("shards", 0, "file"),
    ("shards", 0, "sha256"),
    ("shards", 0, "examples"),
]


@FUZZ
@given(field=st.sampled_from(FIELDS), value=JSON)
def test_manifests_with_other_values_are_refused_or_read(folder, field, value):
    """Even with the right digest, nothing but `StatisticsError` comes of any value of a field."""
    file = folder / "manifest.json"
    before = file.read_text()
    values = json.loads(before)
    del values["sha256"]
    place = values
    for key in field[:-1]:
        place = place[key]
    place[field[-1]] = value
    file.write_text(json.dumps(values | {"sha256": digests.of_json(values)}))
    with contextlib.suppress(StatisticsError):
        read(folder)
    file.write_text(before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_examples": 0}, "expected numbers of examples > 0"),
        ({"num_examples": True}, "expected numbers of examples > 0"),
        ({"fingerprint": {}}, "fingerprint: expected a schedule, got none"),
        ({"shards": (store.Shard("../x", "0", 8),)}, "shards: expected names of files"),
        ({"shards": (store.Shard("a\0b", "0", 8),)}, "expected the path of a file, got none"),
        ({"shards": (store.Shard(SHARDS[0], "0", -1),)}, "expected numbers of examples > 0"),
    ],
)
def test_manifests_that_cannot_be_are_refused(tmp_path, changes, message):
    refused(write(tmp_path / "statistics", [tensors(0), tensors(1)], **changes), message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "expected num_particles, dim >= 1"),
        ({"directions": ("weaker",)}, "directions: expected different names after 'uncond'"),
        ({"directions": ("uncond", "a", "a")}, "directions: expected different names"),
    ],
)
def test_layouts_that_cannot_be_are_refused(settings, message):
    with pytest.raises(StatisticsError, match=message):
        Layout(**({"dim": 3} | settings))


def test_a_folder_may_be_copied(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    np.testing.assert_array_equal(read(tmp_path / "copy").gram, read(folder).gram)
    assert set(load((folder / SHARDS[0]).read_bytes())) == {"t", "gram", "source", "c"}
