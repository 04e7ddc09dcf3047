import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lgd.storage import load_params, save_params


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


def test_tensors_are_named_by_their_path(saved):
    assert {"dense/kernel", "pair/means", "layers/1/0"} < set(load_file(saved))


def test_missing_file_is_named(tmp_path):
    file = tmp_path / "none.safetensors"
    with pytest.raises(FileNotFoundError, match=f"{file}: expected a safetensors file, found none"):
        load_params(file, tree())
    with pytest.raises(FileNotFoundError, match="expected a safetensors file"):
        load_params(tmp_path, tree())


def cut(raw):
    return raw[: len(raw) // 2]


@pytest.mark.parametrize(
    "damage", [cut, lambda raw: b"", lambda raw: b"PK" + raw, lambda raw: raw[:-1]]
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

    def crash(tensors, path):
        path.write_bytes(b"half of")
        raise OSError("disk full")

    monkeypatch.setattr("lgd.storage.save_file", crash)
    with pytest.raises(OSError, match="disk full"):
        save_params(saved, tree(3.0))
    assert load_params(saved, tree())["layers"][0] == 2.0
