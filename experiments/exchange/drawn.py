"""The rows of a run drawn by diffusers itself: images of its pipeline, measured as ours are.

    python -m experiments.studies drawn --workdir=runs/pretrained [--name=pretrained-NAME]

Of a finished run of a pipeline that takes labels. Every row of its table, as it was selected there,
goes into the pipeline as its ``guidance_scale``; the images are measured on test data by the
networks of the run, over test seeds, beside those of our own sampler. Both draw in turn, so that
their times can be compared. Needs the extra ``lgd[diffusers]``.
"""

import dataclasses
import functools
import os
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import build_pretrained, finished
from experiments import config as configs
from experiments.console import local_path
from experiments.methods import is_learned
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from experiments.stages import evaluate
from experiments.workdir import saved_config
from lgd import plots
from lgd.data import Dataset
from lgd.evaluation import paired_difference, schedule_key, summary
from lgd.exchange import diffusers as exchange
from lgd.exchange.extras import required
from lgd.machinery.progress import bar

METRIC = "frechet_distance"
BATCH = 250  # images that the pipeline draws at once


def measure(options: Namespace) -> dict[str, Any]:
    """Return a row for each row of the run: distances of both samplers, and their times.

    Raises ConfigError for a run without a pipeline that takes labels.
    """
    _check(saved_config(options.workdir))
    with finished.opened(options.workdir) as opened:
        config, run, dataset, _ = opened
        guidance, generator = opened.guidance(), opened.generator()
        generator = dataclasses.replace(generator, skip=False)  # as the pipeline draws
        measuring = evaluate.make_measure(config, run, dataset)
        count = generator.share(config.evaluation.num_samples)
        drawing = _Pipeline(config, dataset, count)
        seeds = range(evaluate.TEST_SEED, evaluate.TEST_SEED + options.seeds)
        journal = run.journal("drawn", generator.params)
        generator(next(iter(guidance.values())), count, seed=0)  # compiled before it is timed
        rows = []
        with bar("drawn", len(guidance) * len(seeds)) as advance:
            for name, omega in guidance.items():
                runs = []
                for seed in seeds:
                    entry = f"{schedule_key(omega)} n={count} seed={seed}"
                    both = (
                        functools.partial(generator, omega, count, seed=seed),
                        functools.partial(drawing, omega, seed),
                    )
                    one = functools.partial(_both, *both, measuring)
                    runs.append(journal(entry, one))
                    advance(name)
                rows.append(_row(name, runs))
    return {
        "config": configs.to_dict(config),
        "columns": _columns(),
        "rows": rows,
        "differences": _differences(rows),
        "num_samples": count * dataset.num_classes,
        "threads": os.cpu_count(),
    }


class _Pipeline:
    """Draws of diffusers: (omega, seed) -> images (classes, n, h, w, channels) in [-1, 1]."""

    def __init__(self, config: ConfigDict, dataset: Dataset, count: int) -> None:
        diffusers = required("diffusers", "diffusers")
        self._pipe = diffusers.DiffusionPipeline.from_pretrained(
            config.denoiser.pipeline, local_files_only=True
        )
        self._pipe.set_progress_bar_config(disable=True)
        self._steps, self._num_classes = config.sampling.num_steps, dataset.num_classes
        self._ids = build_pretrained.class_ids(config) or tuple(range(dataset.num_classes))
        self._shape = tuple(dataset.shape)
        self._strata = np.repeat(np.arange(dataset.num_classes), count)

    def __call__(self, omega: Any, seed: int) -> np.ndarray:
        torch = required("torch", "diffusers")
        noise, parts = torch.Generator().manual_seed(seed), []
        for first in range(0, len(self._strata), BATCH):
            strata = self._strata[first : first + BATCH]
            scale = exchange.guidance_argument(omega, self._pipe, self._steps, strata)
            labels = [self._ids[stratum] for stratum in strata]
            parts.append(
                self._pipe(
                    labels,
                    guidance_scale=scale,
                    num_inference_steps=self._steps,
                    generator=noise,
                    output_type="np",
                ).images
            )
        images = 2.0 * np.concatenate(parts) - 1.0
        if images.shape[1:] != self._shape:
            got = f"images {images.shape[1:]} of the pipeline for data {self._shape}"
            raise configs.ConfigError([f"data.size: expected images of one size, got {got}"])
        return images.reshape(self._num_classes, -1, *images.shape[1:]).astype(np.float32)


def _both(
    draw_ours: Callable[[], Any], draw_theirs: Callable[[], Any], measuring: Callable
) -> dict[str, Any]:
    """Distances and seconds of both samplers, one after the other."""
    ours, our_seconds = _timed(draw_ours)
    theirs, their_seconds = _timed(draw_theirs)
    return {
        "theirs": float(measuring(jnp.asarray(theirs))["metrics"][METRIC]),
        "ours": float(measuring(jnp.asarray(ours))["metrics"][METRIC]),
        "their seconds": their_seconds,
        "our seconds": our_seconds,
    }


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    value = jax.block_until_ready(function())
    return value, time.perf_counter() - start


def _row(name: str, runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    ratios = [each["their seconds"] / each["our seconds"] for each in runs]
    return {
        "method": name,
        METRIC: summary([each["theirs"] for each in runs]),
        "own sampler": summary([each["ours"] for each in runs]),
        "speed": summary(ratios),
    }


def _columns() -> list[dict[str, Any]]:
    return [
        text("method", "method"),
        number(METRIC, "Fréchet distance, drawn by diffusers ↓", ".4f") | {"best": "least"},
        number("own sampler", "drawn by lgd ↓", ".4f") | {"best": "least"},
        number("speed", "diffusers' time over ours", ".2f"),
    ]


def _differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Learned rows against the best hand-made one, of the images of diffusers."""
    learned = [row for row in rows if is_learned(row["method"])]
    others = [row for row in rows if row not in learned]
    best = min(others, key=lambda row: row[METRIC]["mean"])
    return [
        {"method": row["method"], "against": best["method"]}
        | {"difference": paired_difference(row[METRIC]["values"], best[METRIC]["values"])}
        for row in learned
    ]


def _check(config: ConfigDict) -> None:
    if not build_pretrained.is_pretrained(config):
        got = f"denoiser.level {config.denoiser.level}"
    elif build_pretrained.model(config).prompts is not None:
        got = "one that takes texts"
    else:
        return
    raise configs.ConfigError([f"expected a run of a pipeline that takes labels, got {got}"])


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the distance of every row, drawn by diffusers."""
    rows = [{**row, "metrics": {METRIC: row[METRIC]}} for row in results["rows"]]
    return {"": plots.method_bars(rows, METRIC, True)}


def arguments(add: Add) -> None:
    """Add the arguments of this study."""
    add("--workdir", type=local_path, required=True, help="of a finished run of a pipeline")
    add("--seeds", type=int, default=3, help="test seeds")


STUDY = Study(measure=measure, arguments=arguments, figures=figures, refused=(ImportError,))
