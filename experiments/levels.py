"""Every method's metric over the training of the denoiser, from published results.

    python -m experiments.levels --names=digits-under,digits-middle,digits-well

Draws docs/LEVELS.png (digits-levels.png for these names): energy distance over that of unguided
samples, paired by seed. Below 1 guidance helps, above 1 it hurts.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.tables import RESULTS, ROOT
from experiments.workdir import WorkdirError, read_json
from lgd import plots


def relative(results: Mapping) -> dict[str, tuple[float, float]]:
    """Mean over seeds of each row's metric over the unguided one's, and its standard error."""
    metric = results["primary_metric"]
    values = {row["method"]: np.array(row["metrics"][metric]["values"]) for row in results["rows"]}
    ratios = {name: mine / values["unguided"] for name, mine in values.items()}
    return {
        name: (float(ratio.mean()), float(ratio.std(ddof=1) / len(ratio) ** 0.5))
        for name, ratio in ratios.items()
    }


def figure(each: Sequence[Mapping]) -> Figure:
    """Curves over the number of training steps of the denoiser."""
    levels = [results["config"]["denoiser"] for results in each]
    steps = [level["num_steps"][level["level"]] for level in levels]
    found = [relative(results) for results in each]
    curves = {
        name: (steps, *np.transpose([by_name[name] for by_name in found])) for name in found[0]
    }
    return plots.method_curves(
        {"": curves},
        xlabel="training steps of the denoiser",
        ylabel="energy distance / unguided",
        log="xy",
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
