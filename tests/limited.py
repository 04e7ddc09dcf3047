"""Readers in a process of bounded memory, which may crash or hang and is then started again.

As a program, ``python limited.py MODULE`` reads the valid files of every reader of a module,
limits its memory to a GB more, and then reads folders by the lines of its input.
"""

import importlib
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MORE_BYTES = 10**9  # beyond those after all imports and a first use of every reader
SECONDS = 30.0  # of the processor
HANGS = 300.0  # seconds of the clock, on a machine that is busy


class Limited:
    """A process that reads files.

    Args:
      module: that has the readers, in a table READERS.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen | None = None

    def reading(self, name: str) -> Callable[[Path], str]:
        """The function from a folder to `outcome`."""
        return lambda folder: self.outcome(name, folder)

    def outcome(self, name: str, folder: Path) -> str:
        """As `readers.outcome`; also "fault: ..." for a crash, a hang and more time or memory."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        self._process.stdin.write(json.dumps([name, str(folder)]) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if answer is None:
            self.close()
            return f"fault: the process crashed or hung; {self._errors.read_text()[-2000:]}"
        said, seconds, grown = answer
        if seconds > SECONDS:
            return f"fault: took {seconds:.1f} s, {said}"
        if grown > MORE_BYTES // 3:  # memory that is kept would be held against the next file
            self.close()
        return said

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _start(self) -> None:
        self._errors = Path(tempfile.mkstemp()[1])
        command = [sys.executable, __file__, self._module]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
            )
        assert self._answer() == "ready", self._errors.read_text()[-2000:]

    def _answer(self) -> Any:
        """A line of the process, None where it ended or says nothing for long."""
        ready, _, _ = select.select([self._process.stdout], [], [], HANGS)
        line = self._process.stdout.readline() if ready else ""
        return json.loads(line) if line else None


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _main(module: str) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    readers: Any = importlib.import_module("readers")
    table = importlib.import_module(module).READERS
    with tempfile.TemporaryDirectory() as folder:
        for reader in table.values():
            readers.place(reader, Path(folder) / "valid", readers.part_of(reader))
            assert readers.outcome(reader, Path(folder) / "valid") == "read"
    before = _virtual_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (before + MORE_BYTES, -1))
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        name, folder = json.loads(line)
        began = time.process_time()
        said = readers.outcome(table[name], Path(folder))
        answer = [said, time.process_time() - began, _virtual_bytes() - before]
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
