import hashlib
import os
import pickle
import zipfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lgd.machinery.files import InputFileError
from lgd.machinery.storage import load_params, save_params


class Pair(NamedTuple):
    means: jax.Array
    weights: jax.Array


def tree(value=1.0):
    return {
        "dense": {"kernel": jnp.full((2, 3), value), "bias": jnp.arange(3.0)},
        "pair": Pair(jnp.asarray([[value, -1.0]]), jnp.asarray([2, 3], jnp.int32)),
        "layers": [jnp.asarray(value), (jnp.zeros((0, 4)), np.full(2, 0.1, np.float16))],
    }


@pytest.fixture
def saved(tmp_path):
    file = tmp_path / "some" / "folder" / "denoiser.safetensors"
    save_params(file, tree())
    return file


@pytest.mark.parametrize("by_shape", [False, True])
def test_round_trip(saved, by_shape):
    like = jax.eval_shape(tree) if by_shape else tree(0.0)
    loaded = load_params(saved, like)
    assert jax.tree.structure(loaded) == jax.tree.structure(tree())
    assert isinstance(loaded["pair"], Pair)
    for got, expected in zip(jax.tree.leaves(loaded), jax.tree.leaves(tree()), strict=True):
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("length", range(1, 140, 7))
def test_round_trip_of_any_length_of_header(tmp_path, length):
    """The first byte of the file is a part of it, and may be one that a pickle starts with."""
    params = {"x" * length: jnp.ones(1), "y" * 50: jnp.ones(1)}
    save_params(tmp_path / "params.safetensors", params)
    load_params(tmp_path / "params.safetensors", params)


def test_tensors_are_named_by_their_path(saved):
    assert {"dense/kernel", "pair/means", "layers/1/0"} < set(load_file(saved))


def test_missing_file_is_named(tmp_path):
    file = tmp_path / "none.safetensors"
    with pytest.raises(FileNotFoundError, match=f"{file}: expected a safetensors file, found none"):
        load_params(file, tree())
    with pytest.raises(
        InputFileError, match="expected a safetensors file, got no regular file: a folder"
    ):
        load_params(tmp_path, tree())


def cut(raw):
    return raw[: len(raw) // 2]


@pytest.mark.parametrize(
    "damage", [cut, lambda raw: b"", lambda raw: b"{}" + raw, lambda raw: raw[:-1]]
)
def test_damaged_file_is_named(saved, damage):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(ValueError, match=f"{saved}: expected a safetensors file, got a damaged"):
        load_params(saved, tree())


def without(tensors):
    del tensors["dense/bias"]


def further(tensors):
    tensors["dense/scale"] = np.ones(2, np.float32)


def reshaped(tensors):
    tensors["dense/kernel"] = tensors["dense/kernel"].T.copy()


def doubled(tensors):
    tensors["dense/kernel"] = tensors["dense/kernel"].astype(np.float64)


def not_a_number(tensors):
    tensors["pair/means"][0, 1] = np.nan


def infinite(tensors):
    tensors["layers/0"] = np.asarray(np.inf, np.float32)


@pytest.mark.parametrize(
    ("change", "tensor", "message"),
    [
        (without, "dense/bias", "expected a tensor 'dense/bias', got only .*'dense/kernel'"),
        (further, "dense/scale", r"expected no further tensors, got \['dense/scale'\]"),
        (reshaped, "dense/kernel", r"expected float32 \(2, 3\), got float32 \(3, 2\)"),
        (doubled, "dense/kernel", r"expected float32 \(2, 3\), got float64 \(2, 3\)"),
        (not_a_number, "pair/means", "expected finite values, got"),
        (infinite, "layers/0", "expected finite values, got"),
    ],
)
def test_what_does_not_fit_is_named(saved, change, tensor, message):
    tensors = load_file(saved)
    change(tensors)
    save_file(tensors, saved)
    with pytest.raises(ValueError, match=message) as refusal:
        load_params(saved, tree())
    assert str(refusal.value).startswith(f"{saved}: ")
    assert tensor in str(refusal.value)


def test_existing_file_is_replaced_as_a_whole(saved, monkeypatch):
    save_params(saved, tree(2.0))
    assert os.listdir(saved.parent) == [saved.name]
    assert load_params(saved, tree())["layers"][0] == 2.0

    def crash(handle):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        save_params(saved, tree(3.0))
    assert load_params(saved, tree())["layers"][0] == 2.0
    assert os.listdir(saved.parent) == [saved.name]


def test_a_flipped_bit_of_any_byte_is_seen(saved):
    """In the header it may also hit what nothing depends on: then all is as it was."""
    raw, expected = saved.read_bytes(), tree()
    size = 8 + int.from_bytes(raw[:8], "little")
    for place in range(0, len(raw)):
        saved.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        try:
            loaded = load_params(saved, expected)
        except ValueError as refusal:
            assert str(refusal).startswith(f"{saved}: expected ")  # noqa: PT017
        else:
            assert place < size
            jax.tree.map(np.testing.assert_array_equal, loaded, expected)


class Payload:
    """What a pickle may do when it is opened: here, make a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def pickled(file, payload):
    file.write_bytes(pickle.dumps({"dense/kernel": payload}))


def as_torch_saves(file, payload):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(payload))


def as_old_torch_saved(file, payload):
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    file.write_bytes(magic + pickle.dumps(payload))


def as_numpy_saves(file, payload):
    with file.open("wb") as stream:
        np.save(stream, np.asarray([payload], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (pickled, "a pickle"),
        (as_torch_saves, "a zip archive, as PyTorch saves"),
        (as_old_torch_saved, "a pickle"),
        (as_numpy_saves, "a NumPy file"),
    ],
)
def test_files_with_code_in_them_are_refused_and_never_run(tmp_path, write, kind):
    file, made = tmp_path / "weights.safetensors", tmp_path / "made"
    write(file, Payload(made))
    with pytest.raises(ValueError, match=f"{file}: expected a safetensors file, got {kind}: not"):
        load_params(file, tree())
    assert not made.exists()


def test_the_payload_would_have_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "made")))
    assert (tmp_path / "made").exists()


def test_a_file_of_another_hash_is_refused(saved):
    right = hashlib.sha256(saved.read_bytes()).hexdigest()
    load_params(saved, tree(), sha256=right)
    with pytest.raises(ValueError, match=f"{saved}: expected a file of sha256 {'0' * 64}, got"):
        load_params(saved, tree(), sha256="0" * 64)


def test_a_file_without_a_digest_is_read(saved):
    """As other programs write it."""
    save_file(load_file(saved), saved)
    assert load_params(saved, tree())["layers"][0] == 1.0


@settings(max_examples=200, deadline=None, database=None)
@given(st.data())
def test_anything_at_all_is_refused_by_name_or_read_as_it_was_saved(file_of_bytes, data):
    file, raw = file_of_bytes
    cut = data.draw(st.integers(0, len(raw)))
    more = data.draw(st.binary(max_size=40))
    junk = data.draw(st.sampled_from([raw[:cut] + more + raw[cut:], raw[:cut] + more, more + raw]))
    file.write_bytes(junk)
    try:
        loaded = load_params(file, tree())
    except ValueError as refusal:
        assert str(refusal).startswith(f"{file}: expected ")  # noqa: PT017
    else:
        jax.tree.map(np.testing.assert_array_equal, loaded, tree())


@pytest.fixture(scope="module")
def file_of_bytes(tmp_path_factory):
    file = tmp_path_factory.mktemp("bytes") / "params.safetensors"
    save_params(file, tree())
    return file, file.read_bytes()
