"""Where the time of a compiled program goes, from JAX's profiler."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = .*?op_name=\"([^\"]*)\"", re.MULTILINE)
_CONTROL = re.compile(r"^(while|conditional|call)\b")  # their time is that of what they hold
_KERNELS = {  # by name, for kernels that no instruction is known of
    "attention": re.compile(r"fmha|flash|sdpa"),
    "convolutions": re.compile(r"conv(?!ert)|fprop|dgrad|wgrad"),
    "products": re.compile(r"gemm|gemv|nvjet|cublas|\bdot"),
    "copies": re.compile(r"copy|transpose|memcpy|memset", re.IGNORECASE),
}
KINDS = ("convolutions", "products", "attention", "pointwise and sums", "optimizer", "copies")


def profile(run: Callable[[], Any], text: str, rounds: int) -> dict[str, Any]:
    """Return shares of time by kind of work, and the operations that take most.

    run: the compiled program; text: its HLO (``compiled.as_text()``), from which operations get the
    names that JAX gave them. Returns ``{"kinds": {kind: share}, "operations": [[name, share]]}``,
    the first 15. Numbers in names are dropped, so that equal blocks count together.
    """
    jax.block_until_ready(run())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(rounds):
                jax.block_until_ready(run())
        traces = [ProfileData.from_file(str(file)) for file in Path(folder).rglob("*.xplane.pb")]
    names = dict(_INSTRUCTION.findall(text))
    kinds: defaultdict[str, float] = defaultdict(float)
    operations: defaultdict[str, float] = defaultdict(float)
    for instruction, seconds in (each for trace in traces for each in _events(trace)):
        name = names.get(instruction, "")
        kinds[kind_of(instruction, name)] += seconds
        operations[_plain(name or instruction)] += seconds
    total = sum(kinds.values())
    if not total:
        raise RuntimeError("expected a trace with operations, got one without: is a profiler on?")
    most = sorted(operations.items(), key=lambda item: -item[1])[:15]
    return {
        "kinds": {kind: kinds[kind] / total for kind in KINDS},
        "operations": [[name, value / total] for name, value in most],
    }


def _events(trace: ProfileData) -> Iterator[tuple[str, float]]:
    """Instruction, or else kernel, and seconds of all that devices did; of a CPU, its threads."""
    planes = list(trace.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in devices or planes:
        for line in plane.lines:
            if devices and not line.name.startswith(("Stream", "XLA Ops")):
                continue
            for event in line.events:
                instruction = dict(event.stats).get("hlo_op")
                if instruction is None and not devices:
                    continue  # of Python and the runtime
                operation = str(instruction or event.name)
                if not _CONTROL.match(operation):
                    yield operation, event.duration_ns / 1e9


def kind_of(instruction: str, name: str) -> str:
    """Return one of `KINDS`, of an instruction (or kernel) and JAX's name for it, if it has one.

    Such a name is "jit(step)/jvp(UNet)/in/conv_general_dilated"; what the compiler added has none.
    """
    inner = re.search(r"/attention/(?!(qkv|out)/)", name)
    if inner:
        return "attention"
    if name.endswith("conv_general_dilated"):
        return "convolutions"
    if name.endswith("dot_general"):
        return "products"
    if "jvp(" in name:
        return "copies" if name.endswith("transpose") else "pointwise and sums"
    if name:
        return "optimizer"
    known = (kind for kind, pattern in _KERNELS.items() if pattern.search(instruction))
    return next(known, "pointwise and sums")


def _plain(name: str) -> str:
    return re.sub(r"[._]?\d+", "", name.removeprefix("jit(step)/"))
