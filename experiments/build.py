"""Objects of the library from a config. Nothing is computed here."""

from collections.abc import Callable

import flax.linen as nn
import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments import build_pretrained, fake
from lgd import denoisers, schedules
from lgd.data import (
    Dataset,
    captions,
    digits,
    fashion_mnist,
    generated,
    image_folder,
    mnist,
    npz,
    spiral,
    tfds_records,
)
from lgd.machinery import parallel
from lgd.metrics.classifier import Classifier, ConvClassifier, FeatureClassifier, LeNetClassifier
from lgd.training import Optimizer
from lgd.types import Schedule


def schedule(config: ConfigDict) -> Schedule:
    """The forward process: the one that the config names, or that of the pretrained pipeline."""
    if build_pretrained.is_pretrained(config):
        return build_pretrained.model(config).denoiser.schedule
    return schedules.BY_NAME[config.schedule]()


def has_known_law(config: ConfigDict) -> bool:
    """Whether the law of the data is known: the mixture's, not that of images."""
    return bool(config.data.name == "mixture")


_FILES = {"mnist": mnist.load, "fashion_mnist": fashion_mnist.load, "npz": npz.load}


def dataset(config: ConfigDict) -> Dataset:
    """Real data in three splits. Raises DataFileError where they lie in files that do not fit."""
    data, seed = config.data, config.seed
    sizes = (data.num_train, data.num_validation, data.num_test)
    if config.fake_data and not has_known_law(config):
        return _generated(config, sizes)
    if data.name == "digits":
        return digits.load(*sizes, seed=seed)
    if data.name == "images":
        return image_folder.load(data.path, *sizes, size=data.size, seed=seed)
    if data.name == "captions":
        encode = build_pretrained.encode_texts(config)
        return captions.load(data.path, *sizes, size=data.size, encode=encode, seed=seed)
    if data.name == "tfds":
        return tfds_records.load(
            data.path, *sizes, size=data.size, attributes=tuple(data.attributes), seed=seed
        )
    if data.name in _FILES:
        return _FILES[data.name](data.path, *sizes, seed=seed)
    return spiral.load(*sizes, schedule=schedule(config), seed=seed)


def _generated(config: ConfigDict, sizes: tuple[int, int, int]) -> Dataset:
    values = {f"data.{name}": value for name, value in config.data.items()}
    return generated.load(
        fake.shape(values),
        fake.num_classes(values),
        *sizes,
        seed=config.seed,
        streaming=config.data.name in ("images", "tfds"),
    )


def mesh(config: ConfigDict) -> Mesh:
    """The devices. Raises ValueError where there are none of this number."""
    return parallel.make_mesh(config.mesh.data, config.mesh.fsdp)


def times(config: ConfigDict, num_steps: int | None = None) -> Float[Array, " n"]:
    """The sampling grid, of the config's number of steps or another."""
    steps = config.sampling.num_steps if num_steps is None else num_steps
    if config.sampling.grid == "uniform":
        return schedules.uniform_times(steps)
    if config.sampling.grid == "scheduler":
        return build_pretrained.model(config).times(steps)
    if config.sampling.grid == "logsnr":
        return schedules.logsnr_times(steps, schedule(config))
    return schedules.edm_times(steps, schedule(config))


def network_denoiser(config: ConfigDict, num_classes: int) -> denoisers.NetworkDenoiser:
    """The denoiser that is trained here."""
    module = _network(config.denoiser, num_classes)
    return denoisers.NetworkDenoiser(module, schedule(config), num_classes, config.denoiser.kind)


def _network(settings: ConfigDict, num_classes: int) -> nn.Module:
    if settings.network == "mlp":
        return denoisers.ResidualMLP(
            num_classes, settings.width, settings.depth, gain=settings.mlp.gain
        )
    common = {"heads": settings.heads, "dtype": settings.dtype, "remat": settings.remat}
    if settings.network == "dit":
        return denoisers.DiT(
            num_classes,
            width=settings.width,
            depth=settings.depth,
            patch_size=settings.dit.patch_size,
            **common,
        )
    unet = settings.unet
    return denoisers.UNet(
        num_classes,
        channels=unet.channels,
        multipliers=tuple(unet.multipliers),
        blocks=unet.blocks,
        attention=tuple(unet.attention),
        **common,
    )


def denoising_loss(config: ConfigDict) -> denoisers.DenoisingLoss:
    """The loss that the denoiser is trained by."""
    settings = config.denoiser
    return denoisers.DenoisingLoss(
        label_dropout=settings.label_dropout,
        times=settings.times,
        times_location=settings.times_location,
        times_scale=settings.times_scale,
        flip=settings.flip,
        shift=settings.shift,
    )


def exact_denoiser(
    config: ConfigDict,
) -> tuple[denoisers.GaussianMixture, denoisers.MixtureParams]:
    """The exact denoiser of the 2-D mixture."""
    return spiral.mixture(schedule(config))


CLASSIFIERS: dict[str, Callable[..., Classifier]] = {
    "mlp": FeatureClassifier,
    "conv": ConvClassifier,
    "lenet": LeNetClassifier,
}


def classifier(settings: ConfigDict, num_classes: int) -> Classifier:
    """A network from its settings: those whose features measure, or those that train and select."""
    return CLASSIFIERS[settings.network](num_classes, settings.width, settings.num_features)


def denoiser_optimizer(config: ConfigDict) -> Optimizer:
    """Optimizer of the denoiser at the level of training that the config asks for."""
    return Optimizer(
        num_steps=config.denoiser.num_steps[config.denoiser.level],
        learning_rate=config.denoiser.learning_rate,
        ema_decay=config.denoiser.ema_decay,
        clip=config.training.clip,
        max_skipped=config.training.max_skipped,
    )


def stage_key(config: ConfigDict, name: str, seed_offset: int = 0) -> jax.Array:
    """A key of its own for every purpose."""
    return jax.random.fold_in(jax.random.key(config.seed + seed_offset), sum(map(ord, name)))
