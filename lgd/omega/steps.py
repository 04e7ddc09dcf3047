"""Weights on a grid as JSON and CSV, for tools that know nothing of this library."""

import csv
import io
import json
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lgd import schedules
from lgd.types import Schedule

CONVENTION = "cfg_scale = 1 + omega; x0_hat = cond + omega (cond - uncond); omega = 0: no guidance"
SEVERAL_CONVENTION = (
    "omega[k] is of direction k: x0_hat = cond + omega[0] (cond - uncond) + sum over k > 0 of "
    "omega[k] (cond - weaker_k); omega = 0: no guidance"
)


def steps(
    grid: Float[np.ndarray, " n"], omega: Float[np.ndarray, "k b *d"], schedule: Schedule | None
) -> list[dict[str, Any]]:
    """An object for every step: its number, times, noise level and weights.

    Args:
      grid: times (k + 1,), decreasing.
      omega: of every step and condition, and perhaps direction.
      schedule: the noise schedule; None: not known, so that sigma and logsnr are null.
    """
    known: dict[str, list[float | None]] = {name: [None] * len(omega) for name in _LEVELS}
    if schedule is not None:
        t = jnp.asarray(grid[:-1])
        known["sigma"] = np.asarray(schedule.sigma(t), np.float64).tolist()
        known["logsnr"] = np.asarray(schedules.clipped_logsnr(schedule, t), np.float64).tolist()
    return [
        {"step": i, "t": float(grid[i]), "s": float(grid[i + 1])}
        | {name: values[i] for name, values in known.items()}
        | {"omega": row.tolist()}
        | ({} if row.ndim > 1 else {"cfg_scale": (1.0 + row).tolist()})
        for i, row in enumerate(np.asarray(omega, np.float64))
    ]


_LEVELS = ("sigma", "logsnr")


def to_json(
    grid: Float[np.ndarray, " n"], omega: Float[np.ndarray, "k b *d"], schedule: Schedule | None
) -> str:
    """The steps and the convention as one JSON object."""
    convention = SEVERAL_CONVENTION if omega.ndim > 2 else CONVENTION
    value = {"convention": convention, "steps": steps(grid, omega, schedule)}
    return json.dumps(value, allow_nan=False)


def to_csv(
    grid: Float[np.ndarray, " n"], omega: Float[np.ndarray, "k b *d"], schedule: Schedule | None
) -> str:
    """A line for every step and condition, under a line of names.

    Several directions are columns omega_0, omega_1 and so on.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if omega.ndim > 2:
        names = [f"omega_{k}" for k in range(omega.shape[2])]
    else:
        names = ["omega", "cfg_scale"]
    writer.writerow(["step", "condition", "t", "s", *_LEVELS, *names])
    for step in steps(grid, omega, schedule):
        common = [step["t"], step["s"], *(step[name] for name in _LEVELS)]
        for number, weight in enumerate(step["omega"]):
            weights = weight if omega.ndim > 2 else [weight, step["cfg_scale"][number]]
            writer.writerow([step["step"], number, *common, *weights])
    return text.getvalue()
