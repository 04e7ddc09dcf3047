"""Stage 3: learn omega with every method asked for."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from experiments import build
from experiments.stages import collect
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir, exists, throughput
from lgd import conditions, gram, learn_guidance, objectives, omega
from lgd.data import Dataset
from lgd.machinery import processes
from lgd.types import OmegaFn, Params


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Train what is not there yet."""
    features = denoiser_stage.feature_networks(config)
    for method in config.guidance.methods:
        learn(config, workdir, dataset, method, features)


def learn(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, method: str, features: Sequence[str]
) -> None:
    """Learn omega with one method, if it is not there yet.

    features: the classifiers, among those of the workdir, by which trajectory_features compares.
    """
    last = snapshot_name(method, snapshot_steps(config, method)[-1])
    if exists(workdir.params_file(last)):
        return
    if config.statistics.num_examples > 0 and not build.unrolls(method):
        _fit(config, workdir, dataset, method)
    else:
        _learn(config, workdir, dataset, method, features)


def snapshot_steps(config: ConfigDict, method: str) -> list[int]:
    """Steps after which a training is kept as a candidate for selection."""
    return snapshots_among(config, build.guidance_optimizer(config, method).num_steps)


def snapshots_among(config: ConfigDict, num_steps: int) -> list[int]:
    """The steps kept of a training of so many: equally spaced, the last one included."""
    count = min(config.guidance.num_snapshots, num_steps)
    return [round(num_steps * (i + 1) / count) for i in range(count)]


def load(config: ConfigDict, workdir: Workdir, dataset: Dataset, method: str, step: int) -> OmegaFn:
    """Omega as it was after this step of training."""
    model = build.omega_model(config, method, dataset.num_classes)
    c = conditions.take(dataset.train.c, slice(1))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), c))
    return omega.bind(model, jax.device_put(workdir.load_params(snapshot_name(method, step), like)))


def snapshot_name(method: str, step: int) -> str:
    """Of the parameters as they were after this step of training."""
    return f"guidance/{method}-{step:06d}"


def _learn(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, method: str, features: Sequence[str]
) -> None:
    denoiser, params = denoiser_stage.load(config, workdir, dataset)
    *steps, last = snapshot_steps(config, method)

    def keep(step: int, ema: Params) -> None:
        tick()
        if step in steps:
            workdir.save_params(snapshot_name(method, step), ema)

    name = f"guidance/{method}"
    with (
        workdir.timed(name),
        workdir.checkpoints(name) as store,
        throughput.measured(config, workdir, name, 1, "steps") as tick,
    ):
        learned = learn_guidance(
            build.stage_key(config, method),
            denoiser,
            params,
            dataset.train.x,
            dataset.train.c,
            objective=_objective(config, workdir, dataset, method, features),
            model=build.omega_model(config, method, dataset.num_classes),
            optimizer=build.guidance_optimizer(config, method),
            start=build.start_schedules(config),
            batch_size=config.guidance.one_step.batch_size,
            mesh=build.mesh(config),
            store=store,
            save_every=config.training.save_every,
            log_every=config.training.log_every,
            on_log=workdir.metrics(method),
            on_step=keep,
        )
    # Says that all is done, and so comes after the last checkpoint.
    workdir.save_params(snapshot_name(method, last), learned.params)


def _objective(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, method: str, features: Sequence[str]
) -> objectives.Objective:
    if method != "trajectory_features":
        return build.objective(config, method)
    feature_fn = denoiser_stage.load_features(config, workdir, dataset, features)
    return build.objective(config, method, feature_fn)


def _fit(config: ConfigDict, workdir: Workdir, dataset: Dataset, method: str) -> None:
    """Learn from statistics; process 0 alone, since it takes seconds."""
    steps = snapshot_steps(config, method)
    log = workdir.metrics(method)

    def keep(step: int, ema: Params, loss: float) -> None:
        log(step, {"loss": loss})
        if step in steps:
            workdir.save_params(snapshot_name(method, step), ema)

    with workdir.timed(f"guidance/{method}"):
        processes.from_main(lambda: _fit_here(config, workdir, dataset, method, steps, keep))


def _fit_here(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    method: str,
    steps: list[int],
    keep: Callable[[int, Params, float], None],
) -> None:
    schedule, objective = build.schedule(config), build.one_step_objective(config, method)
    gathered = gram.read(collect.folder(workdir, collect.name_for(objective)))
    model = build.omega_model(config, method, dataset.num_classes)
    if config.guidance.start == "best":
        model = gram.started(model, gathered, objective, schedule=schedule)
    else:
        model = dataclasses.replace(model, init_omega=config.guidance.omega.init)
    gram.fit(
        gathered,
        objective,
        model,
        schedule=schedule,
        optimizer=build.guidance_optimizer(config, method),
        batch_size=config.guidance.one_step.batch_size,
        seed=config.seed,
        steps_at_once=math.gcd(*steps),
        on_steps=keep,
    )
