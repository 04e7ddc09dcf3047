"""The program that the lanes of a sweep share, and the settings in which they differ.

One compiled program serves all lanes: what they share is static, what differs is an array with an
entry for every lane, and a narrow network is a wide one whose other units are 0 and stay 0.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd.gram.layout import Layout, StatisticsError
from lgd.objectives import Energy, OneStep
from lgd.omega import LearnedModel
from lgd.training import Optimizer
from lgd.types import Condition, Params, Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lane:
    """One setting of a sweep.

    Args:
      objective: what is minimised.
      model: what is learned.
      learning_rate: of the optimizer, in the place of that of its settings.
      seed: of the parameters, the batches and the noise.
    """

    objective: OneStep
    model: LearnedModel
    learning_rate: float = 3e-3
    seed: int = 0


class LaneSettings(NamedTuple):
    """Values by which lanes differ, each (lanes,)."""

    energy: Energy
    learning_rate: Float[Array, " l"]
    seed: Int[Array, " l"]  # index among the different seeds
    form: Int[Array, " l"]  # index among the different pairs of seed and churn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """The settings that all lanes share, for which one program is compiled."""

    objective: OneStep  # the frame of all of them
    model: LearnedModel  # the widest
    layout: Layout
    schedule: Schedule
    optimizer: Optimizer  # at learning rate 1
    common: tuple[float | None, ...]  # fields of Energy that all lanes agree on
    form_seeds: tuple[int, ...]
    form_churns: tuple[float, ...]


class State(NamedTuple):
    """Parameters, their average and the optimizer's state, stacked over lanes."""

    params: Params
    ema: Params
    opt_state: Any


def check_lanes(lanes: Sequence[Lane], layout: Layout) -> Lane:
    """The first lane, once it is known that one program can serve all lanes on these statistics.

    Raises StatisticsError for no lanes, lanes that differ in what a program shares, or models of
    features or directions that the statistics do not have.
    """
    if not lanes:
        raise StatisticsError("lanes: expected at least one, got none")
    frames = [(lane.objective.frame, lane.model.thin()) for lane in lanes]
    for lane, frame in zip(lanes, frames, strict=True):
        if not lane.learning_rate > 0.0:
            raise StatisticsError(f"learning_rate: expected > 0, got {lane.learning_rate}")
        if frame != frames[0]:
            raise StatisticsError(
                "lanes: expected to differ in beta, lam, churn, width, learning_rate and seed "
                f"only, got {frame} beside {frames[0]}"
            )
    model, k = lanes[0].model, len(layout.directions)
    if model.num_features not in (0, layout.num_features):
        raise StatisticsError(
            f"features: expected at most the {layout.num_features} collected for each particle, "
            f"got a model of {model.num_features}"
        )
    if model.num_directions not in (1, k):
        raise StatisticsError(
            f"directions: expected 1 or {k} values of omega, got {model.num_directions}"
        )
    return lanes[0]


def make_program(
    lanes: Sequence[Lane],
    seeds: tuple[int, ...],
    layout: Layout,
    schedule: Schedule,
    optimizer: Optimizer,
) -> tuple[Program, LaneSettings]:
    """The program that is compiled for some lanes, and the settings that each brings to it.

    Args:
      lanes: that `check_lanes` accepts.
      seeds: the different seeds of the lanes, in order.
      layout: of the statistics.
      schedule: the forward process.
      optimizer: settings that all lanes share; its learning rate is not used.
    """
    energies = [lane.objective.energy for lane in lanes]
    pairs = [
        (seeds.index(lane.seed), float(energy.churn))
        for lane, energy in zip(lanes, energies, strict=True)
    ]
    forms = tuple(dict.fromkeys(pairs))
    common = tuple(
        float(values[0]) if len(set(values)) == 1 else None
        for values in zip(*energies, strict=True)
    )
    models: list[Any] = [lane.model for lane in lanes]
    program = Program(
        objective=lanes[0].objective.frame,
        model=functools.reduce(lambda widest, model: widest.wider(model), models),
        layout=layout,
        schedule=schedule,
        optimizer=dataclasses.replace(optimizer, learning_rate=1.0),
        common=common,
        form_seeds=tuple(seed for seed, _ in forms),
        form_churns=tuple(churn for _, churn in forms),
    )
    settings = LaneSettings(
        Energy(*(jnp.asarray(values, jnp.float32) for values in zip(*energies, strict=True))),
        jnp.asarray([lane.learning_rate for lane in lanes], jnp.float32),
        jnp.asarray([seed for seed, _ in pairs], jnp.int32),
        jnp.asarray([forms.index(pair) for pair in pairs], jnp.int32),
    )
    return program, settings


def initial_state(
    lanes: Sequence[Lane], program: Program, params: Params | None, c: Condition
) -> State:
    """The state before the first step: parameters as wide as those of the widest model.

    Args:
      lanes: the settings.
      program: what they have in common.
      params: parameters of every lane; None: ``model.init`` by the seed of each.
      c: example conditions for ``model.init``.
    """
    shapes = jax.eval_shape(program.model.init, jax.random.key(0), c)
    params_by_lane = [
        lane.model.init(jax.random.fold_in(jax.random.key(lane.seed), 0), c)
        if params is None
        else params
        for lane in lanes
    ]
    wide = [jax.tree.map(_widened, tree, shapes) for tree in params_by_lane]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *wide)
    opt_state = jax.vmap(program.optimizer.transformation().init)(stacked)
    return State(stacked, jax.tree.map(jnp.copy, stacked), opt_state)


def _widened(leaf: Array, like: jax.ShapeDtypeStruct) -> Array:
    """The array with zeros after it: units of which nothing comes and to which no gradient goes."""
    if leaf.ndim != len(like.shape):
        raise StatisticsError(f"params: expected shape {like.shape}, got {leaf.shape}")
    if leaf.shape == like.shape:
        return leaf
    return jnp.pad(
        leaf, [(0, full - size) for size, full in zip(leaf.shape, like.shape, strict=True)]
    )


def narrowed(stacked: Params, index: int, lane: Lane, c: Condition) -> Params:
    """The parameters of one lane at the width of its own model.

    Args:
      stacked: parameters of all lanes.
      index: which lane.
      lane: its setting.
      c: example conditions, as in `initial_state`.
    """
    shapes = jax.eval_shape(lane.model.init, jax.random.key(0), c)

    def narrow(leaf: Array, like: jax.ShapeDtypeStruct) -> Array:
        return leaf[index][tuple(slice(size) for size in like.shape)]

    return jax.tree.map(narrow, stacked, shapes)
