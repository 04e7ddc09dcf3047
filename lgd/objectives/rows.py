"""One-step objectives in Gram form: rows, the coefficients of particles on them, the loss.

The denoiser is called once, without gradients, in `draw_rows`; omega enters in the coefficients.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import discrepancy
from lgd.diffusion import bridge_coefficients, denoise_pair, noised
from lgd.guidance import pair_features
from lgd.objectives.forms import DistanceForms, SharedForms, distance_forms, gram_matrix
from lgd.types import Condition, Denoiser, Params, PRNGKey, Scalar, Schedule

Coupling = Literal["independent", "shared"]
Pairs = Literal["all", "matched", "off_diagonal"]
Info = dict[str, Float[Array, ""]]


class Rows(NamedTuple):
    """What a one-step objective knows of a group of m particles that share (s, t).

    Coefficient arrays below use the same blocks, in this order; every block is (g, m, d), delta
    one such block for each direction.
    """

    centred: Float[Array, "g m d"]  # x0_j minus the mean over the group; 0 for copies of one x0
    residual: Float[Array, "g m d"]  # r = cond - x0
    delta: Float[Array, "g km d"]  # Delta = cond - uncond; further directions after it
    eps: Float[Array, "g m d"]  # noise of x_t
    z: Float[Array, "g m d"]  # noise of the kernel
    eps_target: Float[Array, "g m d"]  # noise of x_s


class FrozenRows(NamedTuple):
    """The rows that need the denoiser: all that a one-step objective will ever ask it."""

    centred: Float[Array, "g m d"]
    residual: Float[Array, "g m d"]
    delta: Float[Array, "g km d"]
    eps: Float[Array, "g m d"]
    features: Float[Array, "g m f"]  # of every member's pair, see `guidance.pair_features`


def draw_rows(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    x0: Float[Array, "g m *dims"],
    member_c: Condition,
    *,
    t: Float[Array, " g"],
) -> Rows:
    """Noise every member of every group to t, call the frozen denoiser once, collect the rows.

    ``member_c`` holds a condition for each of the g m members.
    """
    eps_key, target_key, z_key = jax.random.split(key, 3)
    frozen = draw_frozen_rows(eps_key, denoiser, params, x0, member_c, t=t)
    flat = (x0.shape[0] * x0.shape[1], *x0.shape[2:])
    z = jax.random.normal(jax.random.fold_in(z_key, 0), flat)  # as the first step of `unroll`
    fresh = (z, jax.random.normal(target_key, flat))
    return Rows(*frozen[:4], *(noise.reshape(frozen.eps.shape) for noise in fresh))


def draw_frozen_rows(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    x0: Float[Array, "g m *dims"],
    member_c: Condition,
    *,
    t: Float[Array, " g"],
    weaker: Sequence[tuple[Denoiser, Params]] = (),
) -> FrozenRows:
    """The part of `draw_rows` that calls the denoiser, without gradients.

    Every ``weaker`` denoiser on the same data gives one more direction, ``cond - weaker(x_t, c)``
    (autoguidance; Karras et al., 2024).
    """
    g, m, *dims = x0.shape
    flat, member_t = x0.reshape(g * m, *dims), jnp.repeat(t, m)
    eps = jax.random.normal(key, flat.shape)
    x_t = noised(flat, eps, t=member_t, schedule=denoiser.schedule)
    pair = denoise_pair(denoiser, params, x_t, t=member_t, c=member_c)
    cond, uncond = jax.lax.stop_gradient(pair)
    others = [
        jax.lax.stop_gradient(other.apply(other_params, x_t, t=member_t, c=member_c))
        for other, other_params in weaker
    ]
    rows = [(cond - flat), *(cond - worse for worse in (uncond, *others)), eps]
    residual, *deltas, noise = (row.reshape(g, m, -1) for row in rows)
    centred = (x0 - jnp.mean(x0, axis=1, keepdims=True)).reshape(g, m, -1)
    features = pair_features(cond, uncond).reshape(g, m, -1)
    return FrozenRows(centred, residual, jnp.concatenate(deltas, axis=1), noise, features)


class StepCoefficients(NamedTuple):
    """Of every particle on its own row of each block, relative to alpha_s times the centre."""

    proposal: Float[Array, "g b"]  # at omega = 0
    target: Float[Array, "g b"]
    direction: Float[Array, "g k"]  # of omega Delta_k


def step_coefficients(
    *,
    s: Float[Array, " g"],
    t: Float[Array, " g"],
    schedule: Schedule,
    churn: Scalar,
    coupling: Coupling,
    num_directions: int = 1,
) -> StepCoefficients:
    """Proposals and targets as combinations of the blocks of `Rows`.

    With ``a = alpha_s - kappa alpha_t`` and ``kappa = (sigma_s / sigma_t) k``::

        proposal: alpha_s centred + a (r + sum_k omega_k Delta_k) + sigma_s k eps
                  + sigma_s sqrt(1 - k^2) z
        target:   alpha_s centred + sigma_s eps'          (eps' = eps for shared noise)
    """
    scale = bridge_coefficients(t, s, schedule=schedule, churn=churn)
    alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
    none = jnp.zeros_like(s)
    unguided = (none,) * num_directions
    eps = scale.x_t * schedule.sigma(t)
    noise = (sigma_s, none, none) if coupling == "shared" else (none, none, sigma_s)
    proposal = (alpha_s, scale.x0, *unguided, eps, scale.noise, none)
    target = (alpha_s, none, *unguided, *noise)
    direction = (scale.x0,) * num_directions
    return StepCoefficients(*(jnp.stack(each, axis=-1) for each in (proposal, target, direction)))


def step_forms(
    rows: Rows,
    *,
    s: Float[Array, " g"],
    t: Float[Array, " g"],
    schedule: Schedule,
    churn: Scalar,
    coupling: Coupling,
) -> DistanceForms:
    """Rows -> Gram matrix -> the squared distances of one guided step, as polynomials of omega."""
    k = rows.delta.shape[1] // rows.eps.shape[1]
    coefficients = step_coefficients(
        s=s, t=t, schedule=schedule, churn=churn, coupling=coupling, num_directions=k
    )
    matrix = gram_matrix(jnp.concatenate(rows, axis=1))
    return distance_forms(matrix, *coefficients, directions=tuple(range(2, 2 + k)))


def error_forms(rows: Rows) -> DistanceForms:
    """The squared norms of ``r_j + omega_j Delta_j``, as the distances to a target j at 0."""
    k = rows.delta.shape[1] // rows.residual.shape[1]
    matrix = gram_matrix(jnp.concatenate([rows.residual, rows.delta], axis=1))
    residual = jnp.zeros((len(matrix), 1 + k)).at[:, 0].set(1.0)
    ones = jnp.ones((len(matrix), k))
    return distance_forms(
        matrix, residual, jnp.zeros_like(residual), ones, directions=tuple(range(1, 1 + k))
    )


def gram_loss(
    forms: DistanceForms | SharedForms,
    omega: Float[Array, "g m k"] | Float[Array, " g"],
    *,
    beta: Scalar,
    lam: Scalar,
    pairs: Pairs,
) -> Float[Array, " g"]:
    """``mean_{j,k} |x~_j - x_k|^beta - lam/2 mean_{j != k} |x~_j - x~_k|^beta`` (Alg. 1).

    The mean of the first term runs over the pairs named; the targets' own term is constant in
    omega and left out. ``omega`` is what the forms take.
    """
    cross = discrepancy.power(forms.cross(omega), beta)
    if pairs == "matched":
        loss = jnp.mean(jnp.diagonal(cross, axis1=1, axis2=2), axis=-1)
    elif pairs == "off_diagonal":
        loss = discrepancy.off_diagonal_mean(cross)
    else:
        loss = jnp.mean(cross, axis=(1, 2))
    if isinstance(lam, jax.core.Tracer) or lam > 0.0:
        within = discrepancy.power(forms.within(omega), beta)
        loss = loss - 0.5 * lam * discrepancy.off_diagonal_mean(within)
    return loss


def repeat(c: Condition, times: int) -> Condition:
    """Every condition ``times`` times in a row: leaves (g, ...) become (g times, ...)."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), c)


def check_energy(beta: float, lam: float, num_particles: int, *, pairs: Pairs = "all") -> None:
    """Raise ValueError for settings of an energy distance that do not fit."""
    discrepancy.check_settings(beta, lam)
    fewest = 2 if lam > 0.0 or pairs == "off_diagonal" else 1
    if num_particles < fewest:
        raise ValueError(f"expected at least {fewest} particles, got {num_particles}")


def check_step(churn: float, coupling: str) -> None:
    """Raise ValueError for a churn outside [0, 1] or an unknown coupling."""
    if not 0.0 <= churn <= 1.0:
        raise ValueError(f"expected churn in [0, 1], got {churn}")
    if coupling not in get_args(Coupling):
        raise ValueError(f"expected coupling in {get_args(Coupling)}, got {coupling!r}")
