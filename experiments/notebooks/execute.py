"""Run notebooks, and keep what they print and draw: python -m experiments.notebooks.execute."""

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

from experiments import console
from lgd.machinery import progress

FOLDER = Path(__file__).parent


def execute(path: Path, *, env: Mapping[str, str] | None = None, extra: str = "") -> dict:
    """The notebook with its outputs; raises what a cell raises.

    env: environment of the kernel, by default this process's. extra: code of one more cell.
    """
    notebook = nbformat.read(path, as_version=4)
    if extra:
        notebook.cells.append(nbformat.v4.new_code_cell(extra))
    with tempfile.TemporaryDirectory() as sockets:  # no ports, on which runs could collide
        transport = {"transport": "ipc", "ip": os.path.join(sockets, "kernel")}
        client = NotebookClient(
            notebook,
            config=Config({"KernelManager": transport}),
            kernel_name="python3",
            timeout=600,
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        client.execute(env=dict(os.environ if env is None else env))
    notebook.metadata["language_info"] = {"name": "python"}  # not this machine's Python
    return notebook


def main() -> None:
    """Execute in place the notebooks named, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=console.local_path)
    for path in parser.parse_args().notebooks or sorted(FOLDER.glob("*.ipynb")):
        with progress.phase(path.name):
            nbformat.write(execute(path), path)
        console.say(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    console.command(main)
