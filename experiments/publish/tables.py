"""Markdown tables from results.json files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"

_METRICS = {
    "energy_distance": "energy distance ↓",
    "frechet_distance": "Fréchet distance ↓",
    "class_frechet_distance": "Fréchet distance by class ↓",
    "kid": "KID ↓",
    "precision": "precision ↑",
    "recall": "recall ↑",
    "inception_score": "Inception score ↑",
    "accuracy": "accuracy ↑",
}
_FEW = ("frechet_distance", "energy_distance", "precision", "recall", "accuracy")
_HIGHER_IS_BETTER = ("precision", "recall", "inception_score", "accuracy")


def title(metric: str) -> str:
    """A metric's name for the axis of a figure."""
    return _METRICS[metric].rstrip(" ↓↑")


def summary(results: Mapping) -> str:
    """`markdown` of few metrics, first of them the one that selected."""
    primary = results["primary_metric"]
    return markdown(results, (primary, *(name for name in _FEW if name != primary)))


def markdown(results: Mapping, metrics: Sequence[str] = tuple(_METRICS)) -> str:
    """Rows by the metrics they have, mean ± standard error over seeds; the best means in bold.

    metrics: those to show, in this order, where rows have them.
    """
    if "reward_metric" in results:
        return _reward_markdown(results)
    rows = results["rows"]
    names = [name for name in metrics if name in rows[0]["metrics"]]
    best = {name: _best(rows, name) for name in names}
    titles = [_METRICS[name] for name in names]
    lines = [
        "| method | selected on validation data | " + " | ".join(titles) + " |",
        "|---|---|" + "---:|" * len(names),
    ]
    for row in rows:
        cells = [cell(row["metrics"][name], bold=row["method"] == best[name]) for name in names]
        lines.append(f"| {row['method']} | {_params(row['params'])} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


_REWARD_METRICS = {
    "reward": "reward ↑",
    "training_reward": "reward in training ↑",
    "energy_distance": "energy distance ↓",
    "loss": "loss ↓",
    "tilt": "nearest tilt",
    "tilt_distance": "distance to it ↓",
}


def _reward_markdown(results: Mapping) -> str:
    """The unguided row; then for every weight the learned rows, and the best hand-made one.

    The latter by its loss, distance - weight reward, on validation data. The least loss of each
    weight is bold.
    """
    rows = results["rows"]
    names = [name for name in _REWARD_METRICS if name in rows[-1]["metrics"]]
    lines = [
        "| reward weight | method | " + " | ".join(_REWARD_METRICS[name] for name in names) + " |",
        "|---:|---|" + "---:|" * len(names),
        _reward_line("", rows[0], names, best=None),
    ]
    for gamma in results["config"]["reward"]["weights"]:
        tuned = [row for row in rows if row["params"].get("gamma") == gamma]
        learned = [row for row in tuned if row["family"].startswith("learned:")]
        others = [row for row in tuned if not row["family"].startswith("learned:")]
        hand_made = min(others, key=lambda row: _validation_loss(row, gamma))
        shown = [hand_made, *learned]
        best = min(shown, key=lambda row: row["metrics"]["loss"]["mean"])
        lines += [_reward_line(f"{gamma:g}", row, names, best=best) for row in shown]
    return "\n".join(lines) + "\n"


def _validation_loss(row: Mapping, gamma: float) -> float:
    scores = row["validation"]
    return scores["energy_distance"] - gamma * scores["training_reward"]


def _reward_line(gamma: str, row: Mapping, names: Sequence[str], *, best: Mapping | None) -> str:
    cells = [
        cell(row["metrics"][name], bold=name == "loss" and row is best)
        if name in row["metrics"]
        else ""
        for name in names
    ]
    return f"| {gamma} | {row['family']} | " + " | ".join(cells) + " |"


def reward_classes(results: Mapping) -> str:
    """Per class: reward, how far any row moved it, derivatives at omega = 0."""
    lines = [
        "| class | true law | unguided | least | most | by | slope | rising steps | one step |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for each in results["classes"]:
        name = each["class"] if each["helped"] else f"{each['class']} (cannot be helped)"
        numbers = (each[key] for key in ("true", "unguided", "least", "most"))
        slopes = (each[key] for key in ("slope", "slope_up", "one_step_slope"))
        left = " | ".join(f"{number:.3f}" for number in numbers)
        right = " | ".join(f"{number:+.3f}" for number in slopes)
        lines.append(f"| {name} | {left} | {each['most_by']} | {right} |")
    return "\n".join(lines) + "\n"


def comparisons(results: Mapping) -> str:
    """Learned rows against unguided and the best hand-made one: paired differences."""
    lines = [
        "| learned | against | metric | difference | standard error | real examples |",
        "|---|---|---|---:|---:|---:|",
    ]
    for each in results["comparisons"]:
        decisive = abs(each["mean"]) > 2.0 * each["standard_error"]
        mean = f"**{each['mean']:+.5f}**" if decisive else f"{each['mean']:+.5f}"
        names = f"| {each['method']} | {each['against']} | {each['metric']} "
        real = "" if each["real_error"] is None else f"{each['real_error']:.5f}"
        lines.append(f"{names}| {mean} | {each['standard_error']:.5f} | {real} |")
    return "\n".join(lines) + "\n"


def provenance(results: Mapping) -> str:
    """Command, hardware, time and commit behind a table."""
    took = ""
    if "seconds" in results:
        took = f": {sum(results['seconds'].values()) / 60.0:.1f} minutes in all"
    if results.get("given_networks"):
        took += f", without training {len(results['given_networks'])} networks of another run"
    return (
        f"\n`{results['command']}` on {results['device']}{took}; commit {results['commit'][:12]}.\n"
    )


def _best(rows: Sequence[Mapping], metric: str) -> str:
    pick = max if metric in _HIGHER_IS_BETTER else min
    return pick(rows, key=lambda row: row["metrics"][metric]["mean"])["method"]


def cell(metric: Mapping, *, bold: bool) -> str:
    """Mean ± standard error."""
    error = metric["std"] / len(metric["values"]) ** 0.5
    text = f"{metric['mean']:.4f} ± {error:.4f}"
    return f"**{text}**" if bold else text


def _params(params: Mapping) -> str:
    if any(isinstance(value, list) for value in params.values()):
        return "one interval for each class"
    return ", ".join(f"{name} {value:g}" for name, value in params.items()) or "none"
