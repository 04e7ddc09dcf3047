"""Samples for a report: every method from the same noise, as a figure and as single pictures."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import build
from experiments.stages import evaluate, export
from experiments.workdir import Workdir
from lgd import conditions, plots, report
from lgd.data import Dataset

_SHOW_SEED = evaluate.TEST_SEED
SHOWN_CLASSES = 40  # in pictures of samples and tables; of more, the first ones
_DPI = 100  # of a single picture of points


class Drawn(NamedTuple):
    """What was drawn: a figure of all methods, and a picture of each."""

    figure: Figure
    pictures: report.Samples


def draw(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, functions: Mapping[str, Any]
) -> Drawn:
    """Samples of every method: images in a grid, or points where their law is known.

    Args:
      config: settings of the run.
      workdir: folder of the run.
      dataset: real examples.
      functions: what to guide by, by name.
    """
    of_law = _points if build.has_known_law(config) else _images
    return of_law(config, workdir, dataset, functions)


def _images(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, functions: Mapping[str, Any]
) -> Drawn:
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
    pictures = report.Samples(
        pictures={name: plots.tile(x) for name, x in samples.items()},
        rows=names,
        caption="Eight samples of every condition shown. The same place is the same noise in every "
        "method, so that what differs is the guidance.",
        smooth=min(dataset.shape[:2]) > 64,
    )
    return Drawn(plots.sample_grid(samples, list(names)), pictures)


def _points(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, functions: Mapping[str, Any]
) -> Drawn:
    """Samples over the density of all classes."""
    generator = evaluate.make_generator(config, workdir, dataset)
    exact, params = build.exact_denoiser(config)
    limit, size = float(np.abs(dataset.test.x).max()) * 1.05, 200
    axis = jnp.linspace(-limit, limit, size)
    plane = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    null = jnp.full(len(plane), exact.num_classes, jnp.int32)
    density = jax.jit(exact.log_density)(params, plane, t=jnp.full(len(plane), 1e-3), c=null)
    log_density = np.asarray(density).reshape(size, size)
    labels = np.repeat(np.arange(dataset.num_classes), 100)
    samples = {
        name: np.asarray(generator(function, 100, seed=_SHOW_SEED)).reshape(-1, 2)
        for name, function in functions.items()
    }

    def figure(*names: str) -> Figure:
        return plots.density_samples(
            {name: samples[name] for name in names},
            dict.fromkeys(names, labels),
            log_density,
            extent=(-limit, limit, -limit, limit),
            class_names=dataset.class_names,
        )

    pictures = report.Samples(
        pictures={name: plots.pixels(figure(name), dpi=2 * _DPI) for name in samples},
        caption="100 samples of every class over the density of all; greys hold 50, 90 and 99% of "
        "it. All methods start from the same noise.",
        smooth=True,
    )
    return Drawn(figure(*samples), pictures)
