"""Guided sampling: one pure step per solver, and one scan that walks a grid of times.

`sample` starts from noise and is jitted once for all schedules: it takes omega as an array
(num_steps, b). With ``skip=True`` it leaves out the calls where omega is 0, see
`lgd.guidance.skipping`. `sample_adaptive` takes omega as a function instead, which may look at
features of the predictions, and may guide along further directions.
`unroll` is the same walk from any start, differentiable in omega and in the start; each step is
rematerialised, so memory grows by the stored states only.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from lgd import guidance
from lgd.diffusion import bridge_coefficients, bridge_mean, denoise_pair, expand, from_x0
from lgd.guidance import skipping
from lgd.machinery import parallel
from lgd.types import Condition, Denoiser, OmegaFn, Params, PRNGKey, Scalar

Solver = Literal["ddim", "heun", "dpmpp_2m"]
X = Float[Array, "b *dims"]
GuidedDenoiser = Callable[[X, Float[Array, " b"]], X]  # (x_t, t) -> x0_hat
_Guide = Callable[..., X]  # (denoiser, params, x_t, *, t, c, step) -> x0_hat


class Samples(NamedTuple):
    """Result of `sample`; ``trajectory`` holds the states at every time of the grid, or None."""

    x0: Float[Array, "b *dims"]
    nfe: int | float  # network evaluations per sample, a guided call is 2; if skipping, the mean
    trajectory: Float[Array, "n b *dims"] | None = None


class _Step(NamedTuple):
    """What one step of the walk is given."""

    key: PRNGKey
    t: Float[Array, ""]
    s: Float[Array, ""]
    omega: Float[Array, " b"] | None  # None: `_Adaptive` finds it
    churn: Float[Array, ""] | None  # None: 0, and nothing is drawn
    is_first: Bool[Array, ""]
    is_last: Bool[Array, ""]
    order: skipping.Order | None = None  # None: nothing is skipped


def sample(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    omegas: Float[Array, "k b"],
    c: Condition,
    *,
    shape: tuple[int, ...],
    times: Float[Array, " n"],
    churn: Scalar = 0.0,
    solver: Solver = "ddim",
    return_trajectory: bool = False,
    mesh: Mesh | None = None,
    skip: bool = False,
) -> Samples:
    """Draw guided samples, from ``sigma(times[0]) z`` down to times[-1].

    Args:
      key: source of the initial noise and, for churn > 0, of every step's.
      denoiser: a frozen model; ``params`` its arrays.
      omegas: the weight of every step and sample, (num_steps, b); see `guidance.on_grid`.
      c: conditions, leaves (b, ...).
      shape: shape of one sample.
      times: decreasing, (num_steps + 1,), within [0, 1].
      churn: 0 deterministic, 1 ancestral; only "ddim" takes churn > 0.
      solver: "ddim" (Euler, for rectified flow), "heun" or "dpmpp_2m".
      return_trajectory: also return the state at every time.
      mesh: devices that share the samples, see `parallel.make_mesh`; None: wherever params lie. It
        changes no draw, and samples by rounding only. Any number of samples will do.
      skip: ask for the unconditional half only where omega is not 0; needs concrete omegas. It
        changes samples by rounding only, and compiles anew for schedules that guide other numbers
        of samples. ``nfe`` is then the rows computed in all over the number of samples.

    Raises:
      ValueError: for shapes, times or solver settings that do not fit, traced omegas if skipping.
    """
    batch = jax.tree.leaves(c)[0].shape[0]
    times = _checked_times(times)
    _check(omegas, batch, times, churn, solver)
    noise = _traced(churn)
    plan = skipping.plan(omegas, _calls(len(times) - 1, solver)) if skip else None
    order = None if plan is None else plan.order
    nfe = count_nfe(len(times) - 1, solver) if plan is None else _rows_per_sample(plan, solver)
    if mesh is not None:
        denoiser = parallel.spread(denoiser, mesh)
        params = parallel.place(params, parallel.param_sharding(params, mesh))
        omegas, c = parallel.spread_rows(omegas, mesh, 1), parallel.spread_rows(c, mesh)
        everywhere = parallel.replicated(mesh)
        key, times, noise, order = parallel.place((key, times, noise, order), everywhere)
    x0, trajectory = _sample(
        key,
        params,
        omegas,
        c,
        times,
        noise,
        order,
        denoiser=denoiser,
        shape=(batch, *shape),
        solver=solver,
        return_trajectory=return_trajectory,
        guide=_given if plan is None else skipping.Skipping(plan.sizes),
    )
    return Samples(x0, nfe, trajectory)


def sample_adaptive(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    omega_fn: OmegaFn,
    c: Condition,
    *,
    shape: tuple[int, ...],
    times: Float[Array, " n"],
    churn: Scalar = 0.0,
    solver: Solver = "ddim",
    weaker: Sequence[tuple[Denoiser, Params]] = (),
    return_trajectory: bool = False,
) -> Samples:
    """`sample` with omega evaluated at every step: for functions of the state.

    Compiled anew for every omega_fn. Other arguments as in `sample`.

    Args:
      omega_fn: of (s, t, c), or of (s, t, c, features) with `guidance.pair_features` of the
        predictions at hand; gives (b,), or (b, 1 + len(weaker)). Heun takes s and t of the step in
        both stages, and each stage's own features.
      weaker: further directions ``cond - weaker(x_t, c)``, each a denoiser and its parameters.
    """
    batch = jax.tree.leaves(c)[0].shape[0]
    times = _checked_times(times)
    _check_settings(churn, solver)
    others = tuple(other for other, _ in weaker)
    x0, trajectory = _sample(
        key,
        (params, tuple(other_params for _, other_params in weaker)),
        None,
        c,
        times,
        _traced(churn),
        denoiser=denoiser,
        shape=(batch, *shape),
        solver=solver,
        return_trajectory=return_trajectory,
        guide=_Adaptive(omega_fn, others),
    )
    nfe = count_nfe(len(times) - 1, solver)
    return Samples(x0, nfe + nfe // 2 * len(others), trajectory)


def _given(
    denoiser: Denoiser,
    params: Params,
    x_t: X,
    *,
    t: Float[Array, " b"],
    c: Condition,
    step: _Step,
) -> X:
    """By the omega that the step was given."""
    assert step.omega is not None
    cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
    return guidance.mix(cond, uncond, step.omega)


@dataclasses.dataclass(frozen=True)
class _Adaptive:
    """By an omega function of the step and, if it takes them, of features of the predictions."""

    omega_fn: OmegaFn
    weaker: tuple[Denoiser, ...]

    def __call__(
        self,
        denoiser: Denoiser,
        params: Params,
        x_t: X,
        *,
        t: Float[Array, " b"],
        c: Condition,
        step: _Step,
    ) -> X:
        """``cond + sum_k omega_k (cond - other_k)``; params of the denoiser, and of the weaker."""
        own, each = params
        cond, uncond = denoise_pair(denoiser, own, x_t, t=t, c=c)
        others = [
            other.apply(other_params, x_t, t=t, c=c)
            for other, other_params in zip(self.weaker, each, strict=True)
        ]
        takes_features = guidance.takes_features(self.omega_fn)
        extra = {"features": guidance.pair_features(cond, uncond)} if takes_features else {}
        of_step = {"s": jnp.full(len(x_t), step.s), "t": jnp.full(len(x_t), step.t)}
        omega = self.omega_fn(**of_step, c=c, **extra).reshape(len(x_t), -1)
        if omega.shape[1] != 1 + len(others):
            raise ValueError(f"expected omega of {1 + len(others)} directions, got {omega.shape}")
        x0_hat = guidance.mix(cond, uncond, omega[:, 0])
        for k, other in enumerate(others, start=1):
            x0_hat += expand(omega[:, k], x_t) * (cond - other)
        return x0_hat


def count_nfe(num_steps: int, solver: Solver) -> int:
    """Network evaluations per sample of a guided run: 2 a call; Heun calls twice but at the end."""
    return 2 * int(_calls(num_steps, solver).sum())


def count_skipping_nfe(omegas: Float[Array, "k b"], solver: Solver) -> float:
    """Network evaluations per sample with ``skip=True``: rows computed in all, over samples."""
    return _rows_per_sample(skipping.plan(omegas, _calls(len(omegas), solver)), solver)


def _rows_per_sample(plan: skipping.Plan, solver: Solver) -> float:
    num_steps, batch = plan.order.rows.shape
    rows = batch + plan.rows_of_steps()
    return float(np.sum(_calls(num_steps, solver) * rows) / batch)


def _calls(num_steps: int, solver: Solver) -> Int[np.ndarray, " k"]:
    """Of the network at every step."""
    calls = np.full(num_steps, 2 if solver == "heun" else 1)
    calls[-1] = 1
    return calls


@functools.partial(
    jax.jit, static_argnames=("denoiser", "shape", "solver", "return_trajectory", "guide")
)
def _sample(
    key: PRNGKey,
    params: Params,
    omegas: Float[Array, "k b"] | None,
    c: Condition,
    times: Float[Array, " n"],
    churn: Float[Array, ""] | None,
    order: skipping.Order | None = None,
    *,
    denoiser: Denoiser,
    shape: tuple[int, ...],
    solver: Solver,
    return_trajectory: bool,
    guide: _Guide = _given,
) -> tuple[X, Float[Array, "n b *dims"] | None]:
    noise_key, walk_key = jax.random.split(key)
    start = denoiser.schedule.sigma(times[0]) * jax.random.normal(noise_key, shape)
    end, states = _walk(
        walk_key, denoiser, params, omegas, c, start, times, churn, solver, guide, order
    )
    if not return_trajectory:
        return end, None
    return end, jnp.concatenate([start[None], states])


def unroll(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    omegas: Float[Array, "k b"],
    c: Condition,
    x_t: Float[Array, "b *dims"],
    *,
    times: Float[Array, " n"],
    churn: Scalar = 0.0,
    solver: Solver = "ddim",
) -> Float[Array, "b *dims"]:
    """K guided steps from x_t at times[0] to times[-1]; reverse-differentiable.

    Gradients flow to omegas, x_t and params through every step (``lax.scan`` over
    ``jax.checkpoint``). Arguments as in `sample`.
    """
    times = _checked_times(times)
    _check(omegas, x_t.shape[0], times, churn, solver)
    noise = _traced(churn)
    return _walk(key, denoiser, params, omegas, c, x_t, times, noise, solver)[0]


def _walk(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    omegas: Float[Array, "k b"] | None,
    c: Condition,
    start: X,
    times: Float[Array, " n"],
    churn: Float[Array, ""] | None,
    solver: Solver,
    guide: _Guide = _given,
    order: skipping.Order | None = None,
) -> tuple[X, Float[Array, "k b *dims"]]:
    """The scan: final state, and the state after every step."""
    step_fn, first_memory = _SOLVERS[solver]

    @jax.checkpoint
    def body(carry: tuple[X, Any], step: _Step) -> tuple[tuple[X, Any], X]:
        x, memory = carry

        def x0_hat(x_t: X, t: Float[Array, " b"]) -> X:
            return guide(denoiser, params, x_t, t=t, c=c, step=step)

        x, memory = step_fn(denoiser, x0_hat, x, memory, step)
        return (x, memory), x

    index = jnp.arange(len(times) - 1)
    steps = _Step(
        key=jax.vmap(lambda i: jax.random.fold_in(key, i))(index),
        t=times[:-1],
        s=times[1:],
        omega=omegas,
        churn=None if churn is None else jnp.broadcast_to(churn, index.shape),
        is_first=index == 0,
        is_last=index == len(index) - 1,
        order=order,
    )
    (end, _), states = jax.lax.scan(body, (start, first_memory(start)), steps)
    return end, states


def _ddim(
    denoiser: Denoiser, x0_hat: GuidedDenoiser, x: X, memory: None, step: _Step
) -> tuple[X, None]:
    """Churned DDIM (paper, Eq. 2): one draw of the bridge kernel."""
    t, s = jnp.full(len(x), step.t), jnp.full(len(x), step.s)
    estimate = x0_hat(x, t)
    churn = jnp.zeros(()) if step.churn is None else step.churn
    scale = bridge_coefficients(t, s, schedule=denoiser.schedule, churn=churn)
    moved = bridge_mean(scale, x, estimate)
    if step.churn is not None:
        noise = jax.random.normal(step.key, x.shape, x.dtype)
        moved += expand(scale.noise, x) * noise
    return _ending(step, moved, estimate), None


def _traced(churn: Scalar) -> Float[Array, ""] | None:
    """A concrete 0 as None: sampling without noise compiles without any."""
    if not isinstance(churn, jax.core.Tracer) and float(churn) == 0.0:
        return None
    return jnp.asarray(churn, jnp.float32)


def _ending(step: _Step, moved: X, estimate: X) -> X:
    """Data time 0 is reached by returning x0_hat, also where sigma(0) > 0 (EDM)."""
    return jnp.where(step.s == 0.0, estimate, moved)


def _heun(
    denoiser: Denoiser, x0_hat: GuidedDenoiser, x: X, memory: None, step: _Step
) -> tuple[X, None]:
    """Heun's method in t on ``dx/dt = alpha' x0_hat + sigma' eps_hat``, predicted by DDIM.

    omega(s, t) of the step serves both stages; the last step of the grid is DDIM's. For rectified
    flow this is the textbook method; cf. Karras et al. (2022), Alg. 1.
    """
    t, s = jnp.full(len(x), step.t), jnp.full(len(x), step.s)
    estimate = x0_hat(x, t)
    scale = bridge_coefficients(t, s, schedule=denoiser.schedule, churn=jnp.zeros(()))
    predicted = _ending(step, bridge_mean(scale, x, estimate), estimate)

    def corrected() -> X:
        drift = functools.partial(from_x0, schedule=denoiser.schedule, kind="velocity")
        slopes = drift(estimate, x, t=t) + drift(x0_hat(predicted, s), predicted, t=s)
        return x + 0.5 * (step.s - step.t) * slopes

    return jax.lax.cond(step.is_last, lambda: predicted, corrected), None


class _Previous(NamedTuple):
    """What the multistep solver remembers: the last x0_hat and its ``logsnr / 2``."""

    estimate: X
    half_logsnr: Float[Array, ""]


def _dpmpp_2m(
    denoiser: Denoiser, x0_hat: GuidedDenoiser, x: X, memory: _Previous, step: _Step
) -> tuple[X, _Previous]:
    """DPM-Solver++(2M) (Lu et al., 2022, Alg. 2): DDIM with x0_hat extrapolated in logsnr.

    First order at both ends of the grid. Steps of infinite logsnr (t = 1 or s = 0) are first order
    by themselves, and so is the one after.
    """
    t, s = jnp.full(len(x), step.t), jnp.full(len(x), step.s)
    estimate = x0_hat(x, t)
    now, then = (0.5 * denoiser.schedule.logsnr(u) for u in (step.t, step.s))
    at_end = step.is_first | step.is_last
    weight = jnp.where(at_end, 0.0, 0.5 * (then - now) / (now - memory.half_logsnr))
    extrapolated = estimate + weight * (estimate - memory.estimate)
    scale = bridge_coefficients(t, s, schedule=denoiser.schedule, churn=jnp.zeros(()))
    moved = bridge_mean(scale, x, extrapolated)
    return _ending(step, moved, estimate), _Previous(estimate, now)


_SOLVERS: dict[str, tuple[Callable[..., Any], Callable[[X], Any]]] = {
    "ddim": (_ddim, lambda start: None),
    "heun": (_heun, lambda start: None),
    "dpmpp_2m": (
        _dpmpp_2m,
        lambda start: _Previous(jnp.zeros_like(start), jnp.zeros((), jnp.float32)),  # as the times
    ),
}


def _checked_times(times: Float[Array, " n"]) -> Float[Array, " n"]:
    """Times as float32; concrete ones must decrease within [0, 1]."""
    if isinstance(times, jax.core.Tracer):
        return times
    grid = np.asarray(times, np.float32)
    if grid.ndim != 1 or len(grid) < 2 or not (np.diff(grid) < 0).all():
        raise ValueError(f"expected at least two decreasing times, got {grid}")
    if not 0.0 <= grid[-1] < grid[0] <= 1.0:
        raise ValueError(f"expected times within [0, 1], got {grid[0]} to {grid[-1]}")
    return jnp.asarray(grid)


def _check(
    omegas: Float[Array, "k b"], batch: int, times: Float[Array, " n"], churn: Scalar, solver: str
) -> None:
    if omegas.shape != (len(times) - 1, batch):
        expected = (len(times) - 1, batch)
        raise ValueError(f"expected omegas (num_steps, b) = {expected}, got {omegas.shape}")
    _check_settings(churn, solver)


def _check_settings(churn: Scalar, solver: str) -> None:
    if solver not in get_args(Solver):
        raise ValueError(f"expected solver in {get_args(Solver)}, got {solver!r}")
    if isinstance(churn, jax.core.Tracer):
        return
    if not 0.0 <= float(churn) <= 1.0:
        raise ValueError(f"expected churn in [0, 1], got {churn}")
    if solver != "ddim" and float(churn) > 0.0:
        raise ValueError(f"expected churn = 0 with solver {solver!r}, got {churn}")
