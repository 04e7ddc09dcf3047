"""Stage 5: report/ with the table and every figure, from results.json."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import build, console, methods
from experiments.publish import tables
from experiments.stages import evaluate, export, report_page, report_samples
from experiments.stages import guidance as guidance_stage
from experiments.stages.guidance import Training
from experiments.stages.select import hand_made
from experiments.workdir import Workdir, read_json, write_text
from lgd import guidance, plots, report, schedules
from lgd.data import Dataset
from lgd.diffusion import direction_names
from lgd.evaluation.measures import PRIMARY
from lgd.machinery.processes import by_main


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Write report/report.md with its figures, and report/report.html; made anew every time."""
    results = read_json(workdir.path / "results.json", *evaluate.NAMES)
    functions = guidance_of_rows(config, workdir, dataset, results["rows"])
    samples = report_samples.draw(config, workdir, dataset, _shown(results, functions))
    names = direction_names(evaluate.make_generator(config, workdir, dataset).denoiser)
    figures = _figures(config, workdir, dataset, results, functions, names)
    page = report_page.page(
        config,
        workdir,
        dataset,
        results,
        functions,
        samples=samples.pictures,
        about=_about(results),
        directions=names,
    )
    figures["samples"] = samples.figure
    write(workdir, figures, _markdown(results, list(figures)), page, table=tables.markdown(results))


@by_main
def write(
    workdir: Workdir,
    figures: Mapping[str, Figure],
    markdown: str,
    page: report.Page,
    *,
    table: str,
) -> None:
    """Leave the report in the folder, and its table on the screen.

    Args:
      workdir: folder of the run.
      figures: figures by name, which the Markdown shows.
      markdown: the report as Markdown.
      page: the report as one HTML file.
      table: what is shown on the screen.
    """
    folder = workdir.path / "report"
    for name, figure in figures.items():
        workdir.write(folder / f"{name}.png", functools.partial(plots.save, figure))
    workdir.write(folder / "report.md", lambda file: write_text(file, markdown))
    workdir.write(folder / "report.html", functools.partial(report.write, page))
    console.say(table)
    console.say(f"report: {folder / 'report.md'}, and for a browser {folder / 'report.html'}")


def guidance_of_rows(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, rows: Iterable[Mapping]
) -> dict[str, Any]:
    """What each row of results guides by, from the parameters selected."""
    return {row["method"]: _guidance(config, workdir, dataset, row) for row in rows}


def _guidance(config: ConfigDict, workdir: Workdir, dataset: Dataset, row: Mapping) -> Any:
    family, params = row.get("family", row["method"]), dict(row["params"])
    gamma = params.pop("gamma", None)
    if family == "unguided":
        return guidance.constant(0.0)
    if methods.is_learned(family):
        training = Training(family.removeprefix(methods.LEARNED), gamma)
        return guidance_stage.load(config, workdir, dataset, training, params["step"])
    return hand_made(config, family, params)


def _figures(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    results: Mapping,
    functions: Mapping[str, Any],
    directions: Sequence[str],
) -> dict[str, Figure]:
    figures = {**metric_figures(results), "weight": _weight_figure(results)}
    if config.guidance.methods:
        learned = {name: each for name, each in functions.items() if methods.is_learned(name)}
        figures["omega"] = omega_figure(config, dataset, learned, _drawn(functions), directions)
        trained = [name for name in config.guidance.methods if name not in methods.WALKS]
        curves = {f"learned:{name}": workdir.curve(name, "loss") for name in trained}
        if curves:
            figures["training"] = plots.training_curves(curves, ylabel="training loss")
    return figures


def metric_figures(results: Mapping) -> dict[str, Figure]:
    """The primary metric of every row, and one that nothing was selected by."""
    other = "frechet" if results["primary_metric"] == PRIMARY else "energy"
    metrics = {"methods": results["primary_metric"], other: f"{other}_distance"}
    rows, lower = results["rows"], results["lower_is_better"]
    return {name: plots.method_bars(rows, metric, lower) for name, metric in metrics.items()}


def _shown(results: Mapping, functions: Mapping[str, Any]) -> dict[str, Any]:
    """What pictures show: no guidance, the best hand-made schedule, and what was learned."""
    hand_made = [row for row in results["rows"] if row["family"] in guidance.FAMILIES]
    best = min(hand_made, key=lambda row: row["validation"])["method"]
    return {
        name: function
        for name, function in functions.items()
        if name in ("unguided", best) or methods.is_learned(name)
    }


def _drawn(functions: Mapping[str, Any]) -> dict[str, Any]:
    """Hand-made schedules that are one curve."""
    families = guidance.FAMILIES
    return {
        name: function
        for name, function in functions.items()
        if name in families and not families[name].is_per_stratum and function.num_directions == 1
    }


def omega_figure(
    config: ConfigDict,
    dataset: Dataset,
    learned: Mapping[str, Any],
    drawn_in: Mapping[str, Any],
    directions: Sequence[str] = ("uncond",),
) -> Figure:
    """Omega of every step of the sampling grid, over the logsnr that the step starts from.

    Args:
      config: settings of the run.
      dataset: real examples.
      learned: guidance with a panel of its own for every direction, by name.
      drawn_in: guidance that is one curve of every panel, by name.
      directions: what guidance leads away from.
    """
    times, (c, names) = build.times(config), export.shown_conditions(dataset)
    c = jax.tree.map(jnp.asarray, c)
    logsnr = np.asarray(schedules.clipped_logsnr(build.schedule(config), times[:-1]))
    inside = np.abs(logsnr) < 0.99 * schedules.LOGSNR_LIMIT  # the ends may be infinite
    panels = {}
    for name, function in learned.items():
        values = np.asarray(guidance.on_grid(function, times, c))[inside]
        if values.ndim == 2:
            panels[name] = values.T
            continue
        for of, direction in zip(directions, values.transpose(2, 1, 0), strict=True):
            panels[f"{name}, away from {of}"] = direction
    dashed = {
        name: np.asarray(guidance.on_grid(function, times, c))[inside, 0]
        for name, function in drawn_in.items()
    }
    return plots.omega_curves(panels, dashed, logsnr=logsnr[inside], class_names=names)


def _weight_figure(results: Mapping) -> Figure:
    constant = results["constant_screening"]
    others = {
        row["method"]: (row["validation"], 0.0)
        for row in results["rows"]
        if row["validation"] is not None and row["method"] != "constant"
    }
    weights, values = constant["weights"], constant["values"]
    label = f"{results['primary_metric'].replace('_', ' ')} (validation)"
    return plots.metric_against_weight(
        weights, values, np.zeros(len(values)), others, metric_name=label
    )


_CAPTIONS = {
    "methods": "The primary metric of every row on test data.",
    "frechet": "Fréchet distance of every row on test data, an independent metric.",
    "energy": "Energy distance of every row on test data; nothing was selected by it.",
    "omega": "What was learned: omega of every class over logsnr, hand-made schedules drawn in.",
    "weight": "Constant guidance over its weight, on validation data; the other rows as lines.",
    "training": "Training loss of every learned row.",
    "samples": "Samples of every method from the same noise.",
}


def evaluations(results: Mapping) -> str:
    """Network evaluations for a sample, a range where rows skip calls."""
    each = sorted({row["nfe"] for row in results["rows"]})
    counts = " to ".join(f"{nfe:g}" for nfe in dict.fromkeys((each[0], each[-1])))
    return f"{counts} network evaluations"


def _classifiers(results: Mapping) -> list[str]:
    """How good the networks behind the metrics are, where there are any."""
    found = results["classifiers"]
    each = ", ".join(f"{name.replace('_', ' ')} {share:.3f}" for name, share in found.items())
    return [f"Accuracy on real test images: {each}.\n"] if found else []


def _about(results: Mapping) -> str:
    """How many samples, seeds and steps stand behind the numbers, and where they were made."""
    row, settings = results["rows"][0], results["config"]["evaluation"]
    return (
        f"{row['num_samples']} samples a run, {settings['test_seeds']} test seeds, "
        f"{row['num_steps']} steps ({evaluations(results)}); mean ± standard error. "
        f"Parameters were selected on validation data. {results['device']}, "
        f"commit {results['commit'][:12]}."
    )


def _markdown(results: Mapping, figures: list[str]) -> str:
    lines = [
        f"# {report_page.title(results)}\n",
        f"{_about(results)}\n",
        tables.markdown(results),
        "Differences paired by seed, learned minus other; bold beyond two standard errors over "
        "seeds. Real examples: how far resampling the test data moves the difference "
        "(bootstrap within classes, standard deviation).\n",
        tables.markdown(results, "comparisons"),
        *_classifiers(results),
    ]
    lines += [f"![{_CAPTIONS[name]}]({name}.png)\n\n{_CAPTIONS[name]}\n" for name in figures]
    return "\n".join(lines)
