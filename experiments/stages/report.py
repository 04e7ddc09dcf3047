"""Stage 5: report/ with the table and every figure, from results.json."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import build, console
from experiments.publish import tables
from experiments.rules.guidance import PATH
from experiments.stages import evaluate, export
from experiments.stages import guidance as guidance_stage
from experiments.stages.guidance import Training
from experiments.stages.select import hand_made
from experiments.workdir import Workdir, read_json, write_text
from lgd import conditions, guidance, plots, schedules
from lgd.data import Dataset
from lgd.diffusion import direction_names
from lgd.evaluation.measures import PRIMARY
from lgd.machinery.processes import by_main

_SHOW_SEED = evaluate.TEST_SEED
SHOWN_CLASSES = 40  # in pictures of samples and tables; of more, the first ones


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Write report/report.md and its figures; made anew every time."""
    results = read_json(workdir.path / "results.json", *evaluate.NAMES)
    figures = _figures(config, workdir, dataset, results)
    write(workdir, figures, _markdown(results, list(figures)), table=tables.markdown(results))


@by_main
def write(workdir: Workdir, figures: Mapping[str, Figure], markdown: str, *, table: str) -> None:
    """Leave figures and report.md in the folder, and the table on the screen."""
    folder = workdir.path / "report"
    for name, figure in figures.items():
        workdir.write(folder / f"{name}.png", functools.partial(plots.save, figure))
    workdir.write(folder / "report.md", lambda file: write_text(file, markdown))
    console.say(table)
    console.say(f"report: {folder / 'report.md'}")


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
    if family.startswith("learned:"):
        training = Training(family.removeprefix("learned:"), gamma)
        return guidance_stage.load(config, workdir, dataset, training, params["step"])
    return hand_made(config, family, params)


def _figures(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, results: Mapping
) -> dict[str, Figure]:
    functions = guidance_of_rows(config, workdir, dataset, results["rows"])
    figures = {**metric_figures(results), "weight": _weight_figure(results)}
    if config.guidance.methods:
        learned = {name: each for name, each in functions.items() if name.startswith("learned:")}
        names = direction_names(evaluate.make_generator(config, workdir, dataset).denoiser)
        figures["omega"] = omega_figure(config, dataset, learned, _drawn(functions), names)
        trained = [name for name in config.guidance.methods if name != PATH]
        curves = {f"learned:{name}": workdir.curve(name, "loss") for name in trained}
        if curves:
            figures["training"] = plots.training_curves(curves, ylabel="training loss")
    samples = density_figure if build.has_known_law(config) else samples_figure
    return figures | {"samples": samples(config, workdir, dataset, _shown(results, functions))}


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
        if name in ("unguided", best) or name.startswith("learned:")
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


def samples_figure(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, functions: Mapping[str, Any]
) -> Figure:
    """Eight samples of every class or caption shown, the same noise for every method."""
    c, names = export.shown_conditions(dataset)
    names = names[:SHOWN_CLASSES]
    generator = evaluate.make_generator(config, workdir, dataset)
    c = conditions.take(c, slice(len(names)))
    generator = dataclasses.replace(generator, conditions=c, groups=0)
    samples = {
        name: np.asarray(generator(function, 8, seed=_SHOW_SEED))
        for name, function in functions.items()
    }
    return plots.sample_grid(samples, list(names))


def density_figure(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, functions: Mapping[str, Any]
) -> Figure:
    """Samples over the density of all classes."""
    generator = evaluate.make_generator(config, workdir, dataset)
    exact, params = build.exact_denoiser(config)
    limit, size = float(np.abs(dataset.test.x).max()) * 1.05, 200
    axis = jnp.linspace(-limit, limit, size)
    plane = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    null = jnp.full(len(plane), exact.num_classes, jnp.int32)
    density = jax.jit(exact.log_density)(params, plane, t=jnp.full(len(plane), 1e-3), c=null)
    samples, labels = {}, np.repeat(np.arange(dataset.num_classes), 100)
    for name, function in functions.items():
        samples[name] = np.asarray(generator(function, 100, seed=_SHOW_SEED)).reshape(-1, 2)
    return plots.density_samples(
        samples,
        dict.fromkeys(samples, labels),
        np.asarray(density).reshape(size, size),
        extent=(-limit, limit, -limit, limit),
        class_names=dataset.class_names,
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


def _markdown(results: Mapping, figures: list[str]) -> str:
    config = results["config"]
    row = results["rows"][0]
    lines = [
        f"# {config['data']['name']}, denoiser: {config['denoiser']['level']}\n",
        f"{row['num_samples']} samples a run, {config['evaluation']['test_seeds']} test seeds, "
        f"{row['num_steps']} steps ({evaluations(results)}); mean ± standard error. "
        f"Parameters were selected on validation data. {results['device']}, "
        f"commit {results['commit'][:12]}.\n",
        tables.markdown(results),
        "Differences paired by seed, learned minus other; bold beyond two standard errors over "
        "seeds. Real examples: how far resampling the test data moves the difference "
        "(bootstrap within classes, standard deviation).\n",
        tables.markdown(results, "comparisons"),
        *_classifiers(results),
    ]
    lines += [f"![{_CAPTIONS[name]}]({name}.png)\n\n{_CAPTIONS[name]}\n" for name in figures]
    return "\n".join(lines)
