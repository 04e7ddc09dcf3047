"""Samples from noise, and what they cost."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lgd import conditions
from lgd.diffusion import check_start, direction_names
from lgd.guidance.rules import Cfg, as_rule, combine, partition, skipping_of
from lgd.machinery import parallel
from lgd.machinery.arguments import flag, whole
from lgd.sampling.arguments import (
    check_denoiser,
    check_key,
    check_mesh,
    checked_grid,
    checked_shape,
)
from lgd.sampling.solvers import solver_of
from lgd.sampling.walk import Walk, checked_solver, scan, steps, traced_churn
from lgd.types import (
    Condition,
    Denoiser,
    Params,
    PRNGKey,
    PyTree,
    Scalar,
    Solver,
)

X = Float[Array, "b *dims"]


class Samples(NamedTuple):
    """Result of `sample`; ``trajectory`` holds the states at every time of the grid, or None."""

    x0: Float[Array, "b *dims"]
    nfe: int | float  # network evaluations per sample, a guided call is 2; if skipping, the mean
    trajectory: Float[Array, "n b *dims"] | None = None


def sample(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    c: Condition,
    *,
    shape: tuple[int, ...],
    guidance: Any = None,
    num_steps: int = 25,
    times: ArrayLike | Sequence[float] | None = None,
    churn: Scalar = 0.0,
    solver: str | Solver = "ddim",
    return_trajectory: bool = False,
    mesh: Mesh | None = None,
    skip: bool = False,
) -> Samples:
    """Draw guided samples, from ``sigma(times[0]) z`` down to times[-1].

    Args:
      key: source of the initial noise and, for churn > 0, of the noise of every step.
      denoiser: a frozen model.
      params: arrays of the denoiser.
      c: conditions, leaves (b, ...).
      shape: shape of one sample.
      guidance: learned guidance, an omega function of (s, t, c), a rule, a number, or weights of
        every step and sample (num_steps, b); None: 0, no guidance.
      num_steps: uniform steps from t = 1 to 0, where times is None.
      times: decreasing, (num_steps + 1,), within [0, 1].
      churn: 0 deterministic, 1 ancestral; only "ddim" takes churn > 0.
      solver: "ddim" (Euler, for rectified flow), "heun" (in t), "heun_edm" (in sigma / alpha),
        "dpmpp_2m", or a `lgd.types.Solver`.
      return_trajectory: also return the state at every time.
      mesh: devices that share the samples, see `parallel.make_mesh`; None: wherever params lie. It
        changes no draw, and samples by rounding only. Any number of samples will do.
      skip: ask for the unconditional half only where omega is not 0; for weights that are known
        before sampling. It changes samples by rounding only, and compiles anew for schedules that
        guide other numbers of samples. ``nfe`` is then the rows computed in all over the number of
        samples.

    Returns:
      Samples x0 (b, *shape), with the number of network evaluations for each.

    Raises:
      ValueError: for shapes, times, guidance or solver settings that do not fit.

    >>> import jax, lgd
    >>> denoiser = lgd.denoisers.from_function(lambda params, x, t, c: params * x, kind="x0",
    ...     schedule=lgd.schedules.rectified_flow(), null=2)
    >>> c = jax.numpy.array([0, 1])
    >>> lgd.sample(jax.random.key(0), denoiser, 0.5, c, shape=(3,), guidance=1.0).x0.shape
    (2, 3)
    """
    check_key(key)
    check_denoiser(denoiser)
    check_mesh(mesh)
    flag("return_trajectory", return_trajectory)
    shape, times, c = checked_shape(shape), checked_grid(num_steps, times), conditions.arrays(c)
    check_start(denoiser, times)
    solver = checked_solver(solver, churn)
    noise, calls = traced_churn(churn), solver.calls(len(times) - 1)
    rule, inputs = as_rule(guidance).prepare(denoiser, times, c)
    nfe = float(rule.calls(len(direction_names(denoiser))) * calls.sum())
    if flag("skip", skip):
        rule, inputs, nfe = skipping_of(rule, inputs, calls)
    dynamic, static = partition(rule)
    if mesh is not None:
        denoiser = parallel.spread(denoiser, mesh)
        params = parallel.place(params, parallel.param_sharding(params, mesh))
        c, inputs = parallel.spread_rows(c, mesh), _spread_inputs(inputs, mesh)
        everywhere = parallel.replicated(mesh)
        key, times, noise, dynamic = parallel.place((key, times, noise, dynamic), everywhere)
    x0, trajectory = _sample(
        key,
        params,
        dynamic,
        inputs,
        c,
        times,
        noise,
        denoiser=denoiser,
        shape=(conditions.size(c), *shape),
        solver=solver,
        static=static,
        return_trajectory=return_trajectory,
    )
    return Samples(x0, int(nfe) if nfe.is_integer() else nfe, trajectory)


@functools.partial(
    jax.jit, static_argnames=("denoiser", "shape", "solver", "static", "return_trajectory")
)
def _sample(
    key: PRNGKey,
    params: Params,
    dynamic: list[Any],
    inputs: PyTree,
    c: Condition,
    times: Float[Array, " n"],
    churn: Float[Array, ""] | None,
    *,
    denoiser: Denoiser,
    shape: tuple[int, ...],
    solver: Solver,
    static: tuple[Any, ...],
    return_trajectory: bool,
) -> tuple[X, Float[Array, "n b *dims"] | None]:
    noise_key, walk_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, shape)
    start = jnp.asarray(denoiser.schedule.sigma(times[0]), noise.dtype) * noise
    walk = Walk(denoiser, params, combine(dynamic, static), solver, c)
    end, states = scan(walk, start, steps(walk_key, times, churn, inputs))
    if not return_trajectory:
        return end, None
    return end, jnp.concatenate([start[None], states])


def count_nfe(
    denoiser: Denoiser, guidance: Any, num_steps: int, solver: str | Solver = "ddim"
) -> int:
    """Network evaluations per sample where none is left out.

    Args:
      denoiser: the model, which says how many directions there are.
      guidance: as in `sample`.
      num_steps: steps of the grid.
      solver: as in `sample`.
    """
    num_steps = whole("num_steps", num_steps, low=1)
    rows = as_rule(guidance).calls(len(direction_names(denoiser)))
    return int(rows * solver_of(solver).calls(num_steps).sum())


def count_skipping_nfe(omegas: Float[Array, "k b"], solver: str | Solver = "ddim") -> float:
    """Network evaluations per sample with ``skip=True``: rows computed in all, over samples.

    Raises ValueError for weights of another shape.
    """
    if jnp.ndim(omegas) != 2:
        raise ValueError(f"omegas: expected (num_steps, b), got {jnp.shape(omegas)}")
    calls = solver_of(solver).calls(len(omegas))
    return Cfg(None).skipping(jnp.asarray(omegas), calls)[2]


def _spread_inputs(inputs: PyTree, mesh: Mesh) -> PyTree:
    """Weights (k, b, ...) are split by samples, all else lies whole on every device."""

    def placed(leaf: Array | np.ndarray) -> Array:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return parallel.spread_rows(leaf, mesh, 1)
        return parallel.place(leaf, parallel.replicated(mesh))

    return jax.tree.map(placed, inputs)
