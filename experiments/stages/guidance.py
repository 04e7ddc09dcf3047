"""Stage 3: learn omega with every method asked for, and for every weight of a reward."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from experiments import build, build_guidance, build_pretrained
from experiments.methods import DIRECTIONS, FEATURES, ONE_STEP, TRAJECTORIES, WALKS
from experiments.stages import collect
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir, exists, throughput
from lgd import gram, learn_guidance, omega, rewards
from lgd.data import Dataset
from lgd.machinery import processes
from lgd.training import Trainer
from lgd.types import Params, RewardFn


class Training(NamedTuple):
    """One training of omega: a method, and the weight of the reward, None without one."""

    method: str
    gamma: float | None = None

    @property
    def name(self) -> str:
        """Name of the training in metrics.jsonl, and of its row after "learned:"."""
        return self.method if self.gamma is None else f"{self.method}:reward({self.gamma:.9g})"

    def snapshot(self, step: int) -> str:
        """Name of the parameters as they were after a step."""
        return f"{self.checkpoints}-{step:06d}"

    @property
    def checkpoints(self) -> str:
        """Name of the folder of its checkpoints, and of its line in timings.jsonl."""
        gamma = "" if self.gamma is None else f"-reward-{self.gamma:.9g}"
        return f"guidance/{self.method}{gamma}"


def trainings(config: ConfigDict) -> list[tuple[Training, Training | None]]:
    """All trainings in their order, each with the one that it goes on from.

    With a reward a method learns once for every weight, each time from where the weight before
    ended.
    """
    methods = config.guidance.methods
    if config.reward.name == "none":
        return [(Training(method), None) for method in methods]
    pairs = itertools.pairwise((None, *config.reward.weights))
    return [
        (Training(method, gamma), None if before is None else Training(method, before))
        for method, (before, gamma) in itertools.product(methods, list(pairs))
    ]


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Train what is not there yet."""
    features = denoiser_stage.feature_networks(config)
    for training, before in trainings(config):
        learn(config, workdir, dataset, training, features, before=before)


def learn(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    training: Training,
    features: Sequence[str],
    *,
    before: Training | None = None,
) -> None:
    """Learn omega once, if it is not there yet.

    Args:
      config: settings of the run.
      workdir: folder of the run.
      dataset: real examples.
      training: what to learn.
      features: the classifiers, among those of the workdir, by which trajectory_features compares.
      before: the training that this one goes on from.
    """
    if exists(workdir.params_file(training.snapshot(snapshot_steps(config, training)[-1]))):
        return
    if training.method in WALKS:
        _walk(config, workdir, dataset, training)
    elif config.statistics.num_examples > 0 and training.method in ONE_STEP:
        _fit(config, workdir, dataset, training)
    else:
        _learn(config, workdir, dataset, training, features, before)


def snapshot_steps(config: ConfigDict, training: Training) -> list[int]:
    """Steps after which a training is kept for selection: equally spaced, the last included.

    What walks is kept once, after its last sweep.
    """
    if training.method in WALKS:
        return [config.guidance[training.method].num_sweeps]
    num_steps = build_guidance.optimizer(config, *training).num_steps
    count = min(config.guidance.num_snapshots, num_steps)
    return [round(num_steps * (i + 1) / count) for i in range(count)]


def load(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, training: Training, step: int
) -> omega.Guidance:
    """The guidance as it was after a step of training.

    Args:
      config: settings of the run.
      workdir: folder of the run.
      dataset: real examples.
      training: which training.
      step: one of `snapshot_steps`.
    """
    model = build_guidance.omega_model(config, training.method, dataset)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), dataset.conditions))
    params = jax.device_put(workdir.load_params(training.snapshot(step), like))
    return omega.Guidance(model, params, training.name, schedule=build.schedule(config))


def load_reward(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> RewardFn | None:
    """The reward of training, or None."""
    if config.reward.name != "classifier":
        return build_guidance.closed_form_reward(config)
    classifier, params = denoiser_stage.load_classifier(
        config, workdir, dataset, "reward_classifier"
    )
    return rewards.class_log_probability(lambda params, x: classifier.apply(params, x)[0], params)


def _learn(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    training: Training,
    features: Sequence[str],
    before: Training | None,
) -> None:
    denoiser, params = denoiser_stage.load(config, workdir, dataset)
    *steps, last = snapshot_steps(config, training)
    start = _start(config, workdir, dataset, training, before)
    begun = isinstance(start, omega.Guidance)

    def keep(step: int, ema: Params) -> None:
        tick()
        if step in steps:
            workdir.save_params(training.snapshot(step), ema)

    with (
        workdir.timed(training.checkpoints),
        workdir.checkpoints(training.checkpoints) as store,
        throughput.measured(config, workdir, training.checkpoints, 1, "steps") as tick,
    ):
        trainer = Trainer(
            optimizer=build_guidance.optimizer(config, *training),
            batch_size=config.guidance.one_step.batch_size,
            mesh=build.mesh(config),
            store=store,
            save_every=config.training.save_every,
            log_every=config.training.log_every,
            on_log=workdir.metrics(training.name),
            on_step=keep,
            check=False,  # stage 1 looks at networks that are not ours
        )
        examples = denoiser_stage.taken(config, workdir, dataset, "train")
        learned = learn_guidance(
            build.stage_key(config, training.name),
            denoiser,
            params,
            examples.x,
            examples.c,
            stratum=examples.stratum,
            objective=objective(config, workdir, dataset, training, features),
            model=None if begun else build_guidance.omega_model(config, training.method, dataset),
            start=start,
            trainer=trainer,
        )
    # Says that all is done, and so comes after the last checkpoint.
    workdir.save_params(training.snapshot(last), learned.params)


def _walk(config: ConfigDict, workdir: Workdir, dataset: Dataset, training: Training) -> None:
    """Choose weights along the path of the sampler."""
    examples = denoiser_stage.taken(config, workdir, dataset, "train")
    with workdir.timed(training.checkpoints):
        learned = build_guidance.walk(config, training.method)(
            build.stage_key(config, training.name),
            *denoiser_stage.load(config, workdir, dataset),
            *examples[:2],
            stratum=examples.stratum,
        )
    workdir.save_params(training.snapshot(*snapshot_steps(config, training)), learned.params)


def _start(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    training: Training,
    before: Training | None,
) -> build_guidance.Start:
    """Schedules to choose the start from, or the guidance of the training before."""
    starts = training.method in TRAJECTORIES and training.method != DIRECTIONS
    if before is None and starts and config.guidance.start in WALKS:
        before = Training(config.guidance.start)
        learn(config, workdir, dataset, before, ())
    if before is None:
        return build_guidance.start_schedules(config)
    return load(config, workdir, dataset, before, snapshot_steps(config, before)[-1])


def objective(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    training: Training,
    features: Sequence[str],
) -> build_guidance.Objective:
    """The objective of a training, with the features and the reward that it takes.

    Args:
      config: settings of the run.
      workdir: folder of the run.
      dataset: real examples.
      training: which training.
      features: the classifiers by which trajectory_features compares.
    """
    feature_fn = None
    if training.method == FEATURES:
        feature_fn = denoiser_stage.load_features(config, workdir, dataset, features)
        if build_pretrained.is_pretrained(config):
            feature_fn = build_pretrained.of_images(config, feature_fn)
    reward = None if training.gamma is None else load_reward(config, workdir, dataset)
    return build_guidance.objective(
        config, training.method, feature_fn, reward=reward, gamma=training.gamma or 0.0
    )


def _fit(config: ConfigDict, workdir: Workdir, dataset: Dataset, training: Training) -> None:
    """Learn from statistics; process 0 alone, since it takes seconds."""
    method, schedule = training.method, build.schedule(config)
    steps = snapshot_steps(config, training)
    objective = build_guidance.one_step_objective(config, method)

    def keep(step: int, ema: Params) -> None:
        if step in steps:
            workdir.save_params(training.snapshot(step), ema)

    @processes.by_main
    def fit() -> None:
        statistics = gram.read(collect.folder(workdir, collect.name_for(objective)))
        model, params = build_guidance.omega_model(config, method, dataset), None
        if config.guidance.start != "init":
            model, params = gram.started(
                model, statistics, objective, schedule=schedule, seed=config.seed
            )
        trainer = Trainer(
            optimizer=build_guidance.optimizer(config, method),
            batch_size=config.guidance.one_step.batch_size,
            log_every=math.gcd(*steps),
            on_log=workdir.metrics(training.name),
            on_step=keep,
        )
        seen = (statistics, objective, model)
        gram.fit(*seen, schedule=schedule, trainer=trainer, seed=config.seed, params=params)

    with workdir.timed(training.checkpoints):
        fit()
