"""Stage 5 of a run with a reward: report/ with tables and figures, from results.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import methods
from experiments.publish import tables
from experiments.stages import evaluate, report, report_page, report_samples
from experiments.workdir import Workdir, read_json
from lgd import guidance, plots
from lgd.data import Dataset
from lgd.evaluation.measures import PRIMARY
from lgd.report import Conclusion, conclude

_DISTANCE = "energy distance to real test data   (lower is better)"


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Write report/report.md with its figures, and report/report.html; made anew every time."""
    results = read_json(workdir.path / "results.json", *evaluate.NAMES, "classes", "tilted")
    weights = config.reward.weights
    some = [weights[0], weights[len(weights) // 2], weights[-1]]
    learned = _learned(config, workdir, dataset, results, some)
    rewarded = _learned(config, workdir, dataset, results, some[1:])
    unguided = {"unguided": guidance.constant(0.0)}
    samples = report_samples.draw(config, workdir, dataset, unguided | rewarded)
    figures = _figures(config, dataset, results, learned) | {"samples": samples.figure}
    page = report_page.page(
        config,
        workdir,
        dataset,
        results,
        learned,
        samples=samples.pictures,
        about=_about(results),
        conclusions=_conclusions(workdir, results),
    )
    markdown = _markdown(results, list(figures))
    report.write(workdir, figures, markdown, page, table=tables.markdown(results))


def _conclusions(workdir: Workdir, results: Mapping) -> list[Conclusion]:
    """What follows for every weight of the reward, by the loss, which is less where better."""
    rows, found = results["rows"], []
    for weight in dict.fromkeys(row["params"].get("gamma") for row in rows):
        of_weight = [row for row in rows if row["params"].get("gamma") == weight]
        if weight is not None:
            how = {"metric": "loss", "comparisons": results["comparisons"]}
            times = report_page.seconds(workdir, of_weight)
            about = f"Weight {weight:g} of the reward"
            found.append(conclude(of_weight, **how, seconds=times, about=about))
    return found


def _figures(
    config: ConfigDict, dataset: Dataset, results: Mapping, learned: Mapping[str, Any]
) -> dict[str, Figure]:
    families = _families(results)
    name = _reward_name(config)
    real = None if results["tilted"] else ("real test data", results["true_reward"])
    figures = {
        "reward": plots.metric_against_metric(
            families,
            (PRIMARY, "reward"),
            xlabel=_DISTANCE,
            ylabel=f"mean {name}\n(higher is better)",
            references=_tilt_curve(results),
            level=real,
        ),
        "weights": plots.metrics_against_reward_weight(_tuned(families), _panels(results)),
        "classes": _classes_figure(dataset, results, families, name),
    }
    if "training_reward" in results["rows"][0]["metrics"]:
        figures["rewards"] = plots.metric_against_metric(
            families,
            ("training_reward", "reward"),
            xlabel=r"mean reward $\log p(c \mid x_0)$, network of training",
            ylabel=f"mean {name}",
        )
    return figures | {"omega": report.omega_figure(config, dataset, learned, {})}


def _reward_name(config: ConfigDict) -> str:
    """What is measured, for the axes."""
    settings = config.reward
    if settings.name == "classifier":
        return r"reward $\log p(c \mid x_0)$, measuring network"
    if settings.name == "bump":
        return f"reward: bump of width {settings.scale:g} at {_vector(settings.centre)}"
    projection = rf"\langle {_vector(settings.direction)}, x_0 \rangle"
    if settings.name == "linear":
        return f"reward ${projection}$"
    return rf"reward $\tanh({projection} / {settings.scale:g})$"


def _vector(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})" if len(values) < 4 else "a"


def _families(results: Mapping) -> dict[str, list[Mapping]]:
    """Rows by family, in their order."""
    families: dict[str, list[Mapping]] = {}
    for row in results["rows"]:
        families.setdefault(row["family"], []).append(row)
    return families


def _tuned(families: Mapping[str, list[Mapping]]) -> dict[str, list[Mapping]]:
    """Families that were tuned for every weight of the reward."""
    return {name: rows for name, rows in families.items() if "gamma" in rows[-1]["params"]}


def _panels(results: Mapping) -> dict[str, str]:
    labels = {
        "reward": "mean reward",
        PRIMARY: "energy distance",
        "tilt": "nearest tilt",
        "tilt_distance": "distance to nearest tilt",
        "accuracy": "accuracy",
        "frechet_distance": "Fréchet distance",
    }
    have = results["rows"][-1]["metrics"]
    names = [name for name in labels if name in have]
    return {name: labels[name] for name in names[:4]}


def _tilt_curve(results: Mapping) -> dict[str, tuple[list[float], list[float]]]:
    """What the tilted laws reach, for gammas of 0 and above."""
    tilted = results["tilted"]
    if tilted is None:
        return {}
    kept = [i for i, gamma in enumerate(tilted["gamma"]) if gamma >= 0.0]
    x, y = ([tilted[key][i] for i in kept] for key in (PRIMARY, "reward"))
    return {r"tilted law $p\,e^{\gamma R}$": (x, y)}


def _classes_figure(
    dataset: Dataset, results: Mapping, families: Mapping[str, list[Mapping]], name: str
) -> Figure:
    ranges, shown = {}, slice(report_samples.SHOWN_CLASSES)
    for family, rows in families.items():
        if family != "unguided":
            reached = np.asarray(
                [row["reward_by_class"][shown] for row in (results["rows"][0], *rows)]
            )
            ranges[family] = (reached.min(axis=0), reached.max(axis=0))
    classes = results["classes"][shown]
    return plots.reward_ranges(
        ranges,
        [each["unguided"] for each in classes],
        [each["true"] for each in classes],
        class_names=dataset.class_names[shown],
        helped=[each["helped"] for each in classes],
        xlabel=f"mean {name}; bars: all schedules of a family",
    )


def _learned(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    results: Mapping,
    weights: Sequence[float],
) -> dict[str, Any]:
    """The learned rows of some weights."""
    rows = [
        row
        for row in results["rows"]
        if methods.is_learned(row["family"]) and row["params"]["gamma"] in weights
    ]
    return report.guidance_of_rows(config, workdir, dataset, rows)


_CAPTIONS = {
    "reward": "Reward against the primary metric on test data, a curve for each family; up and to "
    "the left is better. Numbers are weights of the reward.",
    "weights": "What a family does when tuned for each weight of the reward.",
    "classes": "How far each family moves the reward of each class.",
    "rewards": "The reward that was trained on, and the one of an independent network: a row whose "
    "gain is in the first alone would hack the reward.",
    "omega": "What was learned for the first, the middle and the last weight.",
    "samples": "Samples from the same noise.",
}


def _about(results: Mapping) -> str:
    """How many samples, seeds and steps stand behind the numbers, and where they were made."""
    config, row = results["config"], results["rows"][0]
    return (
        f"{row['num_samples']} samples a run, {config['evaluation']['test_seeds']} test seeds, "
        f"{row['num_steps']} steps ({report.evaluations(results)}); mean ± standard error. "
        "Every family minimises its loss, distance - weight * reward, on validation data. "
        f"{results['device']}, commit {results['commit'][:12]}."
    )


def _markdown(results: Mapping, figures: list[str]) -> str:
    shown = results["classes"][: report_samples.SHOWN_CLASSES]
    cannot = [each["class"] for each in shown if not each["helped"]]
    lines = [
        f"# {report_page.title(results)}\n",
        f"{_about(results)}\n",
        tables.markdown(results),
        "Learned minus the best hand-made row of the same weight, paired by seed; bold beyond two "
        "standard errors over seeds. Real examples: standard deviation of the difference when the "
        "test data are resampled.\n",
        tables.markdown(results, "comparisons"),
        "Classes. Slopes are derivatives of a class's mean reward at ω = 0: by one ω for all "
        "steps, by those steps alone where it rises, and as one step of Alg. 4 sees it. "
        f"Of the {len(shown)} classes shown, no schedule helps: {', '.join(cannot) or 'none'}.\n",
        tables.markdown({**results, "classes": shown}, "classes"),
    ]
    lines += [f"![{_CAPTIONS[name]}]({name}.png)\n\n{_CAPTIONS[name]}\n" for name in figures]
    return "\n".join(lines)
