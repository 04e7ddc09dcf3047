"""Two processes of two devices each do what one process of four does, and end together."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from two_processes import results, train

from experiments import config as configs
from experiments import pipeline
from experiments.workdir import read_lines
from lgd.machinery import parallel
from lgd.machinery.checkpoint import CheckpointStore

pytestmark = pytest.mark.usefixtures("quick_compilation")
ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
    "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
}


def free_address():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def run_two(command, *, environment=ENVIRONMENT, timeout=300):
    """Start ``command(address, process_id)`` twice: exit code and output of each."""
    address = free_address()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)]
        started = []
        for index, file in enumerate(files):
            settings = {"cwd": ROOT, "env": environment, "stdout": file, "stderr": file}
            started.append(subprocess.Popen(command(address, index), **settings))
            stack.callback(started[-1].wait)
            stack.callback(started[-1].kill)
        end = time.monotonic() + timeout
        codes = [process.wait(timeout=end - time.monotonic()) for process in started]
        return [(code, _read(file)) for code, file in zip(codes, files, strict=True)]


def _read(file):
    file.seek(0)
    return file.read()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Exit code and output of both processes, and what they left."""
    folder = tmp_path_factory.mktemp("together")
    module = [sys.executable, "-m", "tests.two_processes"]
    return run_two(lambda address, index: [*module, address, str(index), str(folder)]), folder


def test_two_processes_do_what_one_does(together, tmp_path):
    (first, second), folder = together
    assert "done 0" in first[1], first[1]
    assert "done 1" in second[1], second[1]
    assert {path.name for path in folder.iterdir()} == {"store", "stopped", "results.npz"}
    alone, found = results(tmp_path), np.load(folder / "results.npz")
    assert set(found) == set(alone)
    assert found["start"] == alone.pop("start")
    for name, value in alone.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_one_process_resumes_what_two_have_saved(together):
    _, folder = together
    with CheckpointStore(folder / "store") as store:
        state = train(parallel.make_mesh(2, 1), store=store)  # nothing left to do
    found = np.load(folder / "results.npz")
    np.testing.assert_array_equal(state.params["hidden"], found["hidden"])
    np.testing.assert_array_equal(state.ema["out"], found["ema"])


def test_a_signal_to_one_stops_both_after_the_same_step(together):
    (first, second), folder = together
    steps = [re.findall(r"^stopped (\d+)$", out, re.MULTILINE) for _, out in (first, second)]
    assert len(steps[0]) == 1
    assert steps[0] == steps[1]
    with CheckpointStore(folder / "stopped") as store:
        assert store.steps()[-1] == int(steps[0][0])


def test_only_the_first_process_shows_progress(together):
    (first, second), _ = together
    assert "learn omega" in first[1]
    assert "learn omega" not in second[1]


def test_one_that_fails_ends_both_and_says_why(together):
    """The first one waits for it in a step, until it is missed."""
    (first, second), _ = together
    assert first[0] != 0
    assert second[0] == 1
    assert "RuntimeError: no data" in second[1]


QUICK = (  # of configs/mixture.py
    "data.num_train=160",
    "data.num_validation=80",
    "data.num_test=80",
    "denoiser.num_steps.under=4",
    "denoiser.width=8",
    "denoiser.depth=1",
    "denoiser.batch_size=16",
    "sampling.num_steps=3",
    "guidance.methods=()",
    "evaluation.num_samples=40",
    "evaluation.num_screening=40",
    "evaluation.num_finalists=1",
    "evaluation.validation_seeds=1",
    "evaluation.constant_weights=0,0.5,1",
    "evaluation.interval_weights=0.5",
    "evaluation.interval_lower=0.2",
    "evaluation.interval_upper=0.8",
    "evaluation.clamp_linear_scales=0.8",
    "training.log_every=1",
)


def launcher(folder, *overrides):
    """Arguments of a run whose processes see different folders."""
    argv = [sys.executable, "-m", "experiments.run", "--config=configs/mixture.py"]
    argv += [f"--config.{override}" for override in (*QUICK, *overrides)]
    return lambda index: [*argv, "--stages=denoiser,evaluate", f"--workdir={folder / str(index)}"]


def by_hand(argv):
    return lambda address, index: [
        *(*argv(index), f"--coordinator={address}"),
        *("--num_processes=2", f"--process_id={index}"),
    ]


def by_slurm(argv):
    """Its variables, as `srun` sets them."""
    return lambda address, index: [
        *("env", "SLURM_JOB_ID=1", "SLURM_STEP_NODELIST=localhost", "SLURM_NTASKS=2"),
        *(f"SLURM_PROCID={index}", f"SLURM_LOCALID={index}"),
        f"JAX_COORDINATOR_PORT={address.partition(':')[2]}",
        *(*argv(index), "--distributed"),
    ]


def test_a_run_of_two_processes_leaves_one_workdir_with_the_same_numbers(tmp_path):
    for code, out in run_two(by_hand(launcher(tmp_path))):
        assert code == 0, out
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    results = json.loads((tmp_path / "0" / "results.json").read_text())
    assert results["device"].startswith("4 x ")
    assert all(np.isfinite(row["metrics"]["accuracy"]["mean"]) for row in results["rows"])

    config = configs.load("configs/mixture.py", [*QUICK, "mesh.data=1"])
    pipeline.run(config, str(tmp_path / "alone"), ["denoiser"])
    together, alone = (read_lines(tmp_path / name / "metrics.jsonl") for name in ("0", "alone"))
    assert len(together) == len(alone) == 4
    for name in ("loss", "grad_norm"):
        values = [[line[name] for line in lines] for lines in (together, alone)]
        np.testing.assert_allclose(*values, rtol=1e-4)


def test_two_processes_of_slurm_refuse_with_one_message(tmp_path):
    first, second = run_two(by_slurm(launcher(tmp_path, "mesh.fsdp=3")))
    assert (first[0], second[0]) == (2, 2)
    said = [
        [line for line in out.splitlines() if not line.startswith("[Gloo]")]
        for _, out in (first, second)
    ]
    assert said == [["mesh: expected fsdp to divide the 4 devices, got 3"], []]
    assert not list(tmp_path.iterdir())
