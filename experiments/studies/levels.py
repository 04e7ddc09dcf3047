r"""Every method's metric over the training of the denoiser, from published results.

    python -m experiments.studies levels --results=digits-under,digits-middle,digits-well \
        --name=digits-levels

Draws the metric that selected over that of unguided samples, paired by seed. Below 1 guidance
helps, above 1 it hurts; curves far above leave the picture.
"""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.publish import tables
from experiments.publish.study import Add, Study
from experiments.workdir import read_json
from lgd import plots

_HIGHEST = 1.12  # ratio that a picture shows


def measure(options: Namespace) -> dict[str, Any]:
    """Return the table of these results, and their metrics over those of unguided samples."""
    each = [read_json(tables.RESULTS / f"{name}.json") for name in options.results.split(",")]
    return tables.of_levels(each) | {
        "primary_metric": each[0]["primary_metric"],
        "steps": [tables.training(results)[1] for results in each],
        "relative": [relative(results) for results in each],
    }


def relative(results: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the mean over seeds of each metric over the unguided one, and its standard error."""
    metric = results["primary_metric"]
    values = {row["method"]: np.array(row["metrics"][metric]["values"]) for row in results["rows"]}
    ratios = {name: each / values["unguided"] for name, each in values.items()}
    return {
        name: (float(ratio.mean()), float(ratio.std(ddof=1) / len(ratio) ** 0.5))
        for name, ratio in ratios.items()
    }


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw curves over the number of training steps of the denoiser."""
    levels = results["relative"]
    ratios = np.array([list(rows.values()) for rows in levels])  # (levels, methods, 2)
    lowest = float((ratios[..., 0] - ratios[..., 1]).min())
    highest = float((ratios[..., 0] + ratios[..., 1]).max())
    curves = {
        name: (results["steps"], *np.transpose([rows[name] for rows in levels]))
        for name in levels[0]
    }
    figure = plots.method_curves(
        {"": curves},
        xlabel="training steps of the denoiser",
        ylabel=f"{tables.title(results['primary_metric'])} / unguided",
        ylim=(lowest - 0.02, min(highest + 0.02, _HIGHEST)),
    )
    return {"": figure}


def arguments(add: Add) -> None:
    """Add the arguments of this study."""
    add("--results", default="digits-under,digits-middle,digits-well", help="published ones")


STUDY = Study(measure=measure, arguments=arguments, figures=figures, is_published=False)
