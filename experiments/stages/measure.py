"""What a run measures: measures of test samples and distances to validation data, by its config."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments import build
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import judges
from experiments.workdir import Workdir
from lgd.data import Dataset
from lgd.evaluation import Distance, Measure, ValidationFrechet, ValidationInception, measures
from lgd.metrics.energy import ClassEnergyDistance


def make(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> Measure:
    """What is measured of test samples: the energy distance, and metrics of features."""
    energy = measures.EnergyMeasure(dataset.test, seed=config.seed)
    return measures.JointMeasure((energy, _of_features(config, workdir, dataset)))


def validation_distance(
    config: ConfigDict, workdir: Workdir, dataset: Dataset
) -> tuple[Distance, bool]:
    """The distance that rows are selected by, and whether its first entry is of all strata."""
    if config.evaluation.primary == measures.PRIMARY:
        return ClassEnergyDistance(dataset.validation, dataset.num_classes), False
    if config.evaluation.features != "classifier":
        network = judges.load(config, selects=True).network
        file = _file(workdir, f"{config.evaluation.features}-validation")
        return ValidationInception(network, dataset.validation, file=file), True
    name = "selection_classifier"
    classifier, params = denoiser_stage.load_classifier(config, workdir, dataset, name)
    feature_fn = jax.jit(lambda x: classifier.apply(params, x)[1])
    return ValidationFrechet(feature_fn, dataset.validation), True


def _of_features(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> Measure:
    if config.evaluation.features != "classifier":
        network, outputs = judges.load(config)
        file = _file(workdir, f"{config.evaluation.features}-test")
        return measures.InceptionMeasure(network, outputs, dataset.test, file=file)
    if build.has_known_law(config):
        return measures.PlaneMeasure(_log_posterior(config), dataset.test, seed=config.seed)
    classifier, params = denoiser_stage.load_classifier(config, workdir, dataset)
    return measures.ClassifierMeasure(
        classifier, params, dataset.test, seed=config.seed, file=_file(workdir, "test")
    )


def _file(workdir: Workdir, name: str) -> Path:
    return workdir.path / "reference" / f"{name}.safetensors"


def _log_posterior(config: ConfigDict) -> Callable[[Array], Array]:
    """Log-densities of points under every class: equally likely ones have them as posterior."""
    exact, params = build.exact_denoiser(config)

    @jax.jit
    def log_densities(x: Float[Array, "b d"]) -> Float[Array, "b g"]:
        t = jnp.full(len(x), 1e-3)
        by_class = [
            exact.log_density(params, x, t=t, c=jnp.full(len(x), k, jnp.int32))
            for k in range(exact.num_classes)
        ]
        return jnp.stack(by_class, axis=-1)

    return log_densities
