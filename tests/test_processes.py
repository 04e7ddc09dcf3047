"""Two processes of two devices each do what one process of four does, and end together."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from two_processes import results

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


def run_two(command, *, environment=ENVIRONMENT, timeout=120):
    """Start ``command(address, process_id)`` twice: exit code and output of each."""
    address = free_address()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)]
        started = []
        for index, file in enumerate(files):
            settings = {"cwd": ROOT, "env": environment, "stdout": file, "stderr": file}
            started.append(subprocess.Popen(command(address, index), **settings))
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
    assert {path.name for path in folder.iterdir()} == {"store", "results.npz"}
    alone, found = results(tmp_path), np.load(folder / "results.npz")
    assert set(found) == set(alone)
    assert found["start"] == alone.pop("start")
    for name, value in alone.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


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
