"""Flags of XLA for tests, which compile much and compute little."""

import importlib.util
import mmap
import os
from pathlib import Path

# Without its slower compilers, which halves the time of compilation.
_QUICK = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


def for_tests():
    """Those of the environment, eight devices, and the quick ones; workers inherit them."""
    given = os.environ.get("XLA_FLAGS", "")
    if "PYTEST_XDIST_WORKER" in os.environ:
        return given
    return " ".join([given, "--xla_force_host_platform_device_count=8", *_of_this_version(_QUICK)])


def _of_this_version(flags):
    """Flags that are named in jaxlib; XLA ends the process for any other."""
    folder = Path(importlib.util.find_spec("jaxlib").origin).parent
    for library in folder.glob("libjax_common.*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
            return [f for f in flags if text.find(f.strip("-").split("=")[0].encode()) >= 0]
    return []
