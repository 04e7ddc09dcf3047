import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import default
from experiments.workdir import (
    MAY_CHANGE,
    Workdir,
    WorkdirError,
    lines,
    lock,
    read_json,
    read_lines,
    write_json,
    write_text,
)
from lgd.data import Dataset, labelled
from lgd.evaluation import Journal
from lgd.machinery.failures import NonFiniteError

ROOT = Path(__file__).resolve().parents[1]


def config(**fields):
    """The defaults with fields changed, "a.b" written a__b."""
    changed = default.get_config()
    changed.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return changed.lock()


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "runs" / "one", config())


def refusal(pattern):
    return pytest.raises(WorkdirError, match=pattern)


# Config


def test_same_config_is_taken_again(workdir):
    before = (workdir.path / "config.json").read_bytes()
    Workdir(str(workdir.path), config())
    assert (workdir.path / "config.json").read_bytes() == before
    assert sorted(os.listdir(workdir.path)) == ["LEDGER", "config.json"]
    written = json.loads(before)
    assert written["guidance"]["methods"] == ["self_consistency", "l2", "trajectory"]
    assert (written["seed"], written["sampling"]["churn"]) == (0, 0.0)


def test_another_config_is_refused_with_the_differences(workdir):
    before = (workdir.path / "config.json").read_bytes()
    other = config(seed=3, denoiser__level="well", guidance__methods=("l2",))
    with refusal(f"{workdir.path}: made with another config") as error:
        Workdir(workdir.path, other)
    assert {line.strip() for line in str(error.value).splitlines()[1:-1]} == {
        "seed: 0 -> 3",
        "denoiser.level: 'under' -> 'well'",
        "guidance.methods: ['self_consistency', 'l2', 'trajectory'] -> ['l2']",
    }
    assert "--workdir" in str(error.value)
    assert (workdir.path / "config.json").read_bytes() == before


def test_fields_that_change_nothing_may_change(workdir, caplog):
    changed = {"training__save_every": 7, "mesh__data": 1, "training__stall_seconds": 5.0}
    Workdir(workdir.path, config(**changed))
    assert "training.save_every: 100 -> 7" in caplog.text
    assert read_json(workdir.path / "config.json")["training"]["save_every"] == 7
    with refusal("seed: 0 -> 1"):
        Workdir(workdir.path, config(training__save_every=8, seed=1))
    assert read_json(workdir.path / "config.json")["training"]["save_every"] == 7


def test_every_field_that_may_change_exists_and_only_these_may(workdir):
    fields = dict(_flattened(default.get_config()))
    assert set(MAY_CHANGE) < set(fields)
    for field, value in fields.items():
        other = _another(value)
        changed = default.get_config()
        with changed.ignore_type():
            changed.update_from_flattened_dict({field: other})
        if field in MAY_CHANGE:
            Workdir(workdir.path, changed)
            Workdir(workdir.path, config())
        else:
            with refusal(f"made with another config .*\\n  {re.escape(field)}: "):
                Workdir(workdir.path, changed)


def _flattened(tree, prefix=""):
    for name, value in tree.items():
        if hasattr(value, "items"):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _another(value):
    if isinstance(value, tuple):
        return () if value else ("tensorboard",)
    return f"{value}?" if isinstance(value, str) else value + 1


def dataset(seed=0, dtype=np.float32):
    splits = [
        labelled(
            (np.arange(6.0).reshape(3, 2) + i + seed).astype(dtype), np.arange(3, dtype=np.int32)
        )
        for i in range(3)
    ]
    return Dataset(*splits, class_names=("a", "b", "c"))


def test_other_data_are_refused_with_the_splits_that_differ(workdir):
    workdir.bind_data(dataset())
    before = (workdir.path / "data.json").read_bytes()
    Workdir(workdir.path, config()).bind_data(dataset())
    changed = dataset()
    changed.test.x[0, 0] += 1e-6  # another transform
    swapped = Dataset(changed.validation, changed.train, dataset().test, changed.class_names)
    for other, splits in (
        (changed, ["test"]),
        (swapped, ["train", "validation"]),
        (dataset(seed=1), ["train", "validation", "test"]),
        (dataset(dtype=np.float64), ["train", "validation", "test"]),
    ):
        with refusal(f"{workdir.path}: made with other data") as error:
            workdir.bind_data(other)
        assert re.findall(r"  (\w+) sha256: ", str(error.value)) == splits
    assert (workdir.path / "data.json").read_bytes() == before


def test_another_order_of_batches_is_refused_by_name(workdir, monkeypatch):
    workdir.bind_data(dataset())
    monkeypatch.setattr("lgd.data.order.identity", lambda: "4 2 0 1 3")
    with refusal("order of batches: ") as error:
        workdir.bind_data(dataset())
    assert "sha256" not in str(error.value)


def test_steps_that_were_not_finite_are_written_out(workdir):
    workdir.note_non_finite(NonFiniteError("bad", [4, 5], [[1, 2], [3, 4]]))
    assert read_json(workdir.path / "non_finite.json") == {
        "message": "bad",
        "steps": [4, 5],
        "examples": [[1, 2], [3, 4]],
    }


def test_a_folder_has_one_run_at_a_time(tmp_path):
    folder = tmp_path / "deep" / "run"
    with lock.held(folder):
        expected = f"{folder}: expected no other run in it, got process {os.getpid()} on"
        with refusal(expected), lock.held(folder):
            pass
        assert (folder / "lock").exists()
    with lock.held(folder):  # freed, though the file is still there
        pass


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "measured.jsonl"])
@pytest.mark.parametrize("what", ["a link", "a folder", "a pipe"])
def test_nothing_is_written_where_something_else_lies(tmp_path, name, what):
    """Above all not to what a link leads to."""
    run, mine = tmp_path / "run", tmp_path / "mine"
    run.mkdir()
    mine.write_text("")
    make = {"a link": lambda: os.symlink(mine, run / name), "a folder": (run / name).mkdir}
    make.get(what, lambda: os.mkfifo(run / name))()
    write = {
        "lock": lambda: lock.held(run).__enter__(),
        "metrics.jsonl": lambda: lines.append(run / name, "a"),
        "measured.jsonl": lambda: Journal(run / name)("a", lambda: 1),
    }
    with pytest.raises((WorkdirError, ValueError), match=f"{run / name}: expected .*{what}"):
        write[name]()
    assert mine.read_text() == ""


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path):
    code = f"""
import os
from pathlib import Path
from experiments.workdir import lock
with lock.held(Path({str(tmp_path)!r})):
    os.abort()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGABRT
    owner = (tmp_path / "lock").read_text()
    with lock.held(tmp_path):
        assert (tmp_path / "lock").read_text() != owner


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    expected = f"{tmp_path / 'file' / 'run'}: expected a folder to write to"
    with refusal(expected), lock.held(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("when", ["first", "later", "close"])
def test_a_logger_that_raises_is_left_out_and_the_run_goes_on(workdir, caplog, when):
    calls = []

    class Broken:
        def __call__(self, training, step, values):
            calls.append(step)
            if when == "first" or (when == "later" and step == 20):
                raise ConnectionError("no server")

        def close(self):
            if when == "close":
                raise ConnectionError("no server")

    class Fine(Broken):
        def __call__(self, training, step, values):
            seen.append(step)

        def close(self):
            seen.append("closed")

    seen = []
    workdir._loggers = [Broken(), Fine()]
    log_steps(workdir, "l2", 10, 20, 30)
    workdir.close()
    assert seen == [10, 20, 30, "closed"]
    assert calls == {"first": [10], "later": [10, 20], "close": [10, 20, 30]}[when]
    assert steps(workdir, "l2") == [10, 20, 30]
    assert caplog.text.count("Broken failed and is left out: no server") == 1


# What is read


@pytest.fixture(scope="module")
def any_file(tmp_path_factory):
    return tmp_path_factory.mktemp("any") / "file.json"


FUZZ = settings(max_examples=150, deadline=None, database=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())
LINES = st.lists(JSON | st.binary(max_size=20), max_size=5).map(b"\n".join)


@FUZZ
@given(JSON | st.binary(max_size=60) | st.integers(1, 10**5).map(lambda n: b"[" * n))
def test_any_bytes_are_an_object_or_refused_by_name(any_file, raw):
    any_file.write_bytes(raw)
    try:
        assert isinstance(read_json(any_file), dict)
    except WorkdirError as error:
        assert str(error).startswith(f"{any_file}: expected ")  # noqa: PT017


@FUZZ
@given(LINES)
def test_any_lines_are_objects_or_refused_by_name(any_file, raw):
    any_file.write_bytes(raw)
    try:
        found = read_lines(any_file)
    except WorkdirError as error:
        assert str(error).startswith(f"{any_file}:")  # noqa: PT017
    else:
        assert all(isinstance(value, dict) for value in found)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b'{"seed": 0, "dat', "expected JSON, got a damaged file"),
        (b"", "expected JSON, got a damaged file"),
        (b"\xff\xfe\x00", "expected JSON, got a damaged file"),
        (b"[1, 2]", "expected a JSON object, got list"),
    ],
)
def test_damaged_config_is_named(workdir, content, got):
    file = workdir.path / "config.json"
    file.write_bytes(content)
    with refusal(f"{file}: {got}"):
        Workdir(workdir.path, config())


@pytest.mark.parametrize("below", ["", "runs"])
def test_file_in_the_place_of_the_folder_is_named(tmp_path, below):
    file = tmp_path / "taken"
    file.write_text("a file")
    with refusal(f"{file / below}: expected a folder to write to"):
        Workdir(file / below, config())


# Parameters


def test_params_round_trip(workdir):
    params = {"a": {"b": jnp.arange(3.0)}, "c": jnp.ones((2, 2))}
    workdir.save_params("guidance/l2-000004", params)
    assert workdir.params_file("guidance/l2-000004").is_file()
    loaded = workdir.load_params("guidance/l2-000004", jax.eval_shape(lambda: params))
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, params))


@pytest.mark.parametrize("name", ["denoiser", "guidance/trajectory-000010"])
def test_missing_params_name_the_file_and_the_stages(workdir, name):
    file = workdir.params_file(name)
    with refusal(f"{file}: expected parameters, found none; .*--stages=denoiser,collect,guidance"):
        workdir.load_params(name, {"a": jnp.ones(1)})


def test_checkpoints_of_a_training_are_in_its_folder(workdir):
    with workdir.checkpoints("guidance/l2") as store:
        store.save(2, {"a": jnp.ones(1)})
    assert (workdir.path / "checkpoints" / "guidance" / "l2" / "2").is_dir()
    with workdir.checkpoints("guidance/l2") as store:
        assert store.restore({"a": jnp.zeros(1)}).step == 2


# Metrics


def steps(workdir, name):
    return workdir.curve(name, "step")[0]


def log_steps(workdir, name, *numbers, run=0):
    log = workdir.metrics(name)
    for step in numbers:
        log(step, {"loss": step / 10, "run": run})


def test_metrics_are_lines_of_json(workdir):
    log_steps(workdir, "denoiser", 10, 20)
    assert (workdir.path / "metrics.jsonl").read_text() == (
        '{"training": "denoiser", "step": 10, "loss": 1.0, "run": 0}\n'
        '{"training": "denoiser", "step": 20, "loss": 2.0, "run": 0}\n'
    )
    assert workdir.curve("denoiser", "loss") == ([10, 20], [1.0, 2.0])
    assert workdir.curve("l2", "loss") == ([], [])


def test_resumed_training_drops_its_later_lines(workdir):
    log_steps(workdir, "denoiser", 10, 20, 30)
    log_steps(workdir, "l2", 10, 20, 30, 40)
    log_steps(workdir, "l2", 30, 40, 50, run=1)  # from a checkpoint of step 20
    assert steps(workdir, "denoiser") == [10, 20, 30]
    assert steps(workdir, "l2") == [10, 20, 30, 40, 50]
    assert workdir.curve("l2", "run")[1] == [0, 0, 1, 1, 1]
    log_steps(workdir, "l2", 10, run=2)  # from the start
    assert (steps(workdir, "denoiser"), steps(workdir, "l2")) == ([10, 20, 30], [10])


@pytest.mark.parametrize("cut", ['{"tra', '{"training": "l2", "step": 30, "loss": 3.', "\x00\x00"])
def test_last_line_may_be_cut_off(workdir, cut):
    log_steps(workdir, "l2", 10, 20)
    file = workdir.path / "metrics.jsonl"
    file.write_text(file.read_text() + cut)
    assert steps(workdir, "l2") == [10, 20]
    log_steps(workdir, "l2", 30, 40)
    assert steps(workdir, "l2") == [10, 20, 30, 40]
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [10, 20, 30, 40]


def test_other_damaged_lines_are_named(workdir):
    log_steps(workdir, "l2", 10, 20, 30)
    file = workdir.path / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], lines[1][:9] + "\n", lines[2]]))
    with refusal(
        f"{file}:2: expected a JSON object with training, step, got '{re.escape(lines[1][:9])}'"
    ):
        workdir.curve("l2", "loss")


def test_no_metrics_yet(workdir):
    assert read_lines(workdir.path / "metrics.jsonl") == []


def test_seconds_go_to_another_file(workdir):
    for name in ("denoiser", "tune"):
        with workdir.timed(name):
            pass
    lines = read_lines(workdir.path / "timings.jsonl")
    assert [line["stage"] for line in lines] == ["denoiser", "tune"]
    assert all(0.0 <= line["seconds"] < 5.0 for line in lines)
    assert not (workdir.path / "metrics.jsonl").exists()


def test_stage_that_fails_has_no_time(workdir):
    with pytest.raises(KeyError), workdir.timed("tune"):
        raise KeyError
    assert read_lines(workdir.path / "timings.jsonl") == []


# Files


def test_missing_json_is_named(tmp_path):
    with refusal(f"{tmp_path / 'results.json'}: expected a JSON file, found none"):
        read_json(tmp_path / "results.json")


def test_files_are_written_as_a_whole(tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    write_json(file, {"rows": [1, 2]})
    assert read_json(file) == {"rows": [1, 2]}
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(file, "half of")
    assert read_json(file) == {"rows": [1, 2]}
    monkeypatch.undo()
    write_text(file, "{}")
    assert read_json(file) == {}
    assert os.listdir(tmp_path) == ["results.json"]
