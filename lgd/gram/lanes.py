"""What lanes of a sweep have in common, and by what they differ.

One compiled program serves all lanes: what they share is static, what differs is an array with an
entry a lane, and a narrow network is a wide one whose other units are 0 and stay 0.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd import omega
from lgd.gram.layout import Layout, StatisticsError
from lgd.gram.loss import Energy, OneStep, energy_of, frame_of
from lgd.omega import Guidance
from lgd.training import Optimizer
from lgd.types import OmegaModel, Params, Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lane:
    """One setting of a sweep: what to minimise, what to learn, how fast, and from which seed."""

    objective: OneStep
    model: OmegaModel
    learning_rate: float = 3e-3
    seed: int = 0


class Numbers(NamedTuple):
    """By what lanes differ, each (lanes,)."""

    energy: Energy
    learning_rate: Float[Array, " l"]
    seed: Int[Array, " l"]  # index among the different seeds
    form: Int[Array, " l"]  # index among the different pairs of seed and churn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What is compiled: all that lanes have in common."""

    objective: OneStep  # of the first lane
    model: OmegaModel  # the widest
    layout: Layout
    schedule: Schedule
    optimizer: Optimizer  # at learning rate 1
    common: tuple[float | None, ...]  # fields of Energy that all lanes agree on
    form_seeds: tuple[int, ...]
    form_churns: tuple[float, ...]


class State(NamedTuple):
    """Of all lanes, along the first axis."""

    params: Params
    ema: Params
    opt_state: Any


def _widest(models: Sequence[OmegaModel]) -> OmegaModel:
    """The model of which all the others are narrow ones."""
    first = models[0]
    if isinstance(first, omega.PerDirection):
        each = zip(*(model.models for model in models), strict=True)  # type: ignore[attr-defined]
        return omega.PerDirection(models=tuple(_widest(own) for own in each))
    if isinstance(first, omega.Network):
        return max(models, key=lambda model: model.width)  # type: ignore[attr-defined]
    return first


def _thin(model: OmegaModel) -> OmegaModel:
    """The model without the width of its networks."""
    if isinstance(model, omega.PerDirection):
        return omega.PerDirection(models=tuple(map(_thin, model.models)))
    if isinstance(model, omega.Network):
        return dataclasses.replace(model, width=1)
    return model


def check_lanes(lanes: Sequence[Lane]) -> Lane:
    """The first lane. Raises StatisticsError unless one program can serve them all."""
    if not lanes:
        raise StatisticsError("lanes: expected at least one, got none")
    alike = [_frame(lane) for lane in lanes]
    for lane, frame in zip(lanes, alike, strict=True):
        if not lane.learning_rate > 0.0:
            raise StatisticsError(f"learning_rate: expected > 0, got {lane.learning_rate}")
        if frame != alike[0]:
            raise StatisticsError(
                "lanes: expected to differ in beta, lam, churn, width, learning_rate and seed "
                f"only, got {frame} beside {alike[0]}"
            )
    return lanes[0]


def _frame(lane: Lane) -> tuple[OneStep, OmegaModel]:
    """A lane without what may differ."""
    return frame_of(lane.objective), _thin(lane.model)


def make_program(
    lanes: Sequence[Lane],
    seeds: tuple[int, ...],
    layout: Layout,
    schedule: Schedule,
    optimizer: Optimizer,
) -> tuple[Program, Numbers]:
    """What is compiled for these lanes, and what each of them brings to it."""
    energies = [energy_of(lane.objective) for lane in lanes]
    pairs = [
        (seeds.index(lane.seed), float(energy.churn))
        for lane, energy in zip(lanes, energies, strict=True)
    ]
    forms = tuple(dict.fromkeys(pairs))
    common = tuple(
        float(values[0]) if len(set(values)) == 1 else None
        for values in zip(*energies, strict=True)
    )
    program = Program(
        objective=frame_of(lanes[0].objective),
        model=_widest([lane.model for lane in lanes]),
        layout=layout,
        schedule=schedule,
        optimizer=dataclasses.replace(optimizer, learning_rate=1.0),
        common=common,
        form_seeds=tuple(seed for seed, _ in forms),
        form_churns=tuple(churn for _, churn in forms),
    )
    numbers = Numbers(
        Energy(*(jnp.asarray(values, jnp.float32) for values in zip(*energies, strict=True))),
        jnp.asarray([lane.learning_rate for lane in lanes], jnp.float32),
        jnp.asarray([seed for seed, _ in pairs], jnp.int32),
        jnp.asarray([forms.index(pair) for pair in pairs], jnp.int32),
    )
    return program, numbers


def initial_state(lanes: Sequence[Lane], program: Program, params: Params | None) -> State:
    """Parameters of every lane, as wide as the widest, and the optimizer's state."""
    shapes = jax.eval_shape(program.model.init, jax.random.key(0))
    each = [
        lane.model.init(jax.random.fold_in(jax.random.key(lane.seed), 0))
        if params is None
        else params
        for lane in lanes
    ]
    wide = [jax.tree.map(_widened, own, shapes) for own in each]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *wide)
    opt_state = jax.vmap(program.optimizer.transformation().init)(stacked)
    return State(stacked, jax.tree.map(jnp.copy, stacked), opt_state)


def _widened(leaf: Array, like: jax.ShapeDtypeStruct) -> Array:
    """With zeros after it: units of which nothing comes, and to which no gradient goes."""
    if leaf.ndim != len(like.shape):
        raise StatisticsError(f"params: expected shape {like.shape}, got {leaf.shape}")
    if leaf.shape == like.shape:
        return leaf
    return jnp.pad(
        leaf, [(0, full - size) for size, full in zip(leaf.shape, like.shape, strict=True)]
    )


def own_guidance(stacked: Params, index: int, lane: Lane) -> Guidance:
    """The guidance of one lane, at its own width."""
    shapes = jax.eval_shape(lane.model.init, jax.random.key(0))

    def narrow(leaf: Array, like: jax.ShapeDtypeStruct) -> Array:
        return leaf[index][tuple(slice(size) for size in like.shape)]

    return Guidance(lane.model, jax.tree.map(narrow, stacked, shapes), "fit")  # type: ignore[arg-type]
