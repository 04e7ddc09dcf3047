import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from experiments.workdir import (
    Workdir,
    WorkdirError,
    read_json,
    read_lines,
    write_json,
    write_text,
)


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
    assert os.listdir(workdir.path) == ["config.json"]
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
    with refusal(f"{file}:2: expected a JSON object, got '{re.escape(lines[1][:9])}'"):
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
