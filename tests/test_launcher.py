"""The launcher as a user runs it: in a process of its own, killed, run again, given nonsense."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import default
from experiments import config as configs
from experiments import pipeline
from lgd.data import Dataset, labelled

ROOT = Path(__file__).resolve().parents[1]
STEPS, SAVE_EVERY = 100, 20
TINY = (  # on the mixture: .ci/run has the digits
    "data.name=mixture",
    "data.num_train=160",
    "data.num_validation=80",
    "data.num_test=80",
    f"denoiser.num_steps.under={STEPS}",
    "sampling.num_steps=3",
    "guidance.methods=trajectory",
    "guidance.trajectory.num_steps=4",
    "guidance.trajectory.num_particles=2",
    "guidance.trajectory.num_targets=2",
    "evaluation.num_samples=40",
    "evaluation.num_screening=40",
    f"training.save_every={SAVE_EVERY}",
    "training.log_every=1",
)
FASHION = (
    "data.name=fashion_mnist",
    "data.num_train=200",
    "data.num_validation=100",
    "data.num_test=100",
    "denoiser.num_steps.under=2",
    "denoiser.batch_size=8",
    "classifier.num_steps=2",
    "classifier.batch_size=8",
)
MARK = '{"training": "denoiser", "step": 1, "mark": 1}\n'


def command(workdir, *flags, overrides=TINY):
    fields = [f"--config.{override}" for override in overrides]
    argv = ["-m", "experiments.run", "--config=configs/smoke.py", f"--workdir={workdir}"]
    return [sys.executable, *argv, *fields, *flags]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One CPU device; little compiling, and a cache that spares the later processes even that."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@pytest.fixture(scope="module")
def launch(environment):
    def launch(argv):
        return subprocess.run(
            argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )

    return launch


def without_phases(text):
    """Without the lines of what takes a while before anything is run."""
    return re.sub(r"^(start|read the data), \d+ s\n", "", text, flags=re.MULTILINE)


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stamps(folder):
    """Of every file, when it was written, and which it is."""
    files = {str(p.relative_to(folder)): p.stat() for p in folder.rglob("*") if p.is_file()}
    return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in files.items()}


def strict_json(file):
    def refuse(constant):
        raise AssertionError(f"{file}: {constant} is not JSON")

    return json.loads(file.read_text(), parse_constant=refuse)


# A run that is killed, resumed up to the report, and started once more


def killed(argv, environment, file, enough):
    """The process, killed as soon as what a file holds is enough."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(argv, cwd=ROOT, env=environment, **pipes)
    end = time.monotonic() + 200
    while time.monotonic() < end and process.poll() is None:
        if file.exists() and enough(file.read_text()):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process


@pytest.fixture(scope="module")
def interrupted(environment, tmp_path_factory):
    """A workdir whose denoiser was killed in training, as soon as a step after the first checkpoint
    was logged. MARK shows that a run went on from there.
    """
    workdir = tmp_path_factory.mktemp("runs") / "interrupted"
    process = killed(
        command(workdir),
        environment,
        workdir / "metrics.jsonl",
        lambda text: f'"step": {SAVE_EVERY + 1}' in text,
    )
    logged = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    state = {
        "returncode": process.returncode,
        "steps": [json.loads(line)["step"] for line in logged if line.endswith("\n")],
        "checkpoints": sorted(os.listdir(workdir / "checkpoints" / "denoiser")),
        "params": (workdir / "params").exists(),
    }
    (workdir / "metrics.jsonl").write_text("".join([MARK, *logged, '{"training": "den']))
    return workdir, state


@pytest.fixture(scope="module")
def measured(interrupted, environment):
    """The same workdir, killed again in the search for schedules: what it had measured."""
    workdir, _ = interrupted
    file = workdir / "measured.jsonl"
    process = killed(command(workdir), environment, file, lambda text: text.count("\n") >= 5)
    assert process.returncode == -signal.SIGKILL
    assert not (workdir / "results.json").exists()
    with file.open("a") as stream:
        stream.write('{"key": "valid')
    return [line for line in file.read_text().splitlines()[:-1] if line.endswith("}")]


@pytest.fixture(scope="module")
def resumed(interrupted, measured, launch):
    """The same workdir, with everything but the report."""
    workdir, _ = interrupted
    done = launch(command(workdir, "--stages=evaluate,guidance,denoiser"))  # in their own order
    assert done.returncode == 0, done.stderr
    assert not (workdir / "report").exists()
    return workdir, done


@pytest.fixture(scope="module")
def finished(resumed, launch):
    """The same workdir, all stages: what was there before, and after."""
    workdir, _ = resumed
    before = stamps(workdir)
    done = launch(command(workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done, before


@pytest.mark.slow
def test_kill_came_in_the_middle(interrupted):
    _, state = interrupted
    assert state["returncode"] == -signal.SIGKILL
    assert SAVE_EVERY < state["steps"][-1] < STEPS
    assert str(SAVE_EVERY) in state["checkpoints"]
    assert not state["params"]


@pytest.mark.slow
def test_finished_run_leaves_what_the_design_says(finished):
    workdir, done, _ = finished
    assert {path.name for path in workdir.iterdir()} == {
        *("config.json", "metrics.jsonl", "timings.jsonl", "measured.jsonl", "results.json"),
        *("data.json", "lock", "checkpoints", "params", "guidance", "report", "LEDGER"),
    }
    config = strict_json(workdir / "config.json")
    assert config["denoiser"]["num_steps"]["under"] == STEPS
    assert config["guidance"]["methods"] == ["trajectory"]

    stages = lines(workdir / "timings.jsonl")
    assert [line["stage"] for line in stages] == ["denoiser", "guidance/trajectory", "tune", "test"]
    assert all(line["seconds"] > 0 for line in stages)

    report = (workdir / "report" / "report.md").read_text()
    pictures = set(re.findall(r"\]\((.*?)\)", report))
    assert {"omega.png", "samples.png", "weight.png", "training.png", "methods.png"} <= pictures
    assert {path.name for path in (workdir / "report").iterdir()} == {
        *("report.md", "report.html"),
        *pictures,
    }
    for name in pictures:
        assert (workdir / "report" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "report.md" in done.stdout


@pytest.mark.slow
def test_run_says_nothing_alarming(resumed, finished):
    for done in (resumed[1], finished[1]):
        assert "Traceback" not in done.stderr
        assert "Warning" not in done.stderr


@pytest.mark.slow
def test_results_are_of_the_documented_form(finished):
    workdir, *_ = finished
    results = strict_json(workdir / "results.json")
    assert results["config"] == strict_json(workdir / "config.json")
    assert results["primary_metric"] == "energy_distance"
    assert results["lower_is_better"] is True
    assert {"jax", "numpy"} <= set(results["versions"])
    assert all(isinstance(results[name], str) and results[name] for name in ("commit", "device"))
    methods = [row["method"] for row in results["rows"]]
    assert methods == [
        *("unguided", "constant", "limited_interval", "limited_interval_per_class"),
        *("clamp_linear", "learned:trajectory"),
    ]
    for row in results["rows"]:
        assert (row["num_samples"], row["num_steps"], row["nfe"]) == (40, 3, 6)
        assert set(row["metrics"]) == {"energy_distance", "frechet_distance", "accuracy"}
        for metric in row["metrics"].values():
            values = metric["values"]
            assert len(values) == 2
            assert metric["mean"] == pytest.approx(statistics.mean(values))
            assert metric["std"] == pytest.approx(statistics.stdev(values), abs=1e-12)
        assert row["method"] in (workdir / "report" / "report.md").read_text()
    params = {row["method"]: row["params"] for row in results["rows"]}
    assert params["unguided"] == {}
    assert set(params["constant"]) == {"w"}
    assert [len(values) for values in params["limited_interval_per_class"].values()] == [8, 8, 8]
    assert params["learned:trajectory"]["step"] in (2, 4)


@pytest.mark.slow
def test_interrupted_run_equals_an_uninterrupted_one_to_the_byte(
    resumed, measured, launch, tmp_path
):
    workdir, _ = resumed
    whole = tmp_path / "whole"
    done = launch(command(whole, "--stages=denoiser,guidance,evaluate"))
    assert done.returncode == 0, done.stderr
    names = {f"guidance/trajectory-{step:06d}.safetensors" for step in (2, 4)}
    assert set(contents(whole / "params")) == {"denoiser.safetensors", *names}
    assert contents(workdir / "params") == contents(whole / "params")

    found, journal = ((f / "measured.jsonl").read_text().splitlines() for f in (workdir, whole))
    assert len(measured) >= 5
    assert found[: len(measured)] == measured  # what was measured before the kill is kept
    assert found == journal  # and nothing is measured twice
    assert (workdir / "results.json").read_bytes() == (whole / "results.json").read_bytes()

    metrics = (workdir / "metrics.jsonl").read_text()
    assert metrics.startswith(MARK)  # it went on from a checkpoint and did not start again
    assert metrics.removeprefix(MARK) == (whole / "metrics.jsonl").read_text()
    logged = [(line["training"], line["step"]) for line in lines(whole / "metrics.jsonl")]
    assert logged == [
        *(("denoiser", step) for step in range(1, STEPS + 1)),
        *(("trajectory", step) for step in range(1, 5)),
    ]
    fields = {name for line in lines(whole / "metrics.jsonl") for name in line}
    parts = {"distance", "marginal_distance", "omega"}
    assert fields == {"training", "step", "loss", "grad_norm", *parts}  # no clock


@pytest.mark.slow
def test_stages_that_are_done_are_skipped(finished):
    workdir, done, before = finished
    after = stamps(workdir)
    for name in ("lock", "LEDGER"):  # taken again; that knows the report
        del after[name], before[name]
    assert {name: after[name] for name in before} == before
    assert {Path(name).parts[0] for name in after.keys() - before.keys()} == {"report"}
    assert "train" not in done.stdout


@pytest.mark.slow
def test_workdir_of_another_config_is_refused(resumed, launch):
    workdir, _ = resumed
    before = contents(workdir)
    done = launch(command(workdir, "--config.seed=7"))
    assert (done.returncode, without_phases(done.stdout)) == (2, "")
    assert "seed: 0 -> 7" in done.stderr
    assert str(workdir) in done.stderr
    assert "Traceback" not in done.stderr
    assert {**contents(workdir), "lock": b""} == {**before, "lock": b""}


# Nonsense


def test_bad_config_is_refused_at_once_with_every_mistake(launch, tmp_path):
    mistakes = ("seed=-1", "denoiser.kid=v", "guidance.one_step.lam=nan", "sampling.solver=rk4")
    workdir = tmp_path / "none"
    before = os.times()
    done = launch(command(workdir, "--stages=denoiser,dance", "extra", overrides=mistakes))
    after = os.times()
    assert (done.returncode, done.stdout) == (2, "")
    said = done.stderr.splitlines()
    for part in ("seed: ", "denoiser.kid: ", "guidance.one_step.lam: ", "sampling.solver: "):
        assert sum(line.startswith(part) for line in said) == 1
    assert any("'dance'" in line for line in said)
    assert any("'extra'" in line for line in said)
    assert len(said) == 6
    assert not workdir.exists()
    seconds = sum(
        getattr(after, n) - getattr(before, n) for n in ("children_user", "children_system")
    )
    assert seconds < 3.0


def test_nothing_given_names_what_is_missing(launch):
    done = launch([sys.executable, "-m", "experiments.run"])
    assert done.returncode == 2
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["--workdir", "--config"]


def test_flags_of_several_processes_must_fit(launch, tmp_path):
    said = [
        launch(command(tmp_path / "none", *flags)).stderr.splitlines()
        for flags in (
            ("--num_processes=2", "--process_id=0"),
            ("--coordinator=here", "--num_processes=2", "--process_id=2"),
        )
    ]
    assert [[line.split(":")[0] for line in lines] for lines in said] == [
        ["--num_processes", "--process_id"],
        ["--coordinator", "--process_id"],
    ]
    assert not (tmp_path / "none").exists()


def test_a_flag_that_does_not_exist_is_refused(launch, tmp_path):
    done = launch(command(tmp_path / "none", "--restart_damagd"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "Unknown command line flag 'restart_damagd'. Did you mean: restart_damaged ?"
    ]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--workdir=gs://bucket/run", "--workdir: gs://bucket/run: expected a local path"),
        ("--config=s3://a.py", "s3://a.py: expected a Python file"),
        ("--config.data.path=gs://b/c", "data.path: expected a path in printable characters"),
        ("--config.evaluation.inception_path=s3://b", "evaluation.inception_path: expected a path"),
    ],
)
def test_what_is_not_on_this_machine_is_refused_at_the_start(launch, tmp_path, flag, words):
    done = launch(command(tmp_path / "none", flag))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    split = labelled(np.zeros((32, 2), np.float32), np.arange(32, dtype=np.int32) % 8)
    data = Dataset(split, split, split, tuple("abcdefgh"))
    monkeypatch.setattr(pipeline.build, "dataset", lambda config: data)
    config = configs.load(str(ROOT / "configs" / "smoke.py"), [*TINY, "mesh.data=1"])
    pipeline.run(config, "~/run", [])
    assert (tmp_path / "home" / "run" / "config.json").exists()
    assert os.listdir(tmp_path) == ["home"]


@pytest.mark.parametrize("name", ["configs", "lgd"])
def test_packages_of_the_names_of_ours_are_not_taken_for_ours(environment, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not ours')")
    argv = [sys.executable, "-m", "experiments.run", f"--config={ROOT}/configs/smoke.py"]
    settings = environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*argv, "--config.seed=-1"], cwd=tmp_path, env=settings, capture_output=True, text=True
    )
    said = done.stderr.splitlines()
    assert done.returncode == 2
    assert [line.split(":")[0] for line in said] == ["--workdir", "seed"]


@pytest.mark.parametrize("flag", ["--help", "--helpshort"])
def test_help_names_stages_and_overrides(launch, flag):
    done = launch([sys.executable, "-m", "experiments.run", flag])
    said = done.stdout + done.stderr
    assert done.returncode == 0
    assert "Traceback" not in said
    for part in ("denoiser,collect,guidance,evaluate,report", "--config.", "--workdir"):
        assert part in said


def test_batches_that_do_not_split_over_the_devices_are_refused(tmp_path):
    """Pytest has 8 devices."""
    assert jax.device_count() == 8
    config = default.get_config()
    config.denoiser.batch_size, config.classifier.batch_size = 12, 20
    with pytest.raises(pipeline.MisfitError) as refusal:
        pipeline.run(config.lock(), str(tmp_path / "none"), ["denoiser"])
    assert str(refusal.value).splitlines() == [
        "denoiser.batch_size: expected a multiple of the 8 devices, got 12",
        "classifier.batch_size: expected a multiple of the 8 devices, got 20",
    ]
    assert not (tmp_path / "none").exists()


def test_splits_without_two_examples_of_a_class_are_refused_before_training(tmp_path):
    config = default.get_config()
    config.denoiser.batch_size = config.classifier.batch_size = 8 * jax.device_count()
    config.data.num_validation, config.data.num_test = 16, 18
    with pytest.raises(pipeline.MisfitError) as refusal:
        pipeline.run(config, str(tmp_path / "run"), ["denoiser"])
    named = [line.split(":")[0] for line in str(refusal.value).splitlines()]
    assert named == ["data.num_validation", "data.num_test"]
    assert not (tmp_path / "run" / "params").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("evaluation.num_samples=24", "evaluation.num_screening=23"),
            "evaluation.num_screening: expected at least 2 samples of each of the 12 classes, "
            "got 23",
        ),
        (
            ("denoiser.network=dit", "denoiser.dit.patch_size=4"),
            "denoiser: expected a patch_size that divides 8 x 10, got 4",
        ),
    ],
)
def test_settings_that_the_data_do_not_fit_are_refused(tmp_path, monkeypatch, settings, message):
    """Before anything is made; sizes and classes of one's own data are known with the data only."""
    labels = np.arange(36, dtype=np.int32) % 12
    split = labelled(np.zeros((36, 8, 10, 1), np.float32), labels)
    data = Dataset(split, split, split, tuple(map(str, range(12))))
    monkeypatch.setattr(pipeline.build, "dataset", lambda config: data)
    fields = ("data.name=npz", "data.path=own.npz", "mesh.data=1", *settings)
    with pytest.raises(pipeline.MisfitError) as refusal:
        pipeline.run(configs.load(default.__file__, fields), str(tmp_path / "run"), ["denoiser"])
    assert str(refusal.value) == message
    assert not (tmp_path / "run").exists()


def test_data_file_that_is_missing_is_refused_and_leaves_nothing_behind(launch, tmp_path):
    missing = tmp_path / "nothing.npz"
    fields = (*FASHION, f"data.path={missing}")
    done = launch(command(tmp_path / "run", overrides=fields))
    assert (done.returncode, without_phases(done.stdout)) == (2, "")
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"data.path: {missing}: expected Fashion-MNIST")
    assert "dataset-fashion-mnist" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_images_from_a_file_train_a_denoiser_and_a_classifier(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 28, 28), np.uint8)
    labels = (np.arange(300) % 10).astype(np.uint8)
    path = tmp_path / "images.npz"
    np.savez(path, x=images, y=labels, xt=images, yt=labels)
    config = configs.load("configs/smoke.py", [*FASHION, f"data.path={path}", "mesh.data=1"])
    pipeline.run(config, str(tmp_path / "run"), ["denoiser"])
    names = {file.name for file in (tmp_path / "run" / "params").iterdir()}
    assert names == {"denoiser.safetensors", "classifier.safetensors"}


@pytest.mark.slow
def test_a_start_into_a_pipe_is_not_silent(environment, tmp_path):
    """The first line says for how long: no more than what passes before a bar is shown."""
    argv = command(tmp_path / "piped")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, **pipes) as process:
        first = process.stdout.readline()
        process.kill()
    assert re.fullmatch(r"(start|read the data|stage denoiser).*, [0-9] s\n", first)
