"""The one table of methods that learn omega: rules, stages and reports go through it.

A method that trains is an objective in `build_guidance`. One that walks chooses weights along the
sampler's path without training: it needs a row here and the group ``guidance.<name>`` of a config,
whose fields are those of its settings, ``num_sweeps`` among them. Configs are checked by this table
before JAX is imported.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

By = Literal["one_step", "trajectory", "walk"]
LEARNED = "learned:"  # precedes the method in the names of rows


def _path() -> tuple[Callable[..., Any], type]:
    from lgd import direct

    return direct.path_guidance, direct.PathSettings


class Method(NamedTuple):
    """A row of `METHODS`.

    by: what omega is learned by: single steps, for which statistics may stand; trajectories that
    are unrolled; or a walk. The first two are groups of ``config.guidance``. takes_reward: whether
    a reward may be added. walk: returns the function (key, denoiser, params, x0, c, *, stratum,
    settings) -> guidance, and the class of its settings.
    """

    by: By
    takes_reward: bool = True
    walk: Callable[[], tuple[Callable[..., Any], type]] | None = None


FEATURES = "trajectory_features"  # compares by features of classifiers
DIRECTIONS = "directions"  # learns a weight for a weaker denoiser too
METHODS = {
    "self_consistency": Method("one_step"),
    "l2": Method("one_step"),
    "conditional_marginal": Method("one_step"),
    "marginal": Method("one_step"),
    "guided_score_matching": Method("one_step", takes_reward=False),
    "trajectory": Method("trajectory"),
    FEATURES: Method("trajectory"),
    DIRECTIONS: Method("trajectory"),
    "path": Method("walk", takes_reward=False, walk=_path),
}
ONE_STEP, TRAJECTORIES, WALKS = (
    tuple(name for name, method in METHODS.items() if method.by == by) for by in get_args(By)
)


def is_learned(family: str) -> bool:
    """Whether the rows of a family were learned."""
    return family.startswith(LEARNED)
