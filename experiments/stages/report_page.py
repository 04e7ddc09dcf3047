"""What the HTML report of a run holds, from its results and what it learned."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import build, methods
from experiments import config as configs
from experiments.stages import export
from experiments.stages.guidance import Training
from experiments.workdir import Workdir, read_lines
from lgd import guidance, report, schedules
from lgd.data import Dataset
from lgd.guidance import takes_features
from lgd.machinery import json_file, storage


def page(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    results: Mapping[str, Any],
    functions: Mapping[str, Any],
    *,
    samples: report.Samples | None,
    about: str,
    directions: Sequence[str] = ("uncond",),
    conclusions: Sequence[report.Conclusion] = (),
) -> report.Page:
    """The page of a run.

    Args:
      config: settings of the run.
      workdir: folder of the run.
      dataset: real examples.
      results: its results.json.
      functions: what rows guide by, by method; rows may be left out.
      samples: pictures of samples.
      about: sentences below the heading.
      directions: what guidance leads away from.
      conclusions: what follows from the rows; (): what follows by the primary metric.
    """
    return report.Page(
        title=title(results),
        about=about,
        rows=results["rows"],
        primary_metric=results["primary_metric"],
        lower_is_better=results["lower_is_better"],
        comparisons=results["comparisons"],
        conclusions=conclusions,
        seconds=seconds(workdir, results["rows"]),
        weights=weights(config, workdir, dataset, results["rows"], functions, directions),
        samples=samples,
        files=_files(workdir, results),
        place="Paths begin in the folder of the run.",
        config=results["config"],
        command=results.get("command", ""),
    )


def title(results: Mapping[str, Any]) -> str:
    """The heading of a report."""
    config = results["config"]
    if "reward_metric" in results:
        return f"{config['data']['name']} with a reward: {config['reward']['name']}"
    return f"{config['data']['name']}, denoiser: {config['denoiser']['level']}"


def seconds(workdir: Workdir, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of learning, by method, and of tuning; what was interrupted is lost."""
    found: dict[str, float] = collections.defaultdict(float)
    for line in read_lines(workdir.path / "timings.jsonl", {"stage": str, "seconds": float}):
        found[line["stage"]] += line["seconds"]
    trainings = {row["method"]: _training(row).checkpoints for row in rows if _is_learned(row)}
    times = {method: found[stage] for method, stage in trainings.items() if stage in found}
    return times | ({"tune": found["tune"]} if "tune" in found else {})


def weights(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    rows: Sequence[Mapping[str, Any]],
    functions: Mapping[str, Any],
    directions: Sequence[str] = ("uncond",),
) -> report.Weights:
    """Omega on the sampling grid of whatever is known before sampling.

    Of several directions each has a curve of its own. Where `experiments.studies ablations` has
    learned a row with other training seeds too, these are there beside the run's own.

    Args:
      config: settings of the run.
      workdir: folder of the run.
      dataset: real examples.
      rows: of the results.
      functions: what rows guide by, by method.
      directions: what guidance leads away from.
    """
    times, (c, names) = build.times(config), export.shown_conditions(dataset)
    c = jax.tree.map(jnp.asarray, c)
    omega: dict[str, np.ndarray] = {}
    for row in rows:
        function = functions.get(row["method"])
        if function is None or row["method"] == "unguided" or takes_features(function):
            continue
        seeds = [function, *(_of_other_seeds(config, workdir, row, function))]
        values = np.stack([np.asarray(guidance.on_grid(each, times, c)) for each in seeds])
        values = values.swapaxes(1, 2)  # (r, g, k, *d)
        if values.ndim == 3:
            omega[row["method"]] = values
            continue
        for name, of_one in zip(directions, np.moveaxis(values, -1, 0), strict=True):
            omega[f"{row['method']}, away from {name}"] = of_one
    return report.Weights(axes=_axes(config, times), conditions=names, omega=omega)


def _axes(config: ConfigDict, times: jax.Array) -> dict[str, np.ndarray]:
    """What omega is drawn over, at the start of every step; logsnr NaN where it is infinite."""
    schedule, t = build.schedule(config), times[:-1]
    logsnr = np.asarray(schedules.clipped_logsnr(schedule, t), np.float64)
    return {
        "t": np.asarray(t, np.float64),
        "sigma": np.asarray(schedule.sigma(t), np.float64),
        "step": np.arange(1.0, len(t) + 1.0),
        "logsnr": np.where(np.abs(logsnr) < 0.99 * schedules.LOGSNR_LIMIT, logsnr, np.nan),
    }


def _of_other_seeds(
    config: ConfigDict, workdir: Workdir, row: Mapping[str, Any], function: Any
) -> list[Any]:
    """The same learned with other training seeds and kept at the same step, where it was."""
    if not _is_learned(row) or not hasattr(function, "params"):
        return []
    training, found = _training(row), []
    own = configs.to_dict(config)
    own["guidance"]["methods"] = [training.method]
    for folder in sorted((workdir.path / "ablations").glob("*")):
        file = folder / "params" / f"{training.snapshot(row['params']['step'])}.safetensors"
        try:
            theirs = json_file.parsed((folder / "config.json").read_bytes(), strict=False)
            changes = [line.partition(":")[0] for line in configs.diff(own, theirs)]
            if changes == ["seed"]:
                params = storage.load_params(file, function.params)
                found.append(dataclasses.replace(function, params=params))
        except (OSError, ValueError):  # a study that is not finished
            continue
    return found


def _files(workdir: Workdir, results: Mapping[str, Any]) -> dict[str, str]:
    """Files of what was learned, the best by the primary metric first."""
    learned = [row for row in results["rows"] if _is_learned(row)]
    sign = 1.0 if results["lower_is_better"] else -1.0
    order = sorted(learned, key=lambda r: sign * r["metrics"][results["primary_metric"]]["mean"])
    names = {
        row["method"]: row["method"].removeprefix(methods.LEARNED).replace(":", "-")
        for row in order
    }
    return {
        method: f"guidance/{name}.safetensors"
        for method, name in names.items()
        if (workdir.path / "guidance" / f"{name}.safetensors").is_file()
    }


def _is_learned(row: Mapping[str, Any]) -> bool:
    return methods.is_learned(row.get("family", row["method"]))


def _training(row: Mapping[str, Any]) -> Training:
    family = row.get("family", row["method"])
    return Training(family.removeprefix(methods.LEARNED), row["params"].get("gamma"))
