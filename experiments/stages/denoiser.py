"""Stage 1: train the denoiser, and the classifiers that measure and reward its samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import build, build_reward
from experiments.workdir import Workdir, exists
from lgd import denoisers, parallel, training
from lgd.data import Dataset, pipeline
from lgd.metrics.classifier import ConvClassifier, FeatureClassifier, classification_loss
from lgd.progress import bar
from lgd.training import Optimizer
from lgd.types import Batch, Denoiser, Params, PRNGKey


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Train what is not there yet."""
    if config.denoiser.level != "exact":
        _train_denoiser(config, workdir, dataset)
    if not build.has_known_law(config):
        classifier = build.classifier(config, dataset.num_classes)
        _train_classifier("classifier", classifier, config, workdir, dataset)
    if config.reward.name == "classifier":
        rewarder = build_reward.classifier(config, dataset.num_classes)
        _train_classifier("reward_classifier", rewarder, config, workdir, dataset)


def load(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> tuple[Denoiser, Params]:
    """The frozen denoiser and its parameters."""
    if config.denoiser.level == "exact":
        return build.exact_denoiser(config)
    denoiser = build.network_denoiser(config, dataset.num_classes)
    like = jax.eval_shape(lambda: denoiser.init(jax.random.key(0), dataset.shape))
    return denoiser, jax.device_put(workdir.load_params("denoiser", like))


def load_classifier(
    config: ConfigDict, workdir: Workdir, dataset: Dataset
) -> tuple[FeatureClassifier, Params]:
    """The classifier and its parameters."""
    classifier = build.classifier(config, dataset.num_classes)
    return classifier, _load_classifier("classifier", classifier, workdir, dataset)


def load_reward_classifier(
    config: ConfigDict, workdir: Workdir, dataset: Dataset
) -> tuple[ConvClassifier, Params]:
    """The classifier whose log-probability is the reward, and its parameters."""
    classifier = build_reward.classifier(config, dataset.num_classes)
    return classifier, _load_classifier("reward_classifier", classifier, workdir, dataset)


def _load_classifier(
    name: str, classifier: FeatureClassifier | ConvClassifier, workdir: Workdir, dataset: Dataset
) -> Params:
    like = jax.eval_shape(
        lambda: classifier.init(jax.random.key(0), jnp.zeros((1, *dataset.shape)))
    )
    return jax.device_put(workdir.load_params(name, like))


def _train_denoiser(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    denoiser = build.network_denoiser(config, dataset.num_classes)
    settings = config.denoiser
    objective = denoisers.DenoisingLoss(label_dropout=settings.label_dropout, times=settings.times)

    def loss(params: Params, frozen: tuple, batch: Batch, key: PRNGKey) -> tuple[jax.Array, dict]:
        return objective(key, denoiser, params, batch.x0, batch.c), {}

    def init(key: PRNGKey) -> Params:
        return denoiser.init(key, dataset.shape)

    optimizer = build.denoiser_optimizer(config)
    _train("denoiser", config, workdir, dataset, loss, init, optimizer, settings.batch_size)


def _train_classifier(
    name: str,
    classifier: FeatureClassifier | ConvClassifier,
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
) -> None:
    settings = config.classifier

    def loss(params: Params, frozen: tuple, batch: Batch, key: PRNGKey) -> tuple[jax.Array, dict]:
        return classification_loss(classifier, params, batch.x0, batch.c, key), {}

    def init(key: PRNGKey) -> Params:
        return classifier.init(key, jnp.zeros((1, *dataset.shape)))

    optimizer = Optimizer(
        num_steps=settings.num_steps, learning_rate=settings.learning_rate, ema_decay=0.99
    )
    _train(name, config, workdir, dataset, loss, init, optimizer, settings.batch_size)


def _train(
    name: str,
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    loss: training.Loss,
    init: Callable[[PRNGKey], Params],
    optimizer: Optimizer,
    batch_size: int,
) -> None:
    """Fit with checkpoints, metrics and a bar; saves the EMA."""
    if exists(workdir.params_file(name)):
        return
    init_key, fit_key = jax.random.split(build.stage_key(config, name))
    mesh = build.mesh(config)
    rows = parallel.local_rows(batch_size, mesh)
    examples = pipeline.examples(dataset.train, batch_size, seed=config.seed, rows=rows)
    with (
        pipeline.reading_ahead(examples) as batches,
        workdir.timed(name),
        workdir.checkpoints(name) as store,
        bar(f"train {name}", optimizer.num_steps) as advance,
    ):
        state = training.fit(
            fit_key,
            loss,
            init(init_key),
            batches=batches,
            optimizer=optimizer,
            mesh=mesh,
            store=store,
            save_every=config.training.save_every,
            log_every=config.training.log_every,
            on_log=workdir.metrics(name),
            on_step=lambda step, ema: advance(""),
        )
    workdir.save_params(name, state.ema)
