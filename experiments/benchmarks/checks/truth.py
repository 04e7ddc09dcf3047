"""Every objective against the true omega of exact models with a planted defect.

    python -m experiments.benchmarks truth --name=truth

The model is the exact denoiser of a mixture in 2 or 8 dimensions with one of the defects of
`lgd.denoisers.Planted`: along Delta, which omega repairs exactly; across it, which no omega mends;
and one that only the path of the sampler shows. Each objective learns omega with its own defaults
and weights of either sign, and is read at a few steps; objectives that walk the sampler are
read as the mean over the steps around these times.
"""

import dataclasses
import functools
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

import lgd
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd import direct, guidance, objectives, omega, plots, schedules
from lgd.denoisers import GaussianMixture, MixtureParams, Planted
from lgd.encoders import Labels
from lgd.machinery.progress import bar
from lgd.objectives import Objective
from lgd.types import FeatureFn

STEPS = ((0.2, 0.4), (0.4, 0.6), (0.5, 0.6), (0.6, 0.8))  # (s, t) that are read
DELTAS = {"along": (0.0, 0.25, 0.5), "across": (0.5,), "path": (0.5,)}
DIMENSIONS = (2, 8)
GRID = tuple(schedules.uniform_times(25).tolist())
NEAR = 0.07  # of a time: steps whose mean is read
FLOW = schedules.rectified_flow()
NUM_CLASSES, COMPONENTS = 4, 2
OMEGA_MIN = -0.95


class Arena(NamedTuple):
    """A mixture, the size of its defect, and examples."""

    planted: Planted
    params: MixtureParams
    x0: Float[np.ndarray, "n d"]
    c: np.ndarray

    @property
    def features(self) -> FeatureFn | None:
        """What walking objectives compare: all but the coordinate that tells the defect of path."""
        return _without_last if self.planted.kind == "path" else None


def _without_last(x: Float[Array, "b d"]) -> Float[Array, "b e"]:
    return x[:, :-1]


def arena(kind: str, delta: float, dimensions: int, seed: int, examples: int) -> Arena:
    """A mixture of four classes with two components each; one coordinate more for kind path.

    Args:
      kind: of the defect.
      delta: its size.
      dimensions: in which classes differ.
      seed: of the examples. The mixture is the same for all.
      examples: how many.
    """
    labels = tuple(np.repeat(np.arange(NUM_CLASSES), COMPONENTS).tolist())
    exact = GaussianMixture(labels, schedule=FLOW)
    rng = np.random.default_rng(dimensions)
    means = rng.normal(size=(len(labels), dimensions)) * 1.2
    variances = rng.uniform(0.05, 0.3, size=(len(labels), dimensions))
    if kind == "path":
        means = np.concatenate([means, np.zeros((len(means), 1))], axis=1)
        variances = np.concatenate([variances, np.full((len(means), 1), 0.001)], axis=1)
    params = exact.params(jnp.asarray(means, jnp.float32), jnp.asarray(variances, jnp.float32))
    c = np.arange(examples) % NUM_CLASSES
    x0 = exact.draw(jax.random.key(seed), params, jnp.asarray(c))
    planted = Planted(denoiser=exact, delta=delta, kind=kind)  # type: ignore[arg-type]
    return Arena(planted, params, np.asarray(x0), c)


Learner = Callable[[Arena, int], Callable[[float, float], Float[np.ndarray, " c"]]]


def _trained(objective: Objective, arena: Arena, seed: int) -> omega.Guidance:
    """Guidance learned by the paper's network, signed, from omega = 0."""
    model = omega.Network(
        schedule=FLOW, encoder=Labels(NUM_CLASSES), support=objective.support, omega_min=OMEGA_MIN
    )
    return lgd.learn_guidance(
        jax.random.key(seed), arena.planted, arena.params, arena.x0, arena.c,
        objective=objective, model=model, start={"unguided": guidance.constant(0.0)},
        trainer=lgd.training.Trainer(
            optimizer=lgd.training.Optimizer(num_steps=600, learning_rate=3e-3, ema_decay=0.99),
            progress=False,
            check=False,
        ),
    )  # fmt: skip


def _at(learned: omega.Guidance, s: float, t: float) -> Float[np.ndarray, " c"]:
    c = jnp.arange(NUM_CLASSES)
    return np.asarray(learned(s=jnp.full(NUM_CLASSES, s), t=jnp.full(NUM_CLASSES, t), c=c))


def _one_step(objective: Objective, arena: Arena, seed: int) -> Any:
    return functools.partial(_at, _trained(objective, arena, seed))


def _debiased(objective: Objective, arena: Arena, seed: int) -> Any:
    """What is learned from real data, less what is learned from the model's own samples."""
    of_data = _trained(objective, arena, seed)
    own = lgd.sample(
        jax.random.key(1000 + seed), arena.planted, arena.params, jnp.asarray(arena.c),
        shape=arena.x0.shape[1:], guidance=guidance.constant(0.0), times=np.linspace(1.0, 0.0, 101),
    )  # fmt: skip
    of_own = _trained(objective, arena._replace(x0=np.asarray(own.x0)), seed)
    return lambda s, t: _at(of_data, s, t) - _at(of_own, s, t)


def _walked(learned: omega.Guidance, s: float, t: float) -> Float[np.ndarray, " c"]:
    """The mean over the steps around a time."""
    grid = np.asarray(GRID)
    weights = np.asarray(learned.table(grid, np.arange(NUM_CLASSES)))
    near = np.abs(grid[:-1] - t) < NEAR
    return weights[near].mean(axis=0)


def _path(arena: Arena, seed: int, **settings: Any) -> Any:
    learned = lgd.path_guidance(
        jax.random.key(seed), arena.planted, arena.params, arena.x0, arena.c,
        settings=direct.PathSettings(
            times=GRID, num_particles=300, features=arena.features, omega_min=OMEGA_MIN,
            omega_max=5.0, progress=False, check=False, **settings,
        ),
    )  # fmt: skip
    return functools.partial(_walked, learned)


def _trajectory(arena: Arena, seed: int) -> Any:
    model = omega.StepTable(times=GRID, rows=omega.ByLabel(NUM_CLASSES), omega_min=OMEGA_MIN)
    learned = lgd.learn_guidance(
        jax.random.key(seed), arena.planted, arena.params, arena.x0, arena.c,
        objective=objectives.Trajectory(times=GRID, features=arena.features),
        model=model, start={"unguided": guidance.constant(0.0)},
        trainer=lgd.training.Trainer(
            optimizer=lgd.training.Optimizer(num_steps=200, learning_rate=0.1, ema_decay=0.99),
            progress=False,
            check=False,
        ),
    )  # fmt: skip
    return functools.partial(_walked, learned)


def learners() -> dict[str, Learner]:
    """Every objective by name: it takes an arena and a seed, and returns omega of (s, t)."""
    consistency = objectives.SelfConsistency()
    shared = dataclasses.replace(consistency, beta=2.0, lam=0.0, churn=0.0, coupling="shared")
    one_step = {
        "self-consistency": consistency,
        "l2, independent noise": objectives.l2(),
        "l2, shared noise, churn 0": shared,
        "conditional marginal": objectives.ConditionalMarginalConsistency(),
        "marginal": objectives.MarginalConsistency(),
        "guided score matching": objectives.GuidedScoreMatching(),
    }
    named: dict[str, Learner] = {
        name: functools.partial(_one_step, objective) for name, objective in one_step.items()
    }
    named["self-consistency, debiased"] = functools.partial(_debiased, consistency)
    own: dict[str, Any] = {"residuals": True}
    return named | {
        "weak form on data": functools.partial(_path, match="moments", policy="data", **own),
        "weak form on the path": functools.partial(_path, match="moments", **own),
        "path": _path,
        "path, residuals": functools.partial(_path, **own),
        "trajectory": _trajectory,
    }


def measure(options: Namespace) -> dict[str, Any]:
    """Return the errors of every objective, by defect, and all that was learned."""
    chosen = {
        name: learner
        for name, learner in learners().items()
        if not options.only or name in options.only.split(";")
    }
    places = [
        (kind, delta, dimensions)
        for kind, deltas in DELTAS.items()
        for delta in deltas
        for dimensions in DIMENSIONS
    ]
    cells: list[dict[str, Any]] = []
    with bar("learn planted repairs", len(chosen) * len(places) * options.seeds) as advance:
        for name, learner in chosen.items():
            for kind, delta, dimensions in places:
                for seed in range(options.seeds):
                    made = arena(kind, delta, dimensions, seed, options.examples)
                    cells += _read(name, learner, made, seed, dimensions)
                    advance(f"{name}, {kind}")
    return {
        "steps": STEPS,
        "examples": options.examples,
        "columns": COLUMNS,
        "rows": [_row(name, cells) for name in chosen],
        "cells": cells,
    }


def _read(
    name: str, learner: Learner, made: Arena, seed: int, dimensions: int
) -> list[dict[str, Any]]:
    """Omega of every step that is read, mean over classes."""
    begin = time.monotonic()
    learned = learner(made, seed)
    seconds = time.monotonic() - begin
    planted = made.planted
    return [
        {
            "method": name, "kind": planted.kind, "delta": planted.delta, "dimensions": dimensions,
            "seed": seed, "s": s, "t": t, "true": planted.best_omega(t),
            "omega": float(np.mean(learned(s, t))), "seconds": round(seconds, 2),
        }
        for s, t in STEPS
    ]  # fmt: skip


def _row(name: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Worst error, mean error and spread over seeds for every kind of defect."""
    own = [cell for cell in cells if cell["method"] == name]
    row: dict[str, Any] = {"method": name, "seconds": float(np.mean([c["seconds"] for c in own]))}
    for kind in DELTAS:
        errors: dict[Any, list[float]] = {}
        for cell in own:
            if cell["kind"] == kind:
                place = (cell["delta"], cell["dimensions"], cell["s"], cell["t"])
                errors.setdefault(place, []).append(cell["omega"] - cell["true"])
        means = np.array([np.mean(of_seeds) for of_seeds in errors.values()])
        row[kind] = {
            "worst": float(np.abs(means).max()),
            "bias": float(means.mean()),
            "spread": float(np.mean([np.std(of_seeds) for of_seeds in errors.values()])),
        }
    return row


_FORM = "{worst:.2f} ({bias:+.2f}, {spread:.2f})"
COLUMNS = [
    text("method", "objective"),
    *(number(kind, f"{kind}: worst error (mean, spread)", _FORM) for kind in DELTAS),
    number("seconds", "seconds", ".0f"),
]


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw what was learned of the defect along Delta over its size, a panel for every step."""
    deltas = DELTAS["along"]
    truth = [delta / (1.0 - delta) for delta in deltas]
    panels: dict[str, Any] = {}
    for s, t in results["steps"]:
        curves: dict[str, Any] = {"truth": (deltas, truth, [0.0] * len(truth))}
        for row in results["rows"]:
            found = [
                [
                    cell["omega"]
                    for cell in results["cells"]
                    if cell["method"] == row["method"] and cell["kind"] == "along"
                    and (cell["delta"], cell["s"], cell["t"]) == (delta, s, t)
                ]
                for delta in deltas
            ]  # fmt: skip
            curves[row["method"]] = (deltas, np.mean(found, axis=1), np.std(found, axis=1))
        panels[f"from {t:g} to {s:g}"] = curves
    return {"": plots.method_curves(panels, xlabel=r"defect $\delta$", ylabel=r"$\omega$")}


def arguments(add: Add) -> None:
    """Add the arguments of this benchmark."""
    add("--seeds", type=int, default=2, help="trainings of every objective")
    add("--examples", type=int, default=8000, help="real examples")
    add("--only", default="", help="objectives, separated by ;")


STUDY = Study(measure=measure, arguments=arguments, figures=figures)
