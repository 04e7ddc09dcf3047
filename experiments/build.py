"""Objects of the library from a config. Nothing is computed here."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments import fake
from experiments.rules.guidance import TRAJECTORIES
from lgd import denoisers, guidance, objectives, omega, schedules
from lgd.data import (
    Dataset,
    digits,
    fashion_mnist,
    generated,
    image_folder,
    mnist,
    npz,
    spiral,
    tfds_records,
)
from lgd.encoders import Labels
from lgd.gram.loss import OneStep
from lgd.machinery import parallel
from lgd.metrics.classifier import Classifier, ConvClassifier, FeatureClassifier, LeNetClassifier
from lgd.training import Optimizer
from lgd.types import FeatureFn, OmegaFn, Schedule


def schedule(config: ConfigDict) -> Schedule:
    """The forward process."""
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
    """The loss it is trained by."""
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


def classifier(config: ConfigDict, num_classes: int) -> Classifier:
    """The network whose features and labels measure samples."""
    return _classifier(config.classifier, num_classes)


def features(config: ConfigDict, num_classes: int) -> Classifier:
    """The network whose features train and select; not the one that measures."""
    return _classifier(config.features, num_classes)


CLASSIFIERS: dict[str, Callable[..., Classifier]] = {
    "mlp": FeatureClassifier,
    "conv": ConvClassifier,
    "lenet": LeNetClassifier,
}


def _classifier(settings: ConfigDict, num_classes: int) -> Classifier:
    return CLASSIFIERS[settings.network](num_classes, settings.width, settings.num_features)


def denoiser_optimizer(config: ConfigDict) -> Optimizer:
    """Of the denoiser, for the level of training asked for."""
    return Optimizer(
        num_steps=config.denoiser.num_steps[config.denoiser.level],
        learning_rate=config.denoiser.learning_rate,
        ema_decay=config.denoiser.ema_decay,
        clip=config.training.clip,
        max_skipped=config.training.max_skipped,
    )


def guidance_optimizer(config: ConfigDict, method: str) -> Optimizer:
    """Of omega."""
    settings = config.guidance.trajectory if unrolls(method) else config.guidance.one_step
    return Optimizer(
        num_steps=settings.num_steps,
        learning_rate=settings.learning_rate,
        ema_decay=settings.ema_decay,
        clip=config.training.clip,
        max_skipped=config.training.max_skipped,
    )


def unrolls(method: str) -> bool:
    """Whether a method follows whole trajectories; the others take one step."""
    return method in TRAJECTORIES


def objective(
    config: ConfigDict, method: str, feature_fn: FeatureFn | None = None
) -> objectives.Objective:
    """The objective behind the row ``learned:<method>``.

    feature_fn: what trajectory_features compares; without it, only sizes and times are those of
    the method.
    """
    if unrolls(method):
        return dataclasses.replace(_trajectory(config), features=feature_fn)
    return one_step_objective(config, method)


def one_step_objective(config: ConfigDict, method: str) -> OneStep:
    """One that needs the denoiser at t only, and so may learn from statistics."""
    one_step = config.guidance.one_step
    law = objectives.TimeLaw(s_min=one_step.s_min, delta=one_step.delta, zeta=one_step.zeta)
    if method == "guided_score_matching":
        return objectives.GuidedScoreMatching(time_law=law, num_particles=one_step.num_particles)
    energy = {"beta": one_step.beta, "lam": one_step.lam}
    if method == "conditional_marginal":
        return objectives.ConditionalMarginalConsistency(
            group_size=one_step.group_size, churn=one_step.churn, time_law=law, **energy
        )
    if method == "marginal":
        return objectives.MarginalConsistency(
            num_particles=one_step.group_size, churn=one_step.churn, time_law=law, **energy
        )
    consistency = objectives.SelfConsistency(
        num_particles=one_step.num_particles,
        churn=one_step.churn,
        coupling=one_step.coupling,
        time_law=law,
        **energy,
    )
    if method == "l2":
        return dataclasses.replace(consistency, beta=2.0, lam=0.0)
    return consistency


def _trajectory(config: ConfigDict) -> objectives.Trajectory:
    settings = config.guidance.trajectory
    first, *more = (_grid_from(settings.start_time, grid) for grid in _grids(config))
    more = [(first[0], *grid[1:]) for grid in more]  # which may differ by rounding
    return objectives.Trajectory(
        times=first,
        more_times=tuple(more),
        beta=settings.beta,
        lam=settings.lam,
        num_particles=settings.num_particles,
        num_targets=settings.num_targets,
        marginal_weight=settings.marginal_weight,
        churn=config.sampling.churn,
        start="noise" if settings.start_time == 1.0 else "data",
        solver=config.sampling.solver,
    )


def _grids(config: ConfigDict) -> list[tuple[float, ...]]:
    """Every grid that trajectories are unrolled over, the sampler's first."""
    scales, steps = config.guidance.trajectory.grid_scales, config.sampling.num_steps
    numbers = [max(1, round(scale * steps)) for scale in scales]
    return [tuple(np.asarray(times(config, number)).tolist()) for number in numbers]


def _grid_from(start: float, grid: tuple[float, ...]) -> tuple[float, ...]:
    """The grid's times from ``start`` down: where start is one of them, that one as it stands."""
    first = next((t for t in grid if abs(t - start) < 1e-6), min(start, grid[0]))
    return (first, *(t for t in grid if t < first))


def start_schedules(config: ConfigDict) -> dict[str, OmegaFn] | None:
    """The one schedule that training starts from, or None for the best of several."""
    if config.guidance.start == "best":
        return None
    weight = config.guidance.omega.init
    return {f"constant({weight:g})": guidance.constant(weight)}


def omega_model(config: ConfigDict, method: str, num_classes: int) -> omega.LearnedModel:
    """What the method learns: the paper's network or a table, where its objective sees (s, t)."""
    settings = config.guidance.trajectory if unrolls(method) else config.guidance.one_step
    if settings.model == "network":
        return _omega_network(config, method, num_classes)
    omega_max, rows = config.guidance.omega.max, omega.ByLabel(num_classes)
    if unrolls(method):
        # All of it: omega stays at the times above the one that trajectories start at or below.
        sampled = _grids(config)[0]
        return omega.StepTable(times=sampled, rows=rows, omega_max=omega_max)
    support = objective(config, method).support
    return omega.BinTable(support=support, rows=rows, omega_max=omega_max)


def _omega_network(config: ConfigDict, method: str, num_classes: int) -> omega.Network:
    settings = config.guidance.omega
    return omega.Network(
        schedule=schedule(config),
        encoder=Labels(num_classes),
        width=settings.width,
        depth=settings.depth,
        output=settings.output,
        omega_max=settings.max,
        support=objective(config, method).support,
    )


def stage_key(config: ConfigDict, name: str, seed_offset: int = 0) -> jax.Array:
    """A key of its own for every purpose."""
    return jax.random.fold_in(jax.random.key(config.seed + seed_offset), sum(map(ord, name)))
