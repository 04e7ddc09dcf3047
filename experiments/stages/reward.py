"""What a reward adds to a run: metrics of every row, and what it can do for every class.

``reward`` of a row is measured with another network than the one that trained (where there is one:
``training_reward``), so that a gain in the latter alone, reward hacking, shows.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import build, build_guidance
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir
from lgd import rewards
from lgd.data import Dataset
from lgd.evaluation import Generator, Measure, RewardMeasure, slopes
from lgd.evaluation.measures import PRIMARY
from lgd.metrics.tilt import TiltedLaws
from lgd.types import RewardFn

HELPED = 0.1  # gain of a class, in standard deviations of its true reward, that counts as help
SEED = 999_999  # of the noise of slopes, apart from those of validation and of test samples


class Rewarded(RewardMeasure):
    """The measure of a run with a reward.

    Images with a classifier's reward have both networks' rewards, the mixture has its tilted laws.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Workdir,
        dataset: Dataset,
        reward: RewardFn,
        measure: Measure,
    ) -> None:
        self.training_reward = self.reward = reward
        named = {"reward": reward}
        if config.reward.name == "classifier":
            classifier, params = denoiser_stage.load_classifier(config, workdir, dataset)
            self.reward = rewards.class_log_probability(
                lambda params, x: classifier.apply(params, x)[0], params
            )
            named = {"reward": self.reward, "training_reward": reward}
        laws = _tilted_laws(config, reward) if build.has_known_law(config) else None
        super().__init__(measure, named, dataset.conditions, laws)

    def results(
        self, dataset: Dataset, generator: Generator, rows: Sequence[dict]
    ) -> dict[str, Any]:
        """What results.json holds of a reward beside its rows, the first of which is unguided."""
        true = _true_rewards(dataset, self.reward)
        return {
            "reward_metric": "reward",
            "true_reward": float(np.mean([values.mean() for values in true])),
            "classes": _classes(dataset, generator, self.training_reward, rows, true),
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
    derivatives = slopes(generator, dataset.test, reward, 200, seed=SEED)
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
            "slope": float(derivatives.trajectory[k].sum()),
            "slope_up": float(np.maximum(derivatives.trajectory[k], 0.0).sum()),
            "one_step_slope": float(derivatives.one_step[k].mean()),
        }
        for k, name in enumerate(dataset.class_names)
    ]
