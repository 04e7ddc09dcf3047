"""Guidance rules: how a sampler combines the predictions of a model into one.

A rule is a frozen dataclass and a pytree, made by `rule`: its arrays and floats are leaves, which
compiled code takes as arguments, so that one compiled sampler serves all their values and gradients
reach them; whatever else it holds is static. The contract is `lgd.types.Rule`; one paper a file.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import conditions
from lgd.diffusion import denoise_pair, expand, weaker_predictions
from lgd.guidance import skipping, weights
from lgd.guidance.hand_made import constant
from lgd.guidance.mixing import mix, on_grid, pair_features, takes_features
from lgd.types import Condition, Denoiser, Params, Prediction, PyTree, Rule, SkipsCalls, Step

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def rule(cls: type[T]) -> type[T]:
    """A decorator that makes a class a frozen dataclass, all of whose fields are in its pytree."""
    frozen = dataclasses.dataclass(frozen=True)(cls)
    names = [field.name for field in dataclasses.fields(frozen)]  # type: ignore[arg-type]

    def flatten(instance: T) -> tuple[list[tuple[Any, Any]], None]:
        return [(jax.tree_util.GetAttrKey(name), getattr(instance, name)) for name in names], None

    def unflatten(_: None, values: Iterable[Any]) -> T:
        instance = object.__new__(frozen)  # JAX also fills trees with what is no value of a field
        for name, value in zip(names, values, strict=True):
            object.__setattr__(instance, name, value)
        return instance

    jax.tree_util.register_pytree_with_keys(frozen, flatten, unflatten)
    return frozen


@rule
class Cfg:
    """Classifier-free guidance: ``x0_hat = cond + sum_k omega_k (cond - other_k)`` (paper, Eq. 7).

    omega: a number; an omega function of (s, t, c), or also of `pair_features` of the predictions;
    or weights of every step and sample, (k, b) or (k, b, directions), of which axes may be 1. omega
    (b,) guides along the first direction, ``cond - uncond``, omega (b, d) along every one of
    `diffusion.predictions`.
    None: the weights are among the inputs of each step, for as many directions as ``along`` says.
    Solvers with several stages take omega(s, t) of the step in all of them, and the features of
    each.
    """

    omega: Any
    along: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError for what is no omega."""
        if self.omega is not None:
            weights.checked_omega("omega", self.omega)

    def calls(self, num_directions: int) -> int:
        """Network rows for each sample and call: cond, and one for every direction it weighs."""
        along = self.along if self.omega is None else _num_directions(self.omega)
        return 1 + min(along, num_directions)

    def prepare(
        self, denoiser: Denoiser, times: Float[Array, " n"], c: Condition
    ) -> tuple["Cfg", PyTree]:
        """The rule without its weights, and these for every step where they are known before."""
        weights.check_schedule(self.omega, denoiser.schedule)
        omegas = weights.omega_function(self.omega)
        if callable(omegas) and takes_features(omegas):
            return Cfg(omegas), None
        if callable(omegas):
            omegas = on_grid(omegas, times, c)
        omegas = weights.per_step_and_sample(omegas, len(times) - 1, conditions.size(c), denoiser)
        return Cfg(None, *omegas.shape[2:]), omegas

    def init(self, x: Float[Array, "b *dims"], c: Condition) -> None:
        """No state."""

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: None,
        x_t: Float[Array, "b *dims"],
        *,
        step: Step,
        t: Float[Array, " b"],
        c: Condition,
    ) -> tuple[Prediction, None]:
        """The guided prediction at x_t."""
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
        omega = step.inputs
        if self.omega is not None:
            of_step = {"s": jnp.full(len(x_t), step.s), "t": jnp.full(len(x_t), step.t)}
            omega = self.omega(**of_step, c=c, features=pair_features(cond, uncond))
            weights.check_directions(omega.shape[1:], denoiser)
        further = weaker_predictions(denoiser, params, x_t, t=t, c=c) if omega.ndim > 1 else ()
        return Prediction(mixed(cond, (uncond, *further), omega)), None

    def skipping(self, omegas: PyTree, calls: np.ndarray) -> tuple[Rule, PyTree, float]:
        """The rule and inputs that leave out the unconditional half where omega is 0.

        calls: predictions asked for at every step. The last result is the number of network rows
        for each sample. Raises ValueError where omega is not known before sampling, or for several
        directions.
        """
        if omegas is None or omegas.ndim > 2:
            raise ValueError("expected omega of (s, t, c), (b,), to skip calls, got another")
        plan = skipping.plan(omegas, calls)
        rows = skipping.rows_per_sample(plan, calls)
        order = jax.tree.map(jnp.asarray, plan.order)
        return skipping.Skipping(plan.sizes), (omegas, order), rows


def mixed(
    cond: Float[Array, "b *dims"],
    others: tuple[Float[Array, "b *dims"], ...],
    omega: Float[Array, "b *d"],
) -> Float[Array, "b *dims"]:
    """``cond + sum_k omega_k (cond - other_k)``, for omega (b, d), or (b,) of the first alone."""
    if omega.ndim == 1:
        return mix(cond, others[0], omega)
    x0_hat = mix(cond, others[0], omega[:, 0])
    for k, other in enumerate(others[1:], start=1):
        x0_hat += expand(omega[:, k].astype(cond.dtype), cond) * (cond - other)
    return x0_hat


def as_rule(guidance: Any) -> Rule:
    """The rule for whatever samplers take: a rule, an omega function, a number, weights.

    None is 0: plain conditional sampling. Raises ValueError for anything else.
    """
    if isinstance(guidance, Rule) and not isinstance(guidance, type):
        return guidance
    if guidance is None:
        return Cfg(constant(0.0))
    omega = weights.checked_omega("guidance", guidance)
    is_number = isinstance(omega, int | float | np.number)
    return Cfg(constant(float(omega)) if is_number else omega)


def skipping_of(rule: Rule, inputs: PyTree, calls: np.ndarray) -> tuple[Rule, PyTree, float]:
    """The form of a prepared rule that leaves out calls, see `Cfg.skipping`.

    Args:
      rule: a prepared rule.
      inputs: its inputs.
      calls: predictions asked for at every step.

    Raises:
      ValueError: for a rule that cannot leave out any.
    """
    if not isinstance(rule, SkipsCalls):
        raise ValueError(f"expected guidance by weights alone to skip calls, got {rule}")
    return rule.skipping(inputs, calls)


def partition(tree: PyTree) -> tuple[list[Any], tuple[Any, ...]]:
    """Leaves of a rule that are traced, arrays and floats; and the rest, hashable, to `combine`."""
    leaves, structure = jax.tree.flatten(tree)
    kinds = float | np.floating | np.ndarray | jax.Array
    traced = [isinstance(leaf, kinds) for leaf in leaves]
    static = tuple(
        None if is_traced else leaf for leaf, is_traced in zip(leaves, traced, strict=True)
    )
    dynamic = [leaf for leaf, is_traced in zip(leaves, traced, strict=True) if is_traced]
    return dynamic, (structure, tuple(traced), static)


def combine(dynamic: list[Any], rest: tuple[Any, ...]) -> PyTree:
    """The tree that was taken apart by `partition`."""
    structure, traced, static = rest
    values = iter(dynamic)
    leaves = [
        next(values) if is_traced else leaf for leaf, is_traced in zip(static, traced, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def _num_directions(omega: Any) -> int:
    """Directions that omega weighs, as far as it says; a function that does not say has one."""
    if np.ndim(omega) > 2:
        return int(np.shape(omega)[2])
    return weights.num_directions(weights.omega_function(omega))
