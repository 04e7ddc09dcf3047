"""Rules across the fields of learned guidance, its statistics and sampling."""

from collections.abc import Sequence

from experiments.methods import FEATURES, METHODS, TRAJECTORIES, WALKS
from experiments.rules.across import Across, only, refused

MARGIN = 1e-6  # below this a range is empty in float32


def _s_range(s_min: float, delta: float, zeta: float) -> str | None:
    end = 1.0 - zeta - delta
    if s_min < end - MARGIN:
        return None
    return f"expected s_min < 1 - zeta - delta = {round(end, 6)} (else no s is left), got {s_min}"


def _snapshots_fit(snapshots: int, methods: Sequence[str], one: int, trajectory: int) -> str | None:
    numbers = {"one_step": one, "trajectory": trajectory}
    steps = [numbers[by] for method in methods if (by := METHODS[method].by) in numbers]
    if not steps or snapshots <= min(steps):
        return None
    return f"expected at most {min(steps)}, the steps of the shortest training, got {snapshots}"


ONE_STEP, TRAJECTORY = "guidance.one_step.", "guidance.trajectory."

ACROSS: tuple[Across, ...] = (
    Across((ONE_STEP + "s_min", ONE_STEP + "delta", ONE_STEP + "zeta"), _s_range),
    *(
        refused(
            (group + count, group + "lam"),
            lambda particles, lam: lam > 0.0 and particles < 2,
            "2 or more for lam = {1} > 0",
        )
        for group, count in (
            (ONE_STEP, "num_particles"),
            (TRAJECTORY, "num_particles"),
            (TRAJECTORY, "num_targets"),
        )
    ),
    refused(
        (ONE_STEP + "batch_size", ONE_STEP + "group_size", "guidance.methods"),
        lambda batch, group, methods: "marginal" in methods and batch % group != 0,
        "a multiple of guidance.one_step.group_size = {1}",
    ),
    refused(
        (TRAJECTORY + "conditions_per_step", TRAJECTORY + "marginal_weight"),
        lambda count, weight: count == 1 and weight != 0.0,
        "2 or more for marginal_weight = {1} > 0",
    ),
    refused(
        ("guidance.omega.init", "guidance.omega.max"),
        lambda init, most: init >= most,
        "init < guidance.omega.max = {1}",
    ),
    Across(
        (
            "guidance.num_snapshots",
            "guidance.methods",
            ONE_STEP + "num_steps",
            TRAJECTORY + "num_steps",
        ),
        _snapshots_fit,
    ),
    refused(
        ("guidance.start", TRAJECTORY + "model", "guidance.methods"),
        lambda start, model, methods: (
            start in WALKS and model != "table" and bool({*TRAJECTORIES}.intersection(methods))
        ),
        "best or init with guidance.trajectory.model = {1!r}",
    ),
    refused(
        ("guidance.methods", "data.name"),
        lambda methods, data: FEATURES in methods and data in ("mixture", "captions"),
        f"no {FEATURES} for data {{1}} (images in classes)",
    ),
    refused(
        ("guidance.methods", "reward.name"),
        lambda methods, reward: FEATURES in methods and reward != "none",
        f"no {FEATURES} with reward.name = {{1!r}}",
    ),
    only("sampling.churn", 0.0, "sampling.solver", lambda name: name == "ddim", "above 0: ddim"),
    *(
        refused(
            (f"statistics.{name}", "statistics.batch_size"),
            lambda size, batch: size % batch != 0,
            "a multiple of statistics.batch_size = {1}",
        )
        for name in ("num_examples", "num_held_out", "shard_examples")
    ),
)
