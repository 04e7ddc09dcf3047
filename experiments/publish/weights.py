"""Weights that come with the repository: what a finished run leaves in experiments/weights/."""

from collections.abc import Mapping
from pathlib import Path

from experiments import build
from experiments import config as configs
from experiments.methods import LEARNED
from experiments.publish import tables
from experiments.workdir import WorkdirError, read_json, write_json
from lgd.data.dataset import fingerprint
from lgd.machinery import digests, storage

WEIGHTS = tables.ROOT / "experiments" / "weights"
NETWORKS = ("denoiser", "classifier")


def pack(workdir: Path, name: str, results: str, method: str) -> None:
    """Copy what a finished run learned with a method into experiments/weights/NAME.

    results: the name under which the run is published.
    """
    values = read_json(workdir / "results.json", "config", "rows")
    dataset = build.dataset(configs.from_dict(values["config"]))
    learned_row(values, method)
    sources = {part: workdir / "params" / f"{part}.safetensors" for part in NETWORKS}
    sources["guidance"] = workdir / "guidance" / f"{method}.safetensors"
    (WEIGHTS / name).mkdir(parents=True, exist_ok=True)
    contents = {part: source.read_bytes() for part, source in sources.items()}
    for part, content in contents.items():
        storage.write(WEIGHTS / name / f"{part}.safetensors", content)
    manifest = {
        "results": results,
        "method": method,
        "shape": list(dataset.shape),
        "class_names": list(dataset.class_names),
        "test_sha256": fingerprint(dataset.test),
        "sha256": {part: digests.of_bytes(content) for part, content in contents.items()},
    }
    write_json(WEIGHTS / name / "manifest.json", manifest)


def learned_row(results: Mapping, method: str) -> Mapping:
    """The learned row of a method."""
    rows = {row["method"]: row for row in results["rows"]}
    learned = f"{LEARNED}{method}"
    if learned not in rows:
        raise WorkdirError(f"expected a row of {', '.join(rows)}, got {learned!r}")
    return rows[learned]
