"""Stage 1: train the denoiser, and the classifiers that measure and reward its samples."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments import build, build_guidance, build_pretrained
from experiments.methods import FEATURES
from experiments.workdir import Workdir, exists, throughput
from lgd import checks, training
from lgd.data import Dataset, Split, pipeline
from lgd.denoisers import Directions
from lgd.machinery import digests, parallel
from lgd.machinery.progress import bar
from lgd.metrics.classifier import Classifier, classification_loss
from lgd.metrics.features import extract
from lgd.training import Optimizer, Trainer
from lgd.types import Batch, Denoiser, FeatureFn, Params, PRNGKey

_WEAKER = "denoiser-weaker"  # parameters kept on the way
_LATENTS = "latents"  # folder of encoded images


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Train what is not there yet."""
    if build_pretrained.is_pretrained(config):
        _encode(config, workdir, dataset)
    elif config.denoiser.level != "exact":
        _train_denoiser(config, workdir, dataset)
    for name in classifiers(config):
        train_classifier(name, config, workdir, dataset)


def load(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> tuple[Denoiser, Params]:
    """The frozen denoiser and its parameters; with a weaker one beside it where config asks."""
    if config.denoiser.level == "exact":
        return build.exact_denoiser(config)
    if build_pretrained.is_pretrained(config):
        return build_pretrained.denoiser(config, dataset.class_names)
    denoiser = build.network_denoiser(config, dataset.num_classes)
    like = jax.eval_shape(lambda: denoiser.init(jax.random.key(0), dataset.shape))
    params = jax.device_put(workdir.load_params("denoiser", like))
    if not config.denoiser.weaker_num_steps:
        return denoiser, params
    weaker = {"weaker": jax.device_put(workdir.load_params(_WEAKER, like))}
    return Directions(denoiser, {"weaker": denoiser}), (params, weaker)


def shape(config: ConfigDict, dataset: Dataset) -> tuple[int, ...]:
    """Shape of what the denoiser takes: of latents, in a pretrained pipeline with a codec."""
    if not build_pretrained.is_pretrained(config):
        return dataset.shape
    return build_pretrained.model(config).shape(dataset.shape)


def taken(config: ConfigDict, workdir: Workdir, dataset: Dataset, name: str) -> Split:
    """The split of a name with examples as the denoiser takes them."""
    split: Split = getattr(dataset, name)
    if not build_pretrained.is_pretrained(config):
        return split
    like = np.empty((len(split.x), *shape(config, dataset)), np.float32)
    return split._replace(x=np.asarray(workdir.load_params(f"{_LATENTS}/{name}", like)))


def _encode(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Encode the images of every split and look at the model, if it is not done yet."""
    for name in ("train", "validation", "test"):
        if exists(workdir.params_file(f"{_LATENTS}/{name}")):
            continue
        if name == "test":  # comes last, and so not before the model is found fit
            _look(config, workdir, dataset)
        with workdir.timed(f"encode {name}"):
            latents = build_pretrained.encoded(config, getattr(dataset, name))
        workdir.save_params(f"{_LATENTS}/{name}", latents)


def _look(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Ask the model about a few examples: `lgd.check` says what is wrong."""
    denoiser, params = build_pretrained.denoiser(config, dataset.class_names)
    split = taken(config, workdir, dataset, "train")
    checks.look(denoiser, params, split)


def classifiers(config: ConfigDict) -> list[str]:
    """The classifiers that a run needs.

    "classifier" measures test samples. `feature_networks` are what an objective compares by, and
    "selection_classifier" selects on validation data: all of another architecture than the first,
    each with a seed of its own. "reward_classifier" rewards.
    """
    by_classifier = config.evaluation.features == "classifier"
    needed = {
        "classifier": by_classifier and not build.has_known_law(config),
        "selection_classifier": by_classifier and config.evaluation.primary != "energy_distance",
        **dict.fromkeys(feature_networks(config), FEATURES in config.guidance.methods),
        "reward_classifier": config.reward.name == "classifier",
    }
    return [name for name, is_needed in needed.items() if is_needed]


def feature_networks(config: ConfigDict) -> list[str]:
    """Names of the classifiers whose features trajectory_features compares, side by side."""
    others = [f"features_{k}" for k in range(2, config.features.num_networks + 1)]
    return ["features", *others]


def settings_of(name: str) -> str:
    """The group of the config that describes one of `classifiers`."""
    if name == "selection_classifier" or name.startswith("features"):
        return "features"
    return name


def load_features(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, names: Sequence[str]
) -> FeatureFn:
    """Features of the classifiers named, side by side."""
    each = [load_classifier(config, workdir, dataset, name) for name in names]

    def feature_fn(x: Float[Array, "b *dims"]) -> Float[Array, "b f"]:
        features: list[Array] = [network.apply(params, x)[1] for network, params in each]  # type: ignore[misc]
        return jnp.concatenate(features, axis=-1)

    return feature_fn


def load_classifier(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, name: str = "classifier"
) -> tuple[Classifier, Params]:
    """One of `classifiers` and its parameters."""
    classifier = _make_classifier(name, config, dataset)
    like = jax.eval_shape(
        lambda: classifier.init(jax.random.key(0), jnp.zeros((1, *dataset.shape)))
    )
    return classifier, jax.device_put(workdir.load_params(name, like))


def accuracies(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> dict[str, float]:
    """Share of real test images that each of `classifiers` puts into their class."""
    shares = {}
    for name in classifiers(config):
        classifier, params = load_classifier(config, workdir, dataset, name)
        logits = extract(
            jax.jit(lambda x, c=classifier, p=params: c.apply(p, x)[0]), dataset.test.x
        )
        shares[name] = float(np.mean(logits.argmax(axis=1) == dataset.test.stratum))
    return shares


def _make_classifier(name: str, config: ConfigDict, dataset: Dataset) -> Classifier:
    if name == "reward_classifier":
        return build_guidance.reward_classifier(config, dataset.num_classes)
    return build.classifier(config[settings_of(name)], dataset.num_classes)


def _train_denoiser(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    denoiser = build.network_denoiser(config, dataset.num_classes)
    objective = build.denoising_loss(config)

    def loss(params: Params, frozen: tuple, batch: Batch, key: PRNGKey) -> tuple[jax.Array, dict]:
        return objective(key, denoiser, params, batch.x0, batch.c), {}

    def init(key: PRNGKey) -> Params:
        return denoiser.init(key, dataset.shape)

    def keep(step: int, ema: Params) -> None:
        if step == config.denoiser.weaker_num_steps:
            workdir.save_params(_WEAKER, ema)

    optimizer = build.denoiser_optimizer(config)
    batch_size = config.denoiser.batch_size
    _train("denoiser", config, workdir, dataset, loss, init, optimizer, batch_size, on_step=keep)


def train_classifier(
    name: str,
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
) -> None:
    """Train one of `classifiers`, if it is not there yet."""
    settings, classifier = config.classifier, _make_classifier(name, config, dataset)
    apart = settings_of(name) == "features"  # from the one that measures
    offset = config.features.seed_offset * _ordinal(name) if apart else 0

    def loss(params: Params, frozen: tuple, batch: Batch, key: PRNGKey) -> tuple[jax.Array, dict]:
        return classification_loss(classifier, params, batch.x0, batch.c, key), {}

    def init(key: PRNGKey) -> Params:
        return classifier.init(key, jnp.zeros((1, *dataset.shape)))

    optimizer = Optimizer(
        num_steps=settings.num_steps, learning_rate=settings.learning_rate, ema_decay=0.99
    )
    _train(name, config, workdir, dataset, loss, init, optimizer, settings.batch_size, offset)


def _ordinal(name: str) -> int:
    """2 of features_2; 1 of a name without a number."""
    _, _, number = name.partition("_")
    return int(number) if number.isdigit() else 1


def _train(
    name: str,
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    loss: training.Loss,
    init: Callable[[PRNGKey], Params],
    optimizer: Optimizer,
    batch_size: int,
    seed_offset: int = 0,
    on_step: Callable[[int, Params], None] = lambda step, ema: None,
) -> None:
    """Fit with checkpoints, metrics and a bar; saves the EMA."""
    if exists(workdir.params_file(name)):
        return
    init_key, fit_key = jax.random.split(build.stage_key(config, name, seed_offset))
    mesh, seed = build.mesh(config), config.seed + seed_offset
    rows = parallel.local_rows(batch_size, mesh)
    examples = pipeline.examples(dataset.train, batch_size, seed=seed, rows=rows)

    def advanced(step: int, ema: Params) -> None:
        on_step(step, ema)
        advance("")
        tick()

    with (
        pipeline.reading_ahead(examples) as batches,
        workdir.timed(name),
        workdir.checkpoints(name) as store,
        bar(f"train {name}", optimizer.num_steps) as advance,
        throughput.measured(config, workdir, name, batch_size, "examples") as tick,
    ):
        trainer = Trainer(
            optimizer=optimizer,
            batch_size=batch_size,
            mesh=mesh,
            store=store,
            save_every=config.training.save_every,
            log_every=config.training.log_every,
            on_log=workdir.metrics(name),
            on_step=advanced,
        )
        state = training.fit(
            fit_key,
            loss,
            init(init_key),
            batches=batches,
            trainer=trainer,
            fingerprint=f"{workdir.identity} {name} {digests.describe(trainer)}",
        )
    workdir.save_params(name, state.ema)
