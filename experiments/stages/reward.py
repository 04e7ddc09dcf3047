"""What a reward adds to a run: metrics of every row, and what it can do for every class.

``reward`` of a row is measured with another network than the one that trained (where there is one:
``training_reward``), so that a gain in the latter alone, reward hacking, shows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments import build, build_guidance
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import reward_reach
from experiments.workdir import Workdir
from lgd import conditions, rewards
from lgd.data import Dataset
from lgd.evaluation import Generator
from lgd.evaluation.measures import PRIMARY
from lgd.metrics.tilt import TiltedLaws
from lgd.types import Condition, RewardFn

HELPED = 0.1  # gain of a class, in standard deviations of its true reward, that counts as help
StrataRewards = Callable[[Float[Array, "g n *dims"]], Float[Array, " g"]]


def strata_rewards(reward: RewardFn, c: Condition) -> StrataRewards:
    """Mean reward of every stratum, (g,), of samples (g, n, *dims) with conditions c (g, ...)."""

    @jax.jit
    def mean(x: Float[Array, "g n *dims"]) -> Float[Array, " g"]:
        each = conditions.repeat(jax.tree.map(jnp.asarray, c), x.shape[1])
        return jnp.mean(reward(x.reshape(-1, *x.shape[2:]), each).reshape(x.shape[:2]), axis=1)

    return mean


class RewardMeasure:
    """A measure with rewards: samples (g, n, *dims) -> metrics, and the reward of every class.

    Beside the metrics of the measure inside: reward; images with a classifier's reward:
    training_reward; mixture: tilt, the inverse temperature of the nearest tilted law, and
    tilt_distance, how near.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Workdir,
        dataset: Dataset,
        reward: RewardFn,
        measure: Callable[[Array], dict[str, Any]],
    ) -> None:
        self._measure = measure
        self._rewards = {"reward": strata_rewards(reward, dataset.conditions)}
        self.reward = reward
        if config.reward.name == "classifier":
            classifier, params = denoiser_stage.load_classifier(config, workdir, dataset)
            self.reward = rewards.class_log_probability(
                lambda params, x: classifier.apply(params, x)[0], params
            )
            self._rewards = {
                "reward": strata_rewards(self.reward, dataset.conditions),
                "training_reward": strata_rewards(reward, dataset.conditions),
            }
        self._laws = _tilted_laws(config, reward) if build.has_known_law(config) else None

    def __call__(self, x: Float[Array, "g n *dims"]) -> dict[str, Any]:
        """``{"metrics", "resampled", "by_class"}`` of one run, the last of the reward."""
        by_class = {name: np.asarray(mean(x)) for name, mean in self._rewards.items()}
        measured = self._measure(x)
        metrics = measured["metrics"] | {name: float(r.mean()) for name, r in by_class.items()}
        if self._laws is not None:
            tilt = self._laws.nearest(self._laws.distance(x))
            metrics |= {"tilt": tilt.gamma, "tilt_distance": tilt.distance}
        return measured | {"metrics": metrics, "by_class": by_class["reward"].tolist()}

    def tilted_laws(self) -> dict[str, Any] | None:
        """Means over classes of what the tilted laws themselves reach; None without any."""
        if self._laws is None:
            return None
        return {
            "gamma": list(self._laws.gammas),
            "reward": np.mean(self._laws.mean_reward, axis=1).tolist(),
            PRIMARY: np.mean(self._laws.from_untilted, axis=1).tolist(),
            "effective_size": np.min(self._laws.effective_size, axis=1).tolist(),
        }

    def results(
        self, dataset: Dataset, generator: Generator, training: RewardFn, rows: Sequence[dict]
    ) -> dict[str, Any]:
        """What results.json holds of a reward beside its rows, the first of which is unguided."""
        true = _true_rewards(dataset, self.reward)
        return {
            "reward_metric": "reward",
            "true_reward": float(np.mean([values.mean() for values in true])),
            "classes": _classes(dataset, generator, training, rows, true),
            "tilted": self.tilted_laws(),
        }


def with_loss(run: dict[str, float], gamma: float | None) -> dict[str, float]:
    """Metrics of a run with ``loss``, which its row was selected by, for a weight of the reward."""
    if gamma is None:
        return run
    return run | {"loss": run[PRIMARY] - gamma * run.get("training_reward", run["reward"])}


def _tilted_laws(config: ConfigDict, reward: RewardFn) -> TiltedLaws:
    exact, params = build.exact_denoiser(config)
    size = config.reward.num_true_draws
    c = jnp.repeat(jnp.arange(exact.num_classes, dtype=jnp.int32), size)
    draws = exact.draw(build.stage_key(config, "tilted laws"), params, c)
    shape = (exact.num_classes, size)
    return TiltedLaws(
        draws.reshape(*shape, -1), reward(draws, c).reshape(shape), build_guidance.tilts(config)
    )


def _true_rewards(dataset: Dataset, reward: RewardFn) -> list[np.ndarray]:
    """Rewards of the real test examples, by class."""
    c = jax.tree.map(jnp.asarray, dataset.test.c)
    values = np.asarray(jax.jit(reward)(jnp.asarray(dataset.test.x), c))
    return [values[dataset.test.strata == k] for k in range(dataset.num_classes)]


def _classes(
    dataset: Dataset,
    generator: Generator,
    reward: RewardFn,
    rows: Sequence[dict],
    true: Sequence[np.ndarray],
) -> list[dict]:
    """For every class, how far any row moved its reward, and what derivatives at 0 say."""
    slopes = reward_reach.slopes(generator, dataset, reward, 200, seed=reward_reach.SEED)
    reached = np.asarray([row["reward_by_class"] for row in rows])
    most = reached.max(axis=0)
    return [
        {
            "class": name,
            "true": float(true[k].mean()),
            "true_std": float(true[k].std()),
            "unguided": float(reached[0, k]),
            "least": float(reached[:, k].min()),
            "most": float(most[k]),
            "most_by": rows[int(reached[:, k].argmax())]["method"],
            "helped": bool(most[k] - reached[0, k] >= HELPED * true[k].std()),
            "slope": float(slopes.trajectory[k].sum()),
            "slope_up": float(np.maximum(slopes.trajectory[k], 0.0).sum()),
            "one_step_slope": float(slopes.one_step[k].mean()),
        }
        for k, name in enumerate(dataset.class_names)
    ]
