"""How much of a run's Frechet distance guidance can reach at all.

    python -m experiments.studies.floor --workdir=runs/fashion_mnist [--name=NAME]

Learns omega of class and step against the very features that measure, from training images, and
measures it on test images with the run's test noise: an estimate of the floor under every schedule
of that denoiser, and no row of the table, since it has seen the judge. Real training images,
measured alike, say what a perfect sampler would have. What lies between the two is the error of
the denoiser and of the sampling steps, which no weight of class and step removes.

Of a finished run on images. Interrupted, it goes on where it was. Writes floor.json into the
workdir; with --name also experiments/results/NAME.json.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments import build
from experiments import config as configs
from experiments.journal import Journal
from experiments.publish import tables
from experiments.stages import evaluate
from experiments.stages import guidance as guidance_stage
from experiments.stages.measure import Measure
from experiments.stages.tune import Candidates
from experiments.workdir import Workdir, WorkdirError, lock, read_json, write_json
from experiments.workdir.provenance import provenance
from lgd.data import Dataset
from lgd.evaluation import Found

METHOD = "trajectory_features"
METRIC = "frechet_distance"


def measure(config: ConfigDict, path: Path) -> dict[str, Any]:
    """Frechet distances of the floor, of real images, and of the rows of the run at ``path``.

    Raises ConfigError for a run whose Frechet distance is not that of a classifier's features.
    """
    _check(config)
    dataset = build.dataset(config)
    results = read_json(path / "results.json")
    with contextlib.closing(Workdir(path, config)) as run:
        run.bind_data(dataset)
        learned = _learned(config, run, dataset)
        generator = evaluate.final_generator(config, evaluate.make_generator(config, run, dataset))
        rows, _ = evaluate.measure_rows(
            config,
            run,
            dataset,
            generator,
            Candidates({"floor": learned}, {}),
            Journal(path / "floor-measured.jsonl"),
        )
        real = Measure(config, run, dataset)(_real_samples(dataset, rows[0]["num_samples"]))
    return {
        "config": configs.to_dict(config),
        "floor": rows[0]["metrics"][METRIC],
        "real": real["metrics"][METRIC],
        "rows": {row["method"]: row["metrics"][METRIC] for row in results["rows"]},
    }


def _check(config: ConfigDict) -> None:
    reached = config.evaluation.features == "classifier" and not build.has_known_law(config)
    if not reached or config.reward.name != "none":
        raise configs.ConfigError(
            [
                "evaluation.features: expected a run on images, without reward, measured by a "
                f"classifier; got data.name {config.data.name}, reward.name {config.reward.name}, "
                f"evaluation.features {config.evaluation.features}"
            ]
        )


def _learned(config: ConfigDict, run: Workdir, dataset: Dataset) -> Found:
    """Omega as it was at the end of training: there is nothing to select by that is no judge."""
    with contextlib.closing(Workdir(run.path / "floor", config)) as workdir:
        workdir.copy_params(run, ["denoiser", "classifier"])
        guidance_stage.learn(config, workdir, dataset, METHOD, ["classifier"])
        step = guidance_stage.snapshot_steps(config, METHOD)[-1]
        omega_fn = guidance_stage.load(config, workdir, dataset, METHOD, step)
    return Found({"step": step}, omega_fn, float("nan"))


def _real_samples(dataset: Dataset, num_samples: int) -> Array:
    """As many training images of every class as samples, (classes, n, *dims)."""
    n = num_samples // dataset.num_classes
    x, labels = dataset.train
    members = [np.flatnonzero(labels == k)[:n] for k in range(dataset.num_classes)]
    if min(map(len, members)) < n:
        raise configs.ConfigError(
            [
                f"evaluation.num_samples: expected at most {min(map(len, members))} a class, as "
                f"there are training images, got {n}"
            ]
        )
    return jnp.stack([jnp.asarray(x[index]) for index in members])


def table(results: Mapping[str, Any]) -> str:
    """Rows with the share of the way from unguided to the floor that each goes."""
    rows, floor = results["rows"], results["floor"]["mean"]
    unguided = rows["unguided"]["mean"]
    lines = ["| method | Fréchet distance ↓ | of what guidance reaches |", "|---|---:|---:|"]
    for name, metric in (rows | {"floor": results["floor"]}).items():
        share = (unguided - metric["mean"]) / (unguided - floor)
        label = "floor (ω learned on the judge)" if name == "floor" else name
        lines.append(f"| {label} | {tables.cell(metric, bold=False)} | {share:.0%} |")
    lines.append(f"| training images | {results['real']:.4f} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="of a finished run")
    parser.add_argument("--name", default="", help="of the results to publish")
    chosen = parser.parse_args()
    try:
        config = configs.from_dict(read_json(chosen.workdir / "config.json"))
        with lock.held(chosen.workdir):
            found = measure(config, chosen.workdir)
    except (WorkdirError, configs.ConfigError) as error:
        sys.exit(f"floor: {error}")
    found = provenance("python -m experiments.studies.floor --workdir=...") | found
    write_json(chosen.workdir / "floor.json", found)
    if chosen.name:
        write_json(tables.RESULTS / f"{chosen.name}.json", found)
    print(table(found))


if __name__ == "__main__":
    main()
