import errno
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lgd.machinery.checkpoint import (
    COMMIT_FILE,
    LEDGER_FILE,
    QUARANTINE,
    CheckpointError,
    CheckpointStore,
)
from lgd.machinery.digests import of_tree


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "flipped": flip,
    "deleted": Path.unlink,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "junk": lambda path: path.write_text('{"step": [}'),
}


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


def make_state(seed=0):
    rng = np.random.default_rng(seed)
    params = {
        "w/kernel": jnp.asarray(rng.normal(size=(8, 16)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
        "empty": jnp.zeros((0, 3)),
    }
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    return {
        "params": params,
        "opt": tx.init(params),
        "pair": Pair(jnp.asarray(seed, jnp.int32), jnp.asarray(True)),
        "host": [np.arange(5) + seed, np.float64(seed), None],
    }


def damages(caplog):
    found = [
        r for r in caplog.records if r.name == "lgd.machinery.checkpoint" and "damaged" in r.message
    ]
    assert all(record.levelno == logging.WARNING for record in found)
    return [record.message for record in found]


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved")
    with CheckpointStore(root) as store:
        store.save(1, make_state(1), {"at": 1})
        store.save(2, make_state(2), {"at": 2})
    return root


@pytest.fixture
def root(two_steps, tmp_path):
    return shutil.copytree(two_steps, tmp_path / "store")


@pytest.fixture
def store(root):
    with CheckpointStore(root) as store:
        yield store


def assert_falls_back(store, root, caplog):
    caplog.clear()
    restored = store.restore(make_state())
    assert restored.step == 1
    assert restored.metadata == {"at": 1}
    assert of_tree(restored.state) == of_tree(make_state(1))
    assert store.steps() == [1]
    (message,) = damages(caplog)
    assert f"{root}/2 " in message
    caplog.clear()
    assert store.restore(make_state()).step == 1
    assert not caplog.records


# --- round trips


def test_state_and_metadata_come_back_exactly(store):
    step, state, metadata = store.restore(make_state())
    assert (step, metadata) == (2, {"at": 2})
    expected = make_state(2)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    assert of_tree(state) == of_tree(expected)
    for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert isinstance(got, jax.Array) == isinstance(want, jax.Array)
        assert (got.dtype, got.shape) == (want.dtype, want.shape)


def test_like_may_be_abstract(store):
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), make_state())
    state = store.restore(like).state
    assert of_tree(state) == of_tree(make_state(2))
    assert isinstance(state["params"]["half"], jax.Array)
    assert state["host"][0].dtype == np.int64


def test_leaves_take_the_sharding_of_like(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, copies = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), ()))
    value = jnp.arange(32.0).reshape(8, 4)
    state = {"rows": jax.device_put(value, rows), "free": value}
    with CheckpointStore(tmp_path) as store:
        store.save(0, state)
        same = store.restore(state).state
        moved = store.restore(
            {
                "rows": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=copies),
                "free": jax.device_put(value, rows),
            }
        ).state
    assert of_tree(same) == of_tree(moved) == of_tree(state)
    assert same["rows"].sharding == moved["free"].sharding == rows
    assert moved["rows"].sharding == copies
    assert not same["free"].committed
    np.testing.assert_array_equal(same["rows"] + same["free"], 2 * value)


def test_restored_state_can_be_donated(store):
    def step(params):
        return jax.tree.map(lambda leaf: leaf * 2 + 1, params)

    params = store.restore(make_state()).state["params"]
    donated = jax.jit(step, donate_argnums=0)(params)
    assert of_tree(donated) == of_tree(jax.jit(step)(make_state(2)["params"]))


# --- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["params"].update(more=jnp.ones(2)), r"\['more'\]: expected float32\[2\], got"),
        (lambda s: s["params"].pop("half"), r"\['half'\]: expected None, got bfloat16\[4\]"),
        (
            lambda s: s["params"].update(half=jnp.ones(4)),
            r"\['half'\]: expected float32\[4\], got bfloat16\[4\]",
        ),
        (
            lambda s: s["params"].update(half=jnp.ones((4, 1), jnp.bfloat16)),
            r"\['half'\]: expected bfloat16\[4, 1\], got bfloat16\[4\]",
        ),
        (lambda s: s.update(pair=tuple(s["pair"])), r"\['pair'\]\.first: expected None, got int32"),
    ],
    ids=["added", "removed", "dtype", "shape", "tree"],
)
def test_another_structure_is_an_error_not_a_fallback(store, root, change, message):
    like = make_state()
    change(like)
    with pytest.raises(CheckpointError, match=message):
        store.restore(like)
    assert store.steps() == [1, 2]
    assert not (root / QUARANTINE).exists()


@pytest.mark.parametrize(
    "bad",
    [
        jnp.asarray([1.0, jnp.nan]),
        jnp.asarray(-jnp.inf, jnp.bfloat16),
        np.asarray([np.inf]),
        np.asarray(complex(0, np.nan)),
    ],
    ids=["nan", "bfloat16", "numpy", "complex"],
)
def test_non_finite_states_are_refused(store, bad):
    with pytest.raises(CheckpointError, match=r"step 3: leaf \['mu'\]\[1\]: expected finite"):
        store.save(3, {"mu": [jnp.ones(2), bad]})
    assert store.steps() == [1, 2]


@pytest.mark.parametrize("leaf", [1.5, "text", jax.random.key(0), np.asarray(["text"])])
def test_leaves_that_are_not_numbers_are_refused(store, leaf):
    with pytest.raises(CheckpointError, match=r"leaf \['x'\]: expected numbers"):
        store.save(3, {"x": leaf})


@pytest.mark.parametrize("metadata", [{"loss": float("nan")}, {"x": object()}])
def test_metadata_that_is_not_json_leaves_no_step(store, root, metadata):
    with pytest.raises(CheckpointError, match="step 3 was not saved"):
        store.save(3, make_state(3), metadata)
    assert store.steps() == [1, 2]
    assert not (root / "3").exists()


def test_arrays_are_read_back_before_the_commit(store, root, monkeypatch):
    save, other = ocp.Checkpointer.save, ocp.args.PyTreeSave([np.zeros(2)])
    monkeypatch.setattr(
        ocp.Checkpointer, "save", lambda self, path, args: save(self, path, args=other)
    )
    with pytest.raises(CheckpointError, match=r"step 3 was not saved: leaf \['x'\]: expected"):
        store.save(3, {"x": np.ones(2)})
    assert not (root / "3").exists()


def test_saving_a_step_again(store, root):
    before = (root / "2" / COMMIT_FILE).stat().st_mtime_ns
    store.save(2, make_state(2), {"at": "another time"})
    assert (root / "2" / COMMIT_FILE).stat().st_mtime_ns == before
    with pytest.raises(CheckpointError, match="expected the state saved at 2"):
        store.save(2, make_state(3))
    with pytest.raises(CheckpointError, match=r"expected a step above \[1, 2\], got 0"):
        store.save(0, make_state(0))
    assert of_tree(store.restore(make_state()).state) == of_tree(make_state(2))


def test_the_newest_are_kept(tmp_path):
    with CheckpointStore(tmp_path, keep=3) as store:
        for step in (0, 5, 10, 100, 1000):
            store.save(step, {"x": jnp.asarray(step)})
        assert store.steps() == [10, 100, 1000]
    assert {path.name for path in tmp_path.iterdir()} == {"10", "100", "1000", LEDGER_FILE}
    with pytest.raises(ValueError, match="keep: expected at least 1, got 0"):
        CheckpointStore(tmp_path, keep=0)


# --- damage


@pytest.mark.sampled(3)
@pytest.mark.parametrize("fault", DAMAGES)
def test_a_damaged_file_means_the_step_before(two_steps, tmp_path, caplog, fault):
    files = [p.relative_to(two_steps) for p in (two_steps / "2").rglob("*") if p.is_file()]
    assert len(files) > 5
    for number, file in enumerate(files):
        root = shutil.copytree(two_steps, tmp_path / str(number))
        DAMAGES[fault](root / file)
        with CheckpointStore(root) as store:
            assert_falls_back(store, root, caplog)
        assert [path.name for path in (root / QUARANTINE).iterdir()] == ["2.0"]


def replace(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def swap_in_another_run(root: Path) -> None:
    with CheckpointStore(root.parent / "other") as other:
        other.save(2, make_state(7), {"at": 2})
    replace(root.parent / "other" / "2", root / "2")


def empty_folder(root: Path) -> None:
    shutil.rmtree(root / "2")
    (root / "2").mkdir()


@pytest.mark.parametrize(
    "fault",
    [
        empty_folder,
        lambda root: shutil.rmtree(root / "2"),
        lambda root: shutil.rmtree(root / "2" / "state"),
        lambda root: replace(root / "1", root / "2"),
        lambda root: replace(root / "1" / "state", root / "2" / "state"),
        lambda root: shutil.copy(root / "1" / COMMIT_FILE, root / "2" / COMMIT_FILE),
        swap_in_another_run,
    ],
    ids=["empty", "gone", "no state", "older step", "older state", "older commit", "other run"],
)
def test_a_damaged_folder_means_the_step_before(root, store, caplog, fault):
    fault(root)
    assert_falls_back(store, root, caplog)


def test_a_wrong_step_is_seen_without_the_ledger(root, store, caplog):
    (root / LEDGER_FILE).unlink()
    replace(root / "1", root / "2")
    assert_falls_back(store, root, caplog)


def test_the_run_goes_on_after_damage(root, store):
    flip(root / "2" / COMMIT_FILE)
    assert store.restore(make_state()).step == 1
    store.save(2, make_state(2), {"at": "second try"})
    store.save(3, make_state(3))
    flip(root / "3" / COMMIT_FILE)
    assert store.restore(make_state()).metadata == {"at": "second try"}


def test_nothing_left_is_an_error_that_lists_why(root, store):
    flip(root / "1" / COMMIT_FILE)
    (root / "2" / COMMIT_FILE).unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match="no step can be used") as error:
            store.restore(make_state())
        assert "step 1: COMMIT: its seal" in str(error.value)
        assert "step 2: COMMIT is missing" in str(error.value)
    assert len(list((root / QUARANTINE).iterdir())) == 2


def test_starting_over_where_nothing_is_left_needs_to_be_asked_for(root, store, caplog):
    for step in (1, 2):
        flip(root / str(step) / COMMIT_FILE)
    with pytest.raises(CheckpointError, match="no step can be used"):
        store.restore(make_state())
    with CheckpointStore(root, restart_damaged=True) as again:
        assert again.restore(make_state()) is None
        assert "starting over" in caplog.text
        again.save(1, make_state(1))
        assert again.restore(make_state()).step == 1
    with CheckpointStore(root) as after:
        assert after.restore(make_state()).step == 1
    assert {path.name for path in (root / QUARANTINE).iterdir()} == {"1.0", "2.0", "LEDGER.0"}


def link_to_itself(path: Path) -> None:
    path.unlink() if path.is_file() else shutil.rmtree(path)
    path.symlink_to(path)


@pytest.mark.parametrize("name", ["2", "2/state", f"2/{COMMIT_FILE}", "2/state/manifest.ocdbt"])
def test_a_link_to_itself_means_the_step_before(root, store, caplog, name):
    link_to_itself(root / name)
    assert_falls_back(store, root, caplog)
    store.save(2, make_state(2), {"at": 2})
    assert store.restore(make_state()).step == 2


def test_a_pipe_is_not_waited_for(root, store, caplog):
    (root / "2" / COMMIT_FILE).unlink()
    os.mkfifo(root / "2" / COMMIT_FILE)
    assert_falls_back(store, root, caplog)


@pytest.mark.parametrize("name", [LEDGER_FILE, QUARANTINE])
def test_a_file_for_a_folder_or_the_reverse_is_named(root, store, name):
    flip(root / "2" / COMMIT_FILE)
    if name == LEDGER_FILE:
        (root / name).unlink()
        (root / name).mkdir()
    else:
        (root / name).write_text("a file")
    with pytest.raises(CheckpointError, match=f"{root / name}: expected a "):
        store.restore(make_state())
    with pytest.raises(CheckpointError, match="expected a folder, got a file in its way"):
        CheckpointStore(root / "1" / COMMIT_FILE)


def test_a_ledger_that_is_a_link_is_not_written_through(root, store, tmp_path):
    mine = tmp_path / "mine"
    (root / LEDGER_FILE).rename(mine)
    (root / LEDGER_FILE).symlink_to(mine)
    before = mine.read_bytes()
    with pytest.raises(CheckpointError, match="expected a file to write to, got a link"):
        store.save(3, make_state(3))
    assert mine.read_bytes() == before


def test_a_good_step_is_used_even_where_starting_over_is_allowed(root):
    flip(root / "2" / COMMIT_FILE)
    with CheckpointStore(root, restart_damaged=True) as store:
        assert store.restore(make_state()).step == 1


def test_trouble_of_the_machine_is_not_damage(store, root, monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError("too large")

    monkeypatch.setattr(ocp.Checkpointer, "restore", fail)
    with pytest.raises(CheckpointError, match=r"2: Orbax cannot read it: too large"):
        store.restore(make_state())
    assert store.steps() == [1, 2]


def test_a_disk_that_cannot_read_is_not_damage(root, store, monkeypatch):
    real = os.open

    def failing(path, *args, **kwargs):
        if str(path).endswith(f"2/{COMMIT_FILE}"):
            raise OSError(errno.EIO, "no answer", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(OSError, match="no answer"):
        store.restore(make_state())
    assert store.steps() == [1, 2]


def test_a_lost_ledger_costs_no_step(root, store, caplog):
    (root / LEDGER_FILE).unlink()
    assert store.restore(make_state()).step == 2
    (root / "2" / COMMIT_FILE).unlink()  # known as damage: restoring wrote it to the ledger
    assert_falls_back(store, root, caplog)


@pytest.mark.parametrize("fault", sorted(set(DAMAGES) - {"deleted", "emptied"}))
def test_a_damaged_ledger_costs_no_step(root, store, fault):
    DAMAGES[fault](root / LEDGER_FILE)
    assert store.restore(make_state()).step == 2
    (root / "2" / COMMIT_FILE).unlink()  # known as damage again
    assert store.restore(make_state()).step == 1
    assert (root / QUARANTINE / "2.0").exists()


def test_an_unreadable_ledger_line_is_named(root, store, caplog):
    flip(root / LEDGER_FILE)
    store.restore(make_state())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert LEDGER_FILE in caplog.text
    for step in store.steps():
        shutil.rmtree(root / str(step))
    with pytest.raises(CheckpointError, match=LEDGER_FILE):
        store.restore(make_state())


# --- interruptions


def test_a_fresh_folder_has_nothing(tmp_path, caplog):
    with CheckpointStore(tmp_path / "deep" / "new") as store:
        assert store.restore(make_state()) is None
        assert store.steps() == []
    shutil.copytree(tmp_path / "deep", tmp_path / "cut")
    (tmp_path / "cut" / "new" / "4" / "state").mkdir(parents=True)
    with CheckpointStore(tmp_path / "cut" / "new") as store:
        assert store.steps() == []
        assert store.restore(make_state()) is None
        assert not (tmp_path / "cut" / "new" / "4").exists()
    assert not damages(caplog)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False], ids=["first save", "second save"])
def test_an_interruption_at_every_sync(tmp_path, caplog, monkeypatch, first):
    outcomes, fsync = [], os.fsync
    old, new = {"x": jnp.arange(3)}, {"x": jnp.arange(3) + 1}
    with CheckpointStore(tmp_path / "start", keep=1) as store:
        if not first:
            store.save(1, old)
    for limit in range(1000):
        root = shutil.copytree(tmp_path / "start", tmp_path / str(limit))
        left = iter(range(limit))

        def interrupted_fsync(handle, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            fsync(handle)

        with CheckpointStore(root, keep=1) as store, monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupted_fsync)
            try:
                store.save(2, new)
                finished = True
            except KeyboardInterrupt:
                finished = False
        with CheckpointStore(root, keep=1) as store:
            restored = store.restore(old)
            outcomes.append(None if restored is None else restored.step)
            if restored is not None:
                assert of_tree(restored.state) == of_tree(new if restored.step == 2 else old)
            if limit % 5 == 0:
                store.save(3, new)
                assert store.steps() == [3]
        if finished:
            break
    before = None if first else 1
    assert outcomes == [before] * outcomes.count(before) + [2] * outcomes.count(2)
    assert outcomes.count(before) > 5
    assert outcomes.count(2) > 2
    assert not damages(caplog)


def test_a_step_is_safe_on_disk_before_the_ledger_names_it(tmp_path, monkeypatch):
    """Whatever was not flushed since it changed may be lost with the power."""
    fsync, flushed, before_ledger = os.fsync, {}, {}

    def content(path: Path) -> bytes | list[str]:
        return path.read_bytes() if path.is_file() else sorted(os.listdir(path))

    def recorded_fsync(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.name == LEDGER_FILE:
            before_ledger.update(flushed)
        flushed[path] = content(path)
        fsync(handle)

    root = tmp_path / "store"
    with CheckpointStore(root) as store, monkeypatch.context() as patch:
        patch.setattr(os, "fsync", recorded_fsync)
        store.save(1, {"x": np.arange(3)})
    assert before_ledger[root] == ["1"]
    written = [path for path in (root / "1").rglob("*") if path.name != COMMIT_FILE]
    for path in [root / "1", *written]:
        assert before_ledger[path] == content(path)
    assert before_ledger[root / "1" / "draft"] == content(root / "1" / COMMIT_FILE)
    assert flushed[root / LEDGER_FILE] == content(root / LEDGER_FILE)
    assert flushed[root] == content(root)


SAVE_FOREVER = """
import itertools, sys
import numpy as np
from lgd.machinery.checkpoint import CheckpointStore
store = CheckpointStore(sys.argv[1])
for step in itertools.count(1):
    store.save(step, {"x": np.full(1000, step)}, {"at": step})
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_loses_no_finished_save(tmp_path, caplog):
    command = [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    try:
        for _ in range(4):
            seen = int(child.stdout.readline())
    finally:
        child.send_signal(signal.SIGKILL)
        rest = child.communicate()[0].split()
    seen = max([seen, *map(int, rest)])
    with CheckpointStore(tmp_path) as store:
        step, state, metadata = store.restore({"x": np.zeros(1000, int)})
    assert step in (seen, seen + 1)
    assert metadata == {"at": step}
    np.testing.assert_array_equal(state["x"], step)
    assert not damages(caplog)


def test_a_full_disk_is_reported_and_leaves_no_step(store, root):
    large = {"x": np.random.default_rng(0).normal(size=100_000)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        with pytest.raises(CheckpointError, match="step 3 was not saved"):
            store.save(3, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (root / "3").exists()
    assert store.restore(make_state()).step == 2
    store.save(3, large)
    assert store.steps() == [2, 3]


# --- log


def test_a_save_and_a_restore_log_nothing(tmp_path, caplog):
    with caplog.at_level(logging.INFO), CheckpointStore(tmp_path) as store:
        store.save(1, make_state())
        store.restore(make_state())
    assert [r for r in caplog.records if r.name.startswith("lgd.")] == []


def test_commit_and_ledger_are_sealed_json(root):
    seal, text = (root / "2" / COMMIT_FILE).read_text().split(" ", 1)
    assert len(seal) == 64
    assert json.loads(text)["metadata"] == {"at": 2}
    assert len((root / LEDGER_FILE).read_text().splitlines()) == 2
