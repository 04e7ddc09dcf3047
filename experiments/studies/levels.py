"""Every method's metric over the training of the denoiser, from published results.

    python -m experiments.studies.levels --names=digits-under,digits-middle,digits-well

Draws docs/LEVELS.png (digits-levels.png for these names): the metric that selected, over that of
unguided samples, paired by seed. Below 1 guidance helps, above 1 it hurts; curves far above leave
the picture.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.publish import tables
from experiments.publish.tables import RESULTS, ROOT
from experiments.workdir import WorkdirError, read_json
from lgd import plots

_HIGHEST = 1.12  # ratio that a picture shows


def _training(results: Mapping) -> tuple[str, int]:
    """Level of the denoiser and its number of training steps."""
    settings = results["config"]["denoiser"]
    return settings["level"], settings["num_steps"][settings["level"]]


def relative(results: Mapping) -> dict[str, tuple[float, float]]:
    """Mean over seeds of each row's metric over the unguided one's, and its standard error."""
    metric = results["primary_metric"]
    values = {row["method"]: np.array(row["metrics"][metric]["values"]) for row in results["rows"]}
    ratios = {name: mine / values["unguided"] for name, mine in values.items()}
    return {
        name: (float(ratio.mean()), float(ratio.std(ddof=1) / len(ratio) ** 0.5))
        for name, ratio in ratios.items()
    }


def table(each: Sequence[Mapping]) -> str:
    """Methods by levels: mean +- standard error of the primary metric, the best in bold."""
    metric = each[0]["primary_metric"]
    by_name = [
        {row["method"]: row["metrics"][metric] for row in results["rows"]} for results in each
    ]
    best = [min(rows, key=lambda name: rows[name]["mean"]) for rows in by_name]
    titles = [f"{level} ({steps:,} steps)" for level, steps in map(_training, each)]
    lines = ["| method | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for name in by_name[0]:
        cells = [
            tables.cell(rows[name], bold=name == winner)
            for rows, winner in zip(by_name, best, strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(each: Sequence[Mapping]) -> Figure:
    """Curves over the number of training steps of the denoiser."""
    steps = [steps for _, steps in map(_training, each)]
    found = [relative(results) for results in each]
    lowest = min(ratio - error for rows in found for ratio, error in rows.values())
    highest = max(ratio + error for rows in found for ratio, error in rows.values())
    curves = {
        name: (steps, *np.transpose([by_name[name] for by_name in found])) for name in found[0]
    }
    return plots.method_curves(
        {"": curves},
        xlabel="training steps of the denoiser",
        ylabel=f"{tables.title(each[0]['primary_metric'])} / unguided",
        ylim=(lowest - 0.02, min(highest + 0.02, _HIGHEST)),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--names", default="digits-under,digits-middle,digits-well", help="published results"
    )
    names = parser.parse_args().names.split(",")
    try:
        picture = figure([read_json(RESULTS / f"{name}.json") for name in names])
    except WorkdirError as error:
        sys.exit(f"levels: {error}")
    plots.save(picture, ROOT / "docs" / f"{names[0].split('-')[0]}-levels.png")


if __name__ == "__main__":
    main()
