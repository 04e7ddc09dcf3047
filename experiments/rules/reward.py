"""Rules across the fields of rewards."""

from collections.abc import Sequence

from experiments.methods import METHODS, TRAJECTORIES
from experiments.rules.across import Across
from experiments.rules.data import SIZES


def _reward_of_data(
    name: str, data: str, direction: Sequence[float], centre: Sequence[float]
) -> str | None:
    if name == "classifier":
        return None if data != "mixture" else f"expected another one for data {data}, got {name!r}"
    field, vector = ("centre", centre) if name == "bump" else ("direction", direction)
    if name == "none" or len(vector) == SIZES.get(data):
        return None
    if data not in SIZES:
        return f"expected none or classifier for data {data}, got {name!r}"
    return (
        f"expected none, or reward.{field} of {SIZES[data]} numbers for data {data}, got {name!r}"
    )


WITHOUT_REWARD = tuple(name for name, method in METHODS.items() if not method.takes_reward)


def _reward_of_methods(name: str, methods: Sequence[str]) -> str | None:
    if name == "none" or (methods and not {*WITHOUT_REWARD}.intersection(methods)):
        return None
    these = "; ".join(f"{method} takes no reward" for method in WITHOUT_REWARD)
    return f"expected none unless guidance.methods names some ({these}), got {name!r}"


def _linear_is_held(
    name: str, methods: Sequence[str], one_step: float, trajectory: float
) -> str | None:
    """Refuse a linear reward with a power of distance up to 1, which it outgrows; l2 has 2."""
    powers = dict.fromkeys(TRAJECTORIES, trajectory) | {"l2": 2.0}
    least = min((powers.get(method, one_step) for method in methods), default=2.0)
    if name != "linear" or least > 1.0:
        return None
    return f"expected a bounded reward, or beta > 1, for a loss bounded below, got beta {least}"


def _reward_snapshots_fit(snapshots: int, name: str, one: int, trajectory: int) -> str | None:
    if name == "none" or snapshots <= min(one, trajectory):
        return None
    return f"expected at most {min(one, trajectory)}, the steps of one weight, got {snapshots}"


def _no_reward_from_statistics(size: int, name: str, methods: Sequence[str]) -> str | None:
    if size == 0 or name == "none" or not {*methods}.difference(TRAJECTORIES):
        return None
    return f"expected 0 with reward.name = {name!r}, which needs predictions, got {size}"


ACROSS: tuple[Across, ...] = (
    Across(
        ("reward.name", "data.name", "reward.direction", "reward.centre"),
        _reward_of_data,
    ),
    Across(("reward.name", "guidance.methods"), _reward_of_methods),
    Across(
        ("reward.name", "guidance.methods", "guidance.one_step.beta", "guidance.trajectory.beta"),
        _linear_is_held,
    ),
    Across(
        (
            "guidance.num_snapshots",
            "reward.name",
            "reward.one_step_num_steps",
            "reward.trajectory_num_steps",
        ),
        _reward_snapshots_fit,
    ),
    Across(
        ("statistics.num_examples", "reward.name", "guidance.methods"), _no_reward_from_statistics
    ),
)
