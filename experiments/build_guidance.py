"""Objectives, optimizers, models of omega and rewards from a config. Nothing is computed here."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import build
from experiments.methods import DIRECTIONS, METHODS
from lgd import encoders, guidance, objectives, omega, rewards
from lgd.data import Dataset
from lgd.metrics.classifier import ConvClassifier
from lgd.objectives import Objective, OneStep
from lgd.training import Optimizer
from lgd.types import FeatureFn, OmegaFn, RewardFn

Start = Mapping[str, OmegaFn] | omega.Guidance | None  # what `learn_guidance` takes
_CLOSED_FORMS: dict[str, Callable[[ConfigDict], RewardFn]] = {
    "linear": lambda settings: rewards.Linear(settings.direction),
    "tanh": lambda settings: rewards.Tanh(settings.direction, settings.scale),
    "bump": lambda settings: rewards.Bump(settings.centre, settings.scale),
}


def walk(config: ConfigDict, method: str) -> Callable[..., omega.Guidance]:
    """The function of a method that walks, (key, denoiser, params, x0, c, stratum) -> guidance."""
    make = METHODS[method].walk
    assert make is not None
    function, settings = make()
    how = settings(
        times=_grids(config)[0],
        churn=config.sampling.churn,
        omega_max=config.guidance.omega.max,
        check=False,
        **config.guidance[method],
    )
    return functools.partial(function, settings=how)


def optimizer(config: ConfigDict, method: str, gamma: float | None = None) -> Optimizer:
    """Optimizer of omega; trainings that go on from a smaller weight of a reward are shorter."""
    by = METHODS[method].by
    settings = config.guidance[by]
    num_steps = settings.num_steps
    if gamma is not None and gamma != config.reward.weights[0]:
        num_steps = config.reward[f"{by}_num_steps"]
    return Optimizer(
        num_steps=num_steps,
        learning_rate=settings.learning_rate,
        ema_decay=settings.ema_decay,
        clip=config.training.clip,
        max_skipped=config.training.max_skipped,
    )


def objective(
    config: ConfigDict,
    method: str,
    feature_fn: FeatureFn | None = None,
    *,
    reward: RewardFn | None = None,
    gamma: float = 0.0,
) -> Objective:
    """The objective behind the row ``learned:<method>``.

    Args:
      config: settings of the run.
      method: one of guidance.methods.
      feature_fn: what trajectory_features compares; without it, only sizes and times are those of
        the method.
      reward: R(x0, c), of methods that take one.
      gamma: its weight.
    """
    of_reward: dict[str, Any] = {"reward": reward, "reward_weight": gamma}
    of_reward = {} if reward is None else of_reward
    if METHODS[method].by == "one_step":
        return dataclasses.replace(one_step_objective(config, method), **of_reward)
    return dataclasses.replace(_trajectory(config), features=feature_fn, **of_reward)


def one_step_objective(config: ConfigDict, method: str) -> OneStep:
    """The objective of a method of single steps, which may learn from statistics."""
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
        conditions_per_step=settings.conditions_per_step,
        churn=config.sampling.churn,
        start="noise" if settings.start_time == 1.0 else "data",
        solver=config.sampling.solver,
    )


def _grids(config: ConfigDict) -> list[tuple[float, ...]]:
    """Every grid that trajectories are unrolled over, the sampler's first."""
    scales, steps = config.guidance.trajectory.grid_scales, config.sampling.num_steps
    numbers = [max(1, round(scale * steps)) for scale in scales]
    return [tuple(np.asarray(build.times(config, number)).tolist()) for number in numbers]


def _grid_from(start: float, grid: tuple[float, ...]) -> tuple[float, ...]:
    """The grid's times from ``start`` down: where start is one of them, that one as it stands."""
    first = next((t for t in grid if abs(t - start) < 1e-6), min(start, grid[0]))
    return (first, *(t for t in grid if t < first))


def start_schedules(config: ConfigDict) -> dict[str, OmegaFn] | None:
    """The one schedule that training starts from, or None for the best of several."""
    if config.guidance.start != "init":
        return None
    weight = config.guidance.omega.init
    return {f"constant({weight:g})": guidance.constant(weight)}


def omega_model(config: ConfigDict, method: str, dataset: Dataset) -> omega.LearnedModel:
    """What the method learns: the paper's network or a table, where its objective sees (s, t)."""
    if method == DIRECTIONS:  # a model of its own for cond - uncond, and for cond - weaker
        one = _one_direction(config, method, dataset)
        return omega.PerDirection(models=(one, one))
    return _one_direction(config, method, dataset)


def _one_direction(config: ConfigDict, method: str, dataset: Dataset) -> omega.LearnedModel:
    by = METHODS[method].by
    if by != "walk" and config.guidance[by].model == "network":
        return _omega_network(config, method, dataset)
    omega_max, rows = config.guidance.omega.max, omega.rows_for(dataset.conditions)
    if by != "one_step":
        # All of it: omega stays at the times above the one that trajectories start at or below.
        sampled = _grids(config)[0]
        return omega.StepTable(
            times=sampled, rows=rows, init_omega=config.guidance.omega.init, omega_max=omega_max
        )
    support = objective(config, method).support
    return omega.BinTable(
        support=support, rows=rows, init_omega=config.guidance.omega.init, omega_max=omega_max
    )


def _omega_network(config: ConfigDict, method: str, dataset: Dataset) -> omega.Network:
    settings = config.guidance.omega
    return omega.Network(
        schedule=build.schedule(config),
        encoder=encoders.for_condition(dataset.conditions),
        width=settings.width,
        depth=settings.depth,
        output=settings.output,
        init_omega=settings.init,
        omega_max=settings.max,
        support=objective(config, method).support,
    )


def closed_form_reward(config: ConfigDict) -> RewardFn | None:
    """The reward of every name but "classifier"; None for "none"."""
    make = _CLOSED_FORMS.get(config.reward.name)
    return None if make is None else make(config.reward)


def reward_classifier(config: ConfigDict, num_classes: int) -> ConvClassifier:
    """The network that rewards; not the one that measures."""
    return ConvClassifier(num_classes, config.reward.classifier_width)


def tilts(config: ConfigDict) -> list[float]:
    """Inverse temperatures of the tilted laws looked at: 0 and 100 on either side."""
    return [config.reward.max_tilt * i / 100 for i in range(-100, 101)]
