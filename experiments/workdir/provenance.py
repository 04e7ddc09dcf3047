"""The origin of results: command, commit, device and versions."""

import importlib.metadata
import os
import subprocess
from pathlib import Path
from typing import Any

import jax


def provenance(command: str) -> dict[str, Any]:
    """The command, commit, device and versions that a file of results records."""
    return {
        "commit": _commit(),
        "command": command,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "numpy")
        },
    }


def _commit() -> str:
    """The commit of this code, with a mark for local changes; "unknown" outside git.

    The variable LGD_COMMIT names the commit of a copy without history (an image, a cluster).
    """
    if named := os.environ.get("LGD_COMMIT"):
        return named
    root = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, check=True, text=True
        )
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
