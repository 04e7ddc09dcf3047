"""Tensors in files that PyTorch saved, read without PyTorch: whole, damaged and hostile ones."""

import pickle
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_files import (
    FORMATS,
    Payload,
    storage_bytes,
    tensor_program,
    torch_bytes,
    unicode,
    zipped,
)

from lgd.metrics.inception import torch_file


def normal(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture
def small():
    return {
        "a.weight": normal((2, 3, 1, 5)),
        "a.turned": normal((3, 4)).T,
        "a.count": np.asarray(7, np.int64),
    }


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_are_read_as_they_were_saved(tmp_path, small, form):
    file = tmp_path / "small.pth"
    file.write_bytes(torch_bytes(small, form))
    found = torch_file.read(file)
    assert list(found) == list(small)
    for name, values in small.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_with_code_in_it_is_refused_and_never_run(tmp_path, small, form, protocol):
    file, made = tmp_path / "evil.pth", tmp_path / "made"
    program = pickle.dumps({"a.weight": Payload(made)}, protocol=protocol)
    file.write_bytes(FORMATS[form][0](program, small))
    with pytest.raises(ValueError, match=f"{file}: expected tensors .*: refused, nothing was run"):
        torch_file.read(file)
    assert not made.exists()
    pickle.loads(program)
    assert made.exists()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (b"\x80\x02cos\nsystem\n(X\x01\x00\x00\x00xtR.", "the name os.system"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "a _Name in the place of a dict"),
        (b"\x80\x02X\x17\x00\x00\x00collections.OrderedDict)R.", "a str in the place of a Name"),
        (b"\x80\x02(ios\nsystem\n.", "the instruction INST"),
        (b"\x80\x02(cos\nsystem\no.", "the name os.system"),
        (b"\x80\x02K\x01.", "a dictionary of tensors, got int"),
        (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "a: expected a tensor, got int"),
        (b"\x80\x02K\x01", "pickle"),
        (b"\x80\x02t.", "pop from empty list"),
    ],
)
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path, program, words):
    file = tmp_path / "other.pth"
    file.write_bytes(zipped(program, {}))
    with pytest.raises(ValueError, match=f"{file}: expected tensors saved by PyTorch: .*{words}"):
        torch_file.read(file)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 1},
        {"offset": -1},
        {"strides": (15, 5, 5, 2)},
        {"strides": (-15, 5, 5, 1)},
        {"shape": (2, 3, 1, 6)},
        {"shape": (2, 3, 1)},
        {"shape": (2, 3, 1, 50), "strides": (0, 0, 0, 0)},
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path, form, changes):
    file = tmp_path / "beyond.pth"
    file.write_bytes(torch_bytes({"a": normal((2, 3, 1, 5))}, form, **changes))
    with pytest.raises(ValueError, match=f"{file}: expected tensors saved by PyTorch"):
        torch_file.read(file)


@settings(max_examples=300, deadline=None, database=None)
@given(st.data())
def test_damaged_files_are_refused_by_name_or_read(damaged, data):
    file, whole = damaged
    raw = bytearray(data.draw(st.sampled_from(whole)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    try:
        found = torch_file.read(file)
    except ValueError as refusal:
        assert str(refusal).startswith(f"{file}: expected ")  # noqa: PT017
    else:
        assert all(isinstance(values, np.ndarray) for values in found.values())


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    tensors = {"a": normal((2, 3)), "b": np.asarray(7, np.int64)}
    file = tmp_path_factory.mktemp("damaged") / "damaged.pth"
    return file, [torch_bytes(tensors, form) for form in FORMATS]


# Files of at most 16 MB that would crash the reader, fill the memory, or take for ever

LARGEST = 16 * 10**6


def nested_tuples(count):
    """A tuple as the key of a dictionary, so deep that Python's hash of it overflows the stack."""
    return b"\x80\x02})" + b"\x85" * count + b"K\x01s."


def doubled_lists(count):
    """Lists that hold the one before twice: 2^count values to show or compare."""
    lists = (b"]r" + struct.pack("<I", k) + b"(" + 2 * (b"j" + struct.pack("<I", k - 1)) + b"e"
             for k in range(1, count))  # fmt: skip
    return b"\x80\x02]q\x00" + b"".join(lists) + b"."


def one_storage(count, size):
    """Tensors that are each all of the same storage."""
    program = tensor_program("0", np.zeros(size, np.float32), False)
    items = b"".join(unicode(str(k)) + program for k in range(count))
    return b"\x80\x02}(" + items + b"u."


def state(name, *, shape):
    """A dictionary of one tensor."""
    program = tensor_program("0", np.zeros(1, np.float32), False, shape=shape, strides=shape)
    return b"\x80\x02}(" + unicode(name) + program + b"u."


MANY = "more than 131072 instructions"
HOSTILE = {
    "deep key": (nested_tuples(2_000_000), "a tuple in a tuple"),
    "doubled lists": (doubled_lists(200), "a list in a list"),
    "doubled lists as the magic number": (doubled_lists(200), "a list in a list"),
    "tuple as key": (b"\x80\x02}K\x01\x85K\x01s.", "a tuple in the keys"),
    "millions of lists": (b"\x80\x02" + b"]" * (LARGEST - 1000), MANY),
    "millions of names": (b"\x80\x02)" + b"q\x00" * 7_000_000, MANY),
    "a name of megabytes": (b"\x80\x02c" + b"a " * 7_000_000 + b"\nb\n.", "the name a.a.a"),
    "a text of megabytes": (b"\x80\x02}" + unicode("a " * 7_000_000) + b"K\x01s.", "a a a"),
    "large dimensions": (state("a", shape=(0, *[2**31 - 1] * 7)), "too big"),
    "many dimensions": (state("a", shape=[1] * 9), "up to 8 numbers"),
    "views of one storage": (one_storage(2000, 10**6), "together larger than the file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_little_time(tmp_path, case):
    program, words = HOSTILE[case]
    values = {"0": np.zeros(10**6 if "views" in case else 1, np.float32)}
    raw = program if "magic" in case else zipped(program, values)
    assert len(raw) <= LARGEST
    (tmp_path / "a.pth").write_bytes(raw)
    began = time.process_time()
    with pytest.raises(ValueError, match=words) as refusal:
        torch_file.read(tmp_path / "a.pth")
    assert time.process_time() - began < 20.0
    assert len(str(refusal.value)) < 1000


def test_storages_that_share_their_bytes_are_refused(tmp_path):
    """Entries of an archive whose places are those of the first one."""
    values = np.zeros(10**5, np.float32)
    keys = [str(k) for k in range(50)]
    items = b"".join(unicode(key) + tensor_program(key, values, False) for key in keys)
    raw = bytearray(zipped(b"\x80\x02}(" + items + b"u.", {"0": values}))
    end = raw.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", raw[end + 16 : end + 20])[0]
    entries = raw[start:end].split(b"PK\x01\x02")[1:]
    first = next(entry for entry in entries if entry.endswith(b"archive/data/0"))
    others = []
    for key in keys[1:]:
        name = f"archive/data/{key}".encode()
        others.append(
            b"PK\x01\x02" + first[:24] + struct.pack("<H", len(name)) + first[26:42] + name
        )
    tail = bytearray(raw[end:])
    tail[8:12] = struct.pack("<HH", len(entries) + len(others), len(entries) + len(others))
    tail[12:16] = struct.pack("<I", end - start + sum(map(len, others)))
    (tmp_path / "a.pth").write_bytes(raw[:end] + b"".join(others) + tail)
    with pytest.raises(ValueError, match="storages that are together larger than the file"):
        torch_file.read(tmp_path / "a.pth")
    assert len(storage_bytes(values)) * len(keys) > len(raw)
