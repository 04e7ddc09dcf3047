"""Publish a finished run: its results, figures and tables into the repository.

    python -m experiments.publish --workdir=runs/digits --name=digits-under

Copies results.json, with the seconds of each stage and the networks that none of them trained, to
experiments/results/NAME.json, and the figures named by --figures to docs/NAME-FIGURE.png; then
rewrites the tables of all documents. --weights=METHOD also ships what the method learned, with the
denoiser and the classifier, which the study pretrained reads.
"""

import argparse
import collections
import shutil
from collections.abc import Mapping
from pathlib import Path

from experiments import config as configs
from experiments import console
from experiments.console import local_path
from experiments.publish import documents, tables, weights
from experiments.stages import denoiser
from experiments.workdir import WorkdirError, read_json, read_lines, write_json


def publish(workdir: Path, name: str, figures: list[str]) -> None:
    """Copy, then rewrite the tables."""
    results = read_json(workdir / "results.json", "config", "rows", "commit")
    if results["commit"].endswith("+changes") or results["commit"] == "unknown":
        raise WorkdirError(
            f"{workdir}: expected a run of committed code, got {results['commit']!r}"
        )
    results["seconds"] = _seconds(workdir)
    results["given_networks"] = _given(results["config"], results["seconds"])
    write_json(tables.RESULTS / f"{name}.json", results)
    for figure in figures:
        shutil.copyfile(
            workdir / "report" / f"{figure}.png", tables.ROOT / "docs" / f"{name}-{figure}.png"
        )
    documents.rewrite()


def _seconds(workdir: Path) -> dict[str, float]:
    """Seconds of every stage, each time it was gone through; what was interrupted is lost."""
    seconds: dict[str, float] = collections.defaultdict(float)
    for line in read_lines(workdir / "timings.jsonl", {"stage": str, "seconds": float}):
        seconds[line["stage"]] += line["seconds"]
    return {stage: round(each, 2) for stage, each in seconds.items()}


def _given(config: Mapping, seconds: Mapping[str, float]) -> list[str]:
    """Networks that the workdir got from another run: no stage of this one has trained them."""
    settings = configs.from_dict(config, is_older=True)  # a run may be published by later code
    exact = settings.denoiser.level == "exact"
    needed = [*([] if exact else ["denoiser"]), *denoiser.classifiers(settings)]
    return [name for name in needed if name not in seconds]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--workdir", type=local_path, required=True, help="folder of a finished run"
    )
    parser.add_argument(
        "--name", required=True, help="<config>-<variant>, for example digits-under"
    )
    parser.add_argument("--figures", default="", help="names of report figures, by commas")
    parser.add_argument("--weights", default="", help="method whose guidance is to be shipped")
    arguments = parser.parse_args()
    figures = list(filter(None, arguments.figures.split(",")))
    with console.in_words():
        if arguments.weights:
            config_name = arguments.name.partition("-")[0]
            weights.pack(arguments.workdir, config_name, arguments.name, arguments.weights)
        publish(arguments.workdir, arguments.name, figures)


if __name__ == "__main__":
    console.command(main)
