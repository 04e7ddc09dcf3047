"""How much of a run's Frechet distance guidance can reach at all.

    python -m experiments.studies floor --workdir=runs/fashion_mnist [--name=NAME]

Learns omega of class and step against the very features that measure, from training images, and
measures it on test images with the run's test noise: an estimate of the floor under every schedule
of that denoiser, and no row of the table, since it has seen the judge. Real training images,
measured alike, say what a perfect sampler would have. What lies between the two is the error of
the denoiser and of the sampling steps, which no weight of class and step removes.

Of a finished run on images. Interrupted, it goes on where it was.
"""

import contextlib
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments import build, finished
from experiments import config as configs
from experiments.console import local_path
from experiments.methods import FEATURES
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from experiments.stages import evaluate
from experiments.stages import guidance as guidance_stage
from experiments.stages.guidance import Training
from experiments.stages.select import Row
from experiments.workdir import Workdir, saved_config
from lgd.data import Dataset
from lgd.evaluation import Selected

TRAINING = Training(FEATURES)
METRIC = "frechet_distance"
COLUMNS = [
    text("method", "method"),
    number(METRIC, "Fréchet distance ↓", ".4f"),
    number("share", "of what guidance reaches", ".0%"),
]


def measure(options: Namespace) -> dict[str, Any]:
    """Return Frechet distances of the rows of a run, of the floor and of real images.

    Raises ConfigError for a run whose Frechet distance is not that of a classifier's features.
    """
    _check(saved_config(options.workdir))
    with finished.opened(options.workdir) as opened:
        config, run, dataset, results = opened
        learned = Row("floor", None, _learned(config, run, dataset))
        generator = opened.generator()
        measuring = evaluate.make_measure(config, run, dataset)
        journal = run.journal("floor-measured", generator.params)
        (row,), _ = evaluate.measure_rows(config, dataset, generator, measuring, [learned], journal)
        real = measuring(_real_samples(dataset, row["num_samples"]))
    return {"config": configs.to_dict(config)} | rows_to_the_floor(
        {row["method"]: row["metrics"][METRIC] for row in results["rows"]},
        row["metrics"][METRIC],
        real["metrics"][METRIC],
    )


def rows_to_the_floor(
    methods: Mapping[str, Mapping[str, Any]], floor: Mapping[str, Any], real: float
) -> dict[str, Any]:
    """Return the table: how far each method goes on the way from unguided to the floor."""
    unguided, every = (
        methods["unguided"]["mean"],
        {**methods, "floor (ω learned on the judge)": floor},
    )
    rows = [
        {"method": name, METRIC: metric, "share": share}
        for name, metric in every.items()
        for share in [(unguided - metric["mean"]) / (unguided - floor["mean"])]
    ]
    return {"columns": COLUMNS, "rows": [*rows, {"method": "training images", METRIC: real}]}


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


def _learned(config: ConfigDict, run: Workdir, dataset: Dataset) -> Selected:
    """Omega as it was at the end of training: there is nothing to select by that is no judge."""
    with contextlib.closing(Workdir(run.path / "floor", config)) as workdir:
        workdir.copy_params(run, ["denoiser", "classifier"])
        guidance_stage.learn(config, workdir, dataset, TRAINING, ["classifier"])
        step = guidance_stage.snapshot_steps(config, TRAINING)[-1]
        learned = guidance_stage.load(config, workdir, dataset, TRAINING, step)
    return Selected({"step": step}, learned, float("nan"))


def _real_samples(dataset: Dataset, num_samples: int) -> Array:
    """Training images, as many of every class as there are samples, (classes, n, *dims)."""
    n, strata = num_samples // dataset.num_classes, dataset.train.strata
    members = [np.flatnonzero(strata == k)[:n] for k in range(dataset.num_classes)]
    if min(map(len, members)) < n:
        raise configs.ConfigError(
            [
                f"evaluation.num_samples: expected at most {min(map(len, members))} a class, as "
                f"there are training images, got {n}"
            ]
        )
    return jnp.stack([jnp.asarray(dataset.train.x[index]) for index in members])


def arguments(add: Add) -> None:
    """Add the arguments of this study."""
    add("--workdir", type=local_path, required=True, help="of a finished run")


STUDY = Study(measure=measure, arguments=arguments)
