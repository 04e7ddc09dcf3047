"""Stage 3 of a run with a reward: learn omega with every method and weight, each from the last."""

import itertools
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from experiments import build, build_reward
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import guidance as guidance_stage
from experiments.workdir import Workdir, exists
from lgd import Guidance, conditions, learn_guidance, rewards
from lgd.data import Dataset
from lgd.types import OmegaFn, Params, RewardFn


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Train what is not there yet."""
    reward = load_reward(config, workdir, dataset)
    pairs = itertools.pairwise((None, *config.reward.weights))
    for method, (before, gamma) in itertools.product(config.guidance.methods, list(pairs)):
        last = snapshot_steps(config, method, gamma)[-1]
        if exists(workdir.params_file(_snapshot_name(method, gamma, last))):
            continue
        warm = None if before is None else _learned(config, workdir, dataset, method, before)
        _learn(config, workdir, dataset, method, reward, gamma, warm)


def load_reward(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> RewardFn:
    """The reward of training."""
    if config.reward.name != "classifier":
        return build_reward.closed_form(config)
    classifier, params = denoiser_stage.load_classifier(
        config, workdir, dataset, "reward_classifier"
    )
    return rewards.class_log_probability(lambda params, x: classifier.apply(params, x)[0], params)


def snapshot_steps(config: ConfigDict, method: str, gamma: float) -> list[int]:
    """Steps after which a training is kept as a candidate for selection."""
    return guidance_stage.snapshots_among(
        config, build_reward.optimizer(config, method, gamma).num_steps
    )


def load(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, method: str, gamma: float, step: int
) -> OmegaFn:
    """Omega as it was after this step of the training with this weight."""
    return _loaded(config, workdir, dataset, method, gamma, step).omega_fn


def training_name(method: str, gamma: float) -> str:
    """What a training is called in metrics.jsonl."""
    return f"{method}:reward({gamma:.9g})"


def _learned(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, method: str, gamma: float
) -> Guidance:
    last = snapshot_steps(config, method, gamma)[-1]
    return _loaded(config, workdir, dataset, method, gamma, last)


def _loaded(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, method: str, gamma: float, step: int
) -> Guidance:
    model = build.omega_model(config, method, dataset.num_classes)
    c = conditions.take(dataset.train.c, slice(1))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), c))
    params = jax.device_put(workdir.load_params(_snapshot_name(method, gamma, step), like))
    return Guidance(model, params, training_name(method, gamma))


def _snapshot_name(method: str, gamma: float, step: int) -> str:
    return f"reward/{method}-{gamma:.9g}-{step:06d}"


def _learn(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    method: str,
    reward: RewardFn,
    gamma: float,
    warm: Guidance | None,
) -> None:
    denoiser, params = denoiser_stage.load(config, workdir, dataset)
    *steps, last = snapshot_steps(config, method, gamma)
    cold = warm is None
    name = f"reward/{method}-{gamma:.9g}"
    with workdir.timed(name), workdir.checkpoints(name) as store:
        learned = learn_guidance(
            build.stage_key(config, training_name(method, gamma)),
            denoiser,
            params,
            dataset.train.x,
            dataset.train.c,
            objective=build_reward.objective(config, method, reward, gamma),
            model=build.omega_model(config, method, dataset.num_classes) if cold else None,
            start=build.start_schedules(config) if cold else None,
            warm=warm,
            optimizer=build_reward.optimizer(config, method, gamma),
            batch_size=config.guidance.one_step.batch_size,
            mesh=build.mesh(config),
            store=store,
            save_every=config.training.save_every,
            log_every=config.training.log_every,
            on_log=workdir.metrics(training_name(method, gamma)),
            on_step=_keep(workdir, method, gamma, steps),
        )
    # Says that all is done, and so comes after the last checkpoint.
    workdir.save_params(_snapshot_name(method, gamma, last), learned.params)


def _keep(
    workdir: Workdir, method: str, gamma: float, steps: list[int]
) -> Callable[[int, Params], None]:
    def keep(step: int, ema: Params) -> None:
        if step in steps:
            workdir.save_params(_snapshot_name(method, gamma, step), ema)

    return keep
