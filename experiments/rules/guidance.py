"""Rules across the fields of learned guidance, its statistics and sampling."""

from collections.abc import Sequence

from experiments.methods import FEATURES, METHODS, TRAJECTORIES, WALKS
from experiments.rules.across import Across

PATH = WALKS[0]
MARGIN = 1e-6  # below this a range is empty in float32


def _s_range(s_min: float, delta: float, zeta: float) -> str | None:
    end = 1.0 - zeta - delta
    if s_min < end - MARGIN:
        return None
    return f"expected s_min < 1 - zeta - delta = {round(end, 6)} (else no s is left), got {s_min}"


def _pairs_for_lam(particles: int, lam: float) -> str | None:
    return f"expected 2 or more for lam = {lam} > 0, got 1" if lam > 0.0 and particles < 2 else None


def _strata_to_pool(count: int, weight: float) -> str | None:
    if count > 1 or weight == 0.0:
        return None
    return f"expected 2 or more for marginal_weight = {weight} > 0, got {count}"


def _groups_divide(batch: int, group: int, methods: Sequence[str]) -> str | None:
    if "marginal" not in methods or batch % group == 0:
        return None
    return f"expected a multiple of guidance.one_step.group_size = {group}, got {batch}"


def _init_below_max(init: float, most: float) -> str | None:
    return None if init < most else f"expected init < guidance.omega.max = {most}, got {init}"


def _snapshots_fit(snapshots: int, methods: Sequence[str], one: int, trajectory: int) -> str | None:
    numbers = {"one_step": one, "trajectory": trajectory}
    steps = [numbers[by] for method in methods if (by := METHODS[method].by) in numbers]
    if not steps or snapshots <= min(steps):
        return None
    return f"expected at most {min(steps)}, the steps of the shortest training, got {snapshots}"


def _churn_is_ddim(churn: float, solver: str) -> str | None:
    if churn == 0.0 or solver == "ddim":
        return None
    return f"expected 0.0 for solver {solver} (above 0: ddim only), got {churn}"


def _whole_batches(size: int, batch: int) -> str | None:
    if size % batch == 0:
        return None
    return f"expected a multiple of statistics.batch_size = {batch}, got {size}"


def _features_of_images(methods: Sequence[str], data: str) -> str | None:
    if FEATURES not in methods or data not in ("mixture", "captions"):
        return None
    return f"expected no {FEATURES} for data {data} (images in classes), got {methods}"


def _features_without_reward(methods: Sequence[str], reward: str) -> str | None:
    if FEATURES not in methods or reward == "none":
        return None
    return f"expected no {FEATURES} with reward.name = {reward!r}, got {methods}"


def _table_from_path(start: str, model: str, methods: Sequence[str]) -> str | None:
    if start not in WALKS or model == "table" or not {*TRAJECTORIES}.intersection(methods):
        return None
    return f"expected best or init with guidance.trajectory.model = {model!r}, got {start!r}"


ONE_STEP, TRAJECTORY = "guidance.one_step.", "guidance.trajectory."

ACROSS: tuple[Across, ...] = (
    Across((ONE_STEP + "s_min", ONE_STEP + "delta", ONE_STEP + "zeta"), _s_range),
    Across((ONE_STEP + "num_particles", ONE_STEP + "lam"), _pairs_for_lam),
    Across((ONE_STEP + "batch_size", ONE_STEP + "group_size", "guidance.methods"), _groups_divide),
    Across((TRAJECTORY + "num_particles", TRAJECTORY + "lam"), _pairs_for_lam),
    Across((TRAJECTORY + "num_targets", TRAJECTORY + "lam"), _pairs_for_lam),
    Across((TRAJECTORY + "conditions_per_step", TRAJECTORY + "marginal_weight"), _strata_to_pool),
    Across(("guidance.omega.init", "guidance.omega.max"), _init_below_max),
    Across(
        (
            "guidance.num_snapshots",
            "guidance.methods",
            ONE_STEP + "num_steps",
            TRAJECTORY + "num_steps",
        ),
        _snapshots_fit,
    ),
    Across(("guidance.start", TRAJECTORY + "model", "guidance.methods"), _table_from_path),
    Across(("guidance.methods", "data.name"), _features_of_images),
    Across(("guidance.methods", "reward.name"), _features_without_reward),
    Across(("sampling.churn", "sampling.solver"), _churn_is_ddim),
    *(
        Across((f"statistics.{name}", "statistics.batch_size"), _whole_batches)
        for name in ("num_examples", "num_held_out", "shard_examples")
    ),
)
