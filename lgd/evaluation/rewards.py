"""Rewards of samples: mean rewards of every stratum, and a measure with them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import conditions
from lgd.evaluation.measures import PRIMARY, Measure
from lgd.metrics.tilt import TiltedLaws
from lgd.types import Condition, RewardFn

StrataRewards = Callable[[Float[Array, "g n *dims"]], Float[Array, " g"]]


def strata_rewards(reward: RewardFn, c: Condition) -> StrataRewards:
    """Mean reward of every stratum, (g,), of samples (g, n, *dims) with conditions c (g, ...)."""

    @jax.jit
    def mean(x: Float[Array, "g n *dims"]) -> Float[Array, " g"]:
        each = conditions.repeat(jax.tree.map(jnp.asarray, c), x.shape[1])
        return jnp.mean(reward(x.reshape(-1, *x.shape[2:]), each).reshape(x.shape[:2]), axis=1)

    return mean


class RewardMeasure:
    """A measure with rewards: samples (g, n, *dims) -> metrics, and the reward of every stratum.

    Its metrics are those of the measure inside, means of the rewards by their names, and, where
    tilted laws are known, ``tilt``, the inverse temperature of the nearest one, and
    ``tilt_distance``, how near it is.

    Args:
      measure: the measure inside.
      rewards: by name, "reward" among them.
      c: the condition of every stratum, leaves (g, ...).
      laws: tilted laws, or None.
    """

    def __init__(
        self,
        measure: Measure,
        rewards: Mapping[str, RewardFn],
        c: Condition,
        laws: TiltedLaws | None = None,
    ) -> None:
        self._measure, self._laws = measure, laws
        self._rewards = {name: strata_rewards(reward, c) for name, reward in rewards.items()}

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
        """What the tilted laws themselves reach, means over strata; None without any."""
        if self._laws is None:
            return None
        return {
            "gamma": list(self._laws.gammas),
            "reward": np.mean(self._laws.mean_reward, axis=1).tolist(),
            PRIMARY: np.mean(self._laws.from_untilted, axis=1).tolist(),
            "effective_size": np.min(self._laws.effective_size, axis=1).tolist(),
        }
