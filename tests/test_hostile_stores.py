"""Checkpoint stores whose sealed files were written by someone else: what they name is not done."""

import shutil

import numpy as np
import pytest

from lgd.machinery import ledger
from lgd.machinery.checkpoint import COMMIT_FILE, LEDGER_FILE, CheckpointStore
from lgd.machinery.json_file import MAX_DEPTH

STATE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved")
    with CheckpointStore(root) as store:
        store.save(1, STATE, {"at": 1})
        store.save(2, STATE, {"at": 2})
    return root


@pytest.fixture
def root(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "store")


def restored_step(root):
    with CheckpointStore(root) as store:
        restored = store.restore(STATE)
    return restored and restored.step


def named(name):
    """A change that lets the first file have another name."""

    def change(commit):
        first = next(iter(commit["files"]))
        commit["files"] = {name.format(first): commit["files"][first], **commit["files"]}

    return change


def deep():
    value = []
    for _ in range(MAX_DEPTH):
        value = [value]
    return value


COMMITS = {
    "a device": named("/dev/zero"),
    "a file outside": named("../1/{}"),
    "a file outside by way of the state": named("state/../../1/{}"),
    "a file twice": named("./{}"),
    "a name of nothing": named(""),
    "no step": lambda commit: commit.pop("step"),
    "a step of another type": lambda commit: commit.update(step=2.0),
    "a field more": lambda commit: commit.update(more=1),
    "files as a list": lambda commit: commit.update(files=list(commit["files"])),
    "leaves as a number": lambda commit: commit.update(leaves=7),
    "a sum that is no text": lambda commit: commit["leaves"].update(w=None),
    "metadata as a text": lambda commit: commit.update(metadata="at"),
    "nothing": lambda commit: commit.clear(),
}


@pytest.mark.parametrize("case", COMMITS)
def test_a_sealed_commit_of_anything_else_is_damage(root, case):
    file = root / "2" / COMMIT_FILE
    commit = ledger.unseal(file.read_bytes(), COMMIT_FILE)
    COMMITS[case](commit)
    file.write_bytes(ledger.seal(commit))
    (root / LEDGER_FILE).unlink()  # which knows the right sum
    assert restored_step(root) == 1


LINES = (
    {},
    {"step": 1},
    {"step": "2", "commit": "x"},
    {"step": None, "damage": "x"},
    {"step": -1, "commit": "x"},
    {"step": 10**30, "commit": "x"},
    {"step": [2], "commit": "x"},
    {"step": 2, "commit": 3},
    {"step": 2, "commit": "x", "damage": "y"},
)


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_sealed_line_of_anything_else_is_named_and_costs_no_step(root, line):
    store_ledger = ledger.Ledger(root / LEDGER_FILE)
    store_ledger.append(line)
    assert restored_step(root) == 2
    shutil.rmtree(root / "1")
    shutil.rmtree(root / "2")
    with pytest.raises(RuntimeError, match="LEDGER: got the line"):
        restored_step(root)


@pytest.mark.parametrize("text", [b"[]", b"3", b"[" * 10**6, b"9" * 10**5, b"nothing"])
def test_a_seal_around_other_json_is_damage(text):
    sealed = ledger.digests.of_bytes(text).encode() + b" " + text
    with pytest.raises(ledger.DamagedError, match="LEDGER: "):
        ledger.unseal(sealed, "LEDGER")


UNREADABLE = {"NaN": float("nan"), "deep": deep(), "long": 10**200, "half": "\ud800"}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_back_is_refused_at_saving(tmp_path, value):
    with CheckpointStore(tmp_path) as store:
        store.save(1, STATE)
        with pytest.raises(RuntimeError, match="step 2 was not saved"):
            store.save(2, STATE, {"value": value})
        assert store.restore(STATE).step == 1
