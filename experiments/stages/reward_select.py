"""What a run with a reward compares: families of schedules, each tuned for every weight gamma_R.

All minimise one thing on validation data, ``distance - gamma_R reward``: the primary metric, and
the reward of training. Hand-made families choose from a grid, learned ones among their snapshots.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments.journal import Journal, schedule_key
from experiments.stages import reward_guidance
from experiments.workdir import Workdir
from lgd import guidance
from lgd.data import Dataset
from lgd.evaluation import Generator
from lgd.machinery.progress import bar
from lgd.metrics.energy import ClassEnergyDistance
from lgd.types import OmegaFn, RewardFn

HAND_MADE = ("constant", "limited_interval", "limited_interval_per_class")
ClassRewards = Callable[[Float[Array, "g n *dims"]], Float[Array, " g"]]


class Candidate(NamedTuple):
    """A schedule, and its validation scores of every class, (g,)."""

    params: dict
    omega_fn: OmegaFn
    distance: np.ndarray
    reward: np.ndarray

    def losses(self, gamma: float) -> np.ndarray:
        """``distance - gamma reward`` of every class."""
        return self.distance - gamma * self.reward


class Entry(NamedTuple):
    """A row to be: entries of one family make one curve, over gamma or over the weight."""

    method: str
    family: str
    gamma: float | None  # the weight it was tuned for; None: for none
    candidate: Candidate


Score = Callable[[dict, OmegaFn], Candidate]


def select(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    generator: Generator,
    reward: RewardFn,
    journal: Journal,
) -> list[Entry]:
    """Unguided; constants over their weight; the others, tuned for every gamma_R."""
    score = _score(config, dataset, generator, reward, journal)
    with bar("score on validation data", _num_candidates(config)) as advance:

        def advancing(params: dict, omega_fn: OmegaFn) -> Candidate:
            candidate = score(params, omega_fn)
            advance("")
            return candidate

        entries = _hand_made(config, advancing)
        for method, gamma in itertools.product(config.guidance.methods, config.reward.weights):
            entries.append(_learned(config, workdir, dataset, method, gamma, advancing))
    return entries


def class_rewards(reward: RewardFn) -> ClassRewards:
    """Mean reward of every class, (g,), of samples (g, n, *dims)."""

    @jax.jit
    def mean(x: Float[Array, "g n *dims"]) -> Float[Array, " g"]:
        c = jnp.repeat(jnp.arange(len(x), dtype=jnp.int32), x.shape[1])
        return jnp.mean(reward(x.reshape(-1, *x.shape[2:]), c).reshape(x.shape[:2]), axis=1)

    return mean


def _score(
    config: ConfigDict,
    dataset: Dataset,
    generator: Generator,
    reward: RewardFn,
    journal: Journal,
) -> Score:
    """Scores over the validation seeds; what the journal holds is not measured again."""
    real = ClassEnergyDistance(dataset.validation, dataset.num_classes)
    per_class = config.evaluation.num_samples // dataset.num_classes
    rewarded = class_rewards(reward)

    def measured(omega_fn: OmegaFn, seed: int) -> list[list[float]]:
        x = generator(omega_fn, per_class, seed=seed)
        return [np.asarray(real(x)).tolist(), np.asarray(rewarded(x)).tolist()]

    def score(params: dict, omega_fn: OmegaFn) -> Candidate:
        name = schedule_key(omega_fn, generator.times, generator.num_classes)
        runs = [
            journal(f"validation {name} seed={seed}", functools.partial(measured, omega_fn, seed))
            for seed in range(config.evaluation.validation_seeds)
        ]
        return Candidate(params, omega_fn, *np.mean(np.asarray(runs, np.float64), axis=0))

    return score


def _hand_made(config: ConfigDict, score: Score) -> list[Entry]:
    weights = config.evaluation.constant_weights  # the first is 0
    unguided, *constants = [score({"w": w}, guidance.constant(w)) for w in weights]
    still = unguided._replace(params={"w": 0.0, "lo": 0.0, "hi": 1.0})
    intervals = [still]
    for w, lo, hi in _intervals(config):
        intervals.append(score({"w": w, "lo": lo, "hi": hi}, guidance.limited_interval(w, lo, hi)))
    entries = [Entry("unguided", "unguided", None, unguided._replace(params={}))]
    entries += [Entry(f"constant({c.params['w']:g})", "constant", None, c) for c in constants]
    for gamma in config.reward.weights:
        best = min(intervals, key=lambda each: each.losses(gamma).mean())
        entries.append(_entry("limited_interval", gamma, best))
    for gamma in config.reward.weights:
        entries.append(_entry("limited_interval_per_class", gamma, _per_class(intervals, gamma)))
    return entries


def _intervals(config: ConfigDict) -> list[tuple[float, float, float]]:
    """Every (w, lo, hi)."""
    settings = config.evaluation
    axes = (settings.interval_weights, settings.interval_lower, settings.interval_upper)
    return [(w, lo, hi) for w, lo, hi in itertools.product(*axes) if lo < hi]


def _per_class(intervals: list[Candidate], gamma: float) -> Candidate:
    """The best interval of every class by itself; classes do not share samples."""
    chosen = np.argmin([each.losses(gamma) for each in intervals], axis=0)
    best = [intervals[i] for i in chosen]
    params = {name: [each.params[name] for each in best] for name in ("w", "lo", "hi")}
    scores = ([each[i][k] for k, each in enumerate(best)] for i in (2, 3))
    distance, reward = (np.asarray(values) for values in scores)
    return Candidate(params, guidance.limited_interval_per_class(**params), distance, reward)


def _learned(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    method: str,
    gamma: float,
    score: Score,
) -> Entry:
    """The best snapshot of a training."""
    candidates = []
    for step in reward_guidance.snapshot_steps(config, method, gamma):
        omega_fn = reward_guidance.load(config, workdir, dataset, method, gamma, step)
        candidates.append(score({"step": step}, omega_fn))
    best = min(candidates, key=lambda each: each.losses(gamma).mean())
    return _entry(f"learned:{method}", gamma, best)


def _entry(family: str, gamma: float, candidate: Candidate) -> Entry:
    params = {"gamma": gamma, **candidate.params}
    return Entry(f"{family}:reward({gamma:.9g})", family, gamma, candidate._replace(params=params))


def _num_candidates(config: ConfigDict) -> int:
    snapshots = [
        len(reward_guidance.snapshot_steps(config, method, gamma))
        for method, gamma in itertools.product(config.guidance.methods, config.reward.weights)
    ]
    return len(config.evaluation.constant_weights) + len(_intervals(config)) + sum(snapshots)
