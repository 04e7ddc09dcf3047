"""Objects of a run with a reward, from its config. Nothing is computed here."""

import dataclasses

from ml_collections import ConfigDict

from experiments import build
from lgd import objectives, rewards
from lgd.metrics.classifier import ConvClassifier
from lgd.training import Optimizer
from lgd.types import RewardFn


def closed_form(config: ConfigDict) -> RewardFn:
    """The reward of every name but "classifier"."""
    settings = config.reward
    if settings.name == "linear":
        return rewards.Linear(settings.direction)
    if settings.name == "tanh":
        return rewards.Tanh(settings.direction, settings.scale)
    return rewards.Bump(settings.centre, settings.scale)


def classifier(config: ConfigDict, num_classes: int) -> ConvClassifier:
    """The network that rewards; not the one that measures."""
    return ConvClassifier(num_classes, config.reward.classifier_width)


def objective(
    config: ConfigDict, method: str, reward: RewardFn, gamma: float
) -> objectives.Objective:
    """The objective of a method, minus gamma times the reward."""
    plain = build.objective(config, method)
    if isinstance(plain, objectives.GuidedScoreMatching):
        raise ValueError(f"expected an objective that takes a reward, got {method}")
    return dataclasses.replace(plain, reward=reward, reward_weight=gamma)


def optimizer(config: ConfigDict, method: str, gamma: float) -> Optimizer:
    """That of the method for the first weight, shorter for those that go on from it."""
    first = build.guidance_optimizer(config, method)
    if gamma == config.reward.weights[0]:
        return first
    settings = config.reward
    steps = settings.one_step_num_steps
    if build.unrolls(method):
        steps = settings.trajectory_num_steps
    return dataclasses.replace(first, num_steps=steps)


def tilts(config: ConfigDict) -> list[float]:
    """Inverse temperatures of the tilted laws looked at: 0 and 100 on either side."""
    return [config.reward.max_tilt * i / 100 for i in range(-100, 101)]
