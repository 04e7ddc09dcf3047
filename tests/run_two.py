"""Start one command as two processes of two devices each."""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

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
