"""Guidance as a file: what is read is what was saved, and nothing else is read."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save as serialize

import lgd
from lgd import schedules
from lgd.encoders import Labels, Nothing, Several, Tokens, Vectors
from lgd.exchange import files
from lgd.exchange.files import FileError, load, register, save
from lgd.machinery import digests, storage
from lgd.omega import (
    BinTable,
    ByLabel,
    Guidance,
    Nearest,
    Network,
    PerDirection,
    StepTable,
    Support,
)

FLOW = schedules.rectified_flow()
KEY = jax.random.key(0)
LABELS, VECTORS = jnp.arange(3), jnp.asarray([[0.0, 0.5], [1.0, 2.0], [-1.0, 3.0]])
TOKENS = {"tokens": jnp.ones((3, 4, 2)), "mask": jnp.arange(12).reshape(3, 4) % 2 == 0}
SUPPORT = Support(s_min=0.05, gap_max=0.5)
SMALL = {"width": 4, "depth": 1, "support": SUPPORT}


def network(schedule, encoder, **settings):
    return Network(schedule=schedule, encoder=encoder, **(SMALL | settings))


MODELS = {  # by name, with conditions that they take
    "steps": (StepTable(times=(1.0, 0.7, 0.0), rows=ByLabel(3), init_omega=1 / 3), LABELS),
    "one row": (StepTable(times=(1.0, 0.0), omega_max=float("inf")), VECTORS),
    "bins": (BinTable(support=SUPPORT, rows=Nearest(2), num_bins=3), VECTORS),
    "labels": (network(FLOW, Labels(3)), LABELS),
    "vectors": (network(schedules.cosine(), Vectors(2), output="softplus"), VECTORS),
    "tokens": (network(schedules.linear_vp(0.2, 15.0), Tokens(2)), TOKENS),
    "several": (
        network(schedules.edm(0.01), Several({"b": Nothing(), "a": Labels(3)})),
        {"a": LABELS, "b": VECTORS},
    ),
}
MODELS["directions"] = (PerDirection(models=(MODELS["steps"][0], MODELS["labels"][0])), LABELS)


def moved(params, dtype=jnp.float32):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(0.3 + 0.5 * rng.uniform(size=x.shape), dtype), params)


def learned(name="steps", **settings):
    model, c = MODELS[name]
    return Guidance(model, moved(model.init(KEY, c)), "constant(0.2)", **settings)


def same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", MODELS)
def test_what_is_read_is_what_was_saved(name, tmp_path):
    it = learned(
        name,
        schedule=schedules.edm(sigma_max=50.0),
        history={"loss": [0.5, float("nan")], "step": np.arange(2), "best": (1, None, True)},
        provenance={"data": "dïgits", "commit": "0123"},
    )
    file = tmp_path / "more" / "guidance.safetensors"
    save(it, str(file))
    found = load(file)
    assert (found.model, found.schedule, found.start) == (it.model, it.schedule, it.start)
    assert type(found.model) is type(it.model)
    same(found.params, it.params)
    assert found.provenance == it.provenance
    assert repr(found.history) == "{'best': (1, None, True), 'loss': [0.5, nan], 'step': [0, 1]}"
    c = MODELS[name][1]
    np.testing.assert_array_equal(found(0.6, 0.2, c), it(0.6, 0.2, c))
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("schedule", [make() for make in schedules.BY_NAME.values()], ids=repr)
def test_every_schedule_of_the_library_is_known(schedule, tmp_path):
    save(learned(schedule=schedule), tmp_path / "a")
    assert load(tmp_path / "a").schedule == schedule


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_every_dtype_survives(dtype, tmp_path):
    table = MODELS["steps"][0]
    params = {
        "values": jnp.asarray(np.arange(6).reshape(3, 2) / 4, dtype),
        "scalar": jnp.ones((), dtype),
    }
    save(Guidance(table, params, "fit"), tmp_path / "a")
    same(load(tmp_path / "a").params, params)


@pytest.mark.slow
def test_a_fresh_process_reads_the_same_values(tmp_path):
    """Without anything but the file."""
    names = ("directions", "tokens")
    for name in names:
        save(learned(name), tmp_path / name)
    code = """
        import sys
        import jax.numpy as jnp
        from lgd.exchange.files import load
        labels = jnp.arange(3)
        tokens = {"tokens": jnp.ones((3, 4, 2)), "mask": jnp.arange(12).reshape(3, 4) % 2 == 0}
        for file, c in zip(sys.argv[1:], (labels, tokens), strict=True):
            print(load(file)(0.6, 0.2, c).ravel().tolist())
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *(str(tmp_path / n) for n in names)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    for line, name in zip(result.stdout.splitlines(), names, strict=True):
        expected = learned(name)(0.6, 0.2, MODELS[name][1]).ravel()
        np.testing.assert_allclose(json.loads(line), expected, rtol=1e-6)


def test_others_can_read_the_description_and_the_tensors(tmp_path):
    save(learned("labels", schedule=FLOW), tmp_path / "a")
    with safe_open(tmp_path / "a", framework="np") as file:
        described = json.loads(file.metadata()["description"])
        assert "params/Dense_0/kernel" in set(file.keys())
    assert (described["format"], described["lgd"]) == (1, lgd.__version__)
    assert "cfg_scale = 1 + omega" in described["convention"]
    assert described["schedule"] == {"class": "RectifiedFlow", "fields": {}}
    assert described["model"]["fields"]["encoder"]["fields"] == {"num_classes": 3}


# Damage


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The bytes of a small file."""
    file = tmp_path_factory.mktemp("files") / "a"
    save(learned(history={"loss": [1.0]}), file)
    return file.read_bytes()


def refused(path, raw, match):
    path.write_bytes(raw)
    with pytest.raises(FileError, match=match) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: expected")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("flip", [0x01, 0x20, 0x2A, 0x80, 0xFF])
def test_a_byte_that_was_flipped_is_noticed_anywhere(flip, written, tmp_path):
    for i in range(len(written)):
        raw = bytearray(written)
        raw[i] ^= flip
        refused(tmp_path / "a", bytes(raw), "expected")


def test_a_file_that_was_cut_or_grew_is_noticed(written, tmp_path):
    for size in range(0, len(written), 7):
        refused(tmp_path / "a", written[:size], "expected a guidance")
    refused(tmp_path / "a", written + b"\0", "no safetensors file, or a damaged one")
    refused(tmp_path / "a", written[:-4] + b"\0" * 4, "its tensors differ")
    refused(tmp_path / "a", written.replace(b"constant(0.2)", b"constant(0.3)"), "its description")


def test_other_files_are_refused(tmp_path):
    values = {"values": np.ones((3, 2), np.float32)}
    refused(tmp_path / "a", serialize(values, {"format": "np"}), "of something else, without a")
    refused(tmp_path / "a", serialize(values), "of something else, without a")
    for raw in (b"", b"{}", b"\xff" * 64):
        refused(tmp_path / "a", raw, "no safetensors file, or a damaged one")
    refused(tmp_path / "a", b"PK\x03\x04" + b"\0" * 30, "a zip archive, as PyTorch saves")
    refused(tmp_path / "a", b"\x80\x04K\x01.", "a pickle")
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    refused(tmp_path / "a", len(deep).to_bytes(8, "little") + deep, "no safetensors file")


def test_parameters_without_their_model_are_refused_with_the_way_to_convert_them(tmp_path):
    it, file = learned(), tmp_path / "old.safetensors"
    storage.save_params(file, it.params)
    with pytest.raises(
        FileError, match=r"holds parameters without their model.*lgd\.save"
    ) as error:
        load(file)
    assert "lgd.machinery.storage.load_params(path, jax.eval_shape(model.init, key, c))" in str(
        error.value
    )
    params = storage.load_params(file, jax.eval_shape(it.model.init, KEY, LABELS))
    save(Guidance(it.model, params, start="0.1"), file)
    same(load(file).params, it.params)


def described_otherwise(written, **changes):
    """The file with another description, and a digest that fits."""
    size = int.from_bytes(written[:8], "little")
    text = json.loads(written[8 : 8 + size])["__metadata__"]["description"]
    text = json.dumps(json.loads(text) | changes)
    metadata = {"description": text, "description_sha256": digests.of_bytes(text.encode())}
    values = np.asarray(learned().params["values"])
    return serialize({"values": values}, metadata)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 2, "lgd": "9.0"}, "expected format 1, got 2, written by lgd 9.0"),
        ({"convention": "cfg_scale = omega"}, "expected the convention 'cfg_scale = 1 [+] omega"),
        ({"model": {"class": "Mine", "fields": {}}}, "expected registered classes, got 'Mine'"),
        ({"model": {"class": "StepTable", "fields": {"times": 3}}}, "the description of a"),
        ({"model": {"class": "Nearest", "fields": {"num_rows": 0}}}, "num_rows >= 1, got 0"),
        ({"schedule": {"class": "Cosine", "fields": {"shift": 1}}}, "unexpected keyword"),
        ({"history": None, "tensors_sha256": None}, "its tensors differ"),
        ({"provenance": {"dict": {"a": {}}}}, r"an object of \[\]"),
        ({"model": {"eval": "1"}}, r"an object of \['eval'\]"),
        ({"params": {"dict": {"values": {"class": "TensorName", "fields": {"name": "x"}}}}}, "'x'"),
    ],
)
def test_descriptions_of_something_else_are_refused(changes, match, written, tmp_path):
    refused(tmp_path / "a", described_otherwise(written, **changes), match)


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a guidance .*, found none"):
        load(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(FileError, match="got no regular file"):
            load(path)
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(files.MAX_BYTES + 1)
    with pytest.raises(FileError, match=f"of at most {files.MAX_BYTES} bytes, got"):
        load(tmp_path / "large")


# What no file can hold


@dataclasses.dataclass(frozen=True)
class Shifted:
    """A schedule of a user, not registered."""

    shift: float = 3.0

    def alpha(self, t):
        return 1.0 - self.sigma(t)

    def sigma(self, t):
        return self.shift * t / (1.0 + (self.shift - 1.0) * t)

    def logsnr(self, t):
        return 2.0 * jnp.log(self.alpha(t) / self.sigma(t))

    def t_from_logsnr(self, logsnr):
        sigma = jax.nn.sigmoid(-0.5 * logsnr)
        return sigma / (self.shift - (self.shift - 1.0) * sigma)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wider(StepTable):
    """A model of a user, not registered."""


class Pair(NamedTuple):
    values: jax.Array


TABLE = MODELS["steps"][0]
VALUES = {"values": jnp.ones((3, 2))}
REFUSED = {
    "model": (Guidance(Wider(times=(1.0, 0.0)), VALUES, "fit"), "test_exchange.Wider: register it"),
    "schedule": (learned(schedule=Shifted()), "test_exchange.Shifted: register it by lgd.exchange"),
    "inside": (Guidance(network(Shifted(), Labels(3)), VALUES, "fit"), "Shifted: register"),
    "tree": (Guidance(TABLE, Pair(jnp.ones(3)), "fit"), "test_exchange.Pair: register"),
    "nan": (Guidance(TABLE, {"values": jnp.full(3, jnp.nan)}, "fit"), "values: expected finite"),
    "leaf": (Guidance(TABLE, {"values": 1.0}, "fit"), "values: expected an array of numbers"),
    "key": (Guidance(TABLE, {"values": KEY}, "fit"), "values: expected an array of numbers"),
    "history": (learned(history={"fn": print}), "got builtins.builtin_function_or_method"),
    "size": (
        Guidance(TABLE, {"values": np.zeros(files.MAX_BYTES // 4, np.float32)}, "fit"),
        "expected at most",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_file_can_hold_is_refused_before_anything_is_written(name, tmp_path):
    it, match = REFUSED[name]
    with pytest.raises(FileError, match=match) as error:
        save(it, tmp_path / "a")
    assert str(error.value).startswith(f"{tmp_path / 'a'}: ")
    assert list(tmp_path.iterdir()) == []


def test_provenance_is_text(tmp_path):
    provenance = {"data": "digits"}
    it = learned(provenance=provenance)
    provenance["seed"] = 3
    with pytest.raises(FileError, match=r"provenance: expected text, got \{'seed': 3\}"):
        save(it, tmp_path / "a")


def test_classes_of_a_user_are_kept_once_they_are_registered(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_CLASSES", dict(files._CLASSES))

    @register
    @dataclasses.dataclass(frozen=True)
    class Own(Shifted):
        pair: Pair = Pair(2)

    assert register(Pair) is Pair
    it = learned(schedule=Own(shift=2.0))
    save(it, tmp_path / "a")
    assert load(tmp_path / "a").schedule == it.schedule
    monkeypatch.delitem(files._CLASSES, "Own")
    with pytest.raises(FileError, match="expected registered classes, got 'Own'"):
        load(tmp_path / "a")

    class StepTable(NamedTuple):
        values: int

    for cls, match in ((StepTable, "a name other than that of"), (int, "a dataclass or a Named")):
        with pytest.raises(ValueError, match=f"expected {match}"):
            register(cls)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "a"
    save(learned(), file)
    before = file.read_bytes()

    def fails(fd):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="no space left"):
        save(learned("labels"), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
