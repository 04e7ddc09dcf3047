"""Rows of one guided step, the coefficients of particles on them, and the loss.

Rows are what the frozen denoiser says of a group of particles, and their noises. The denoiser is
called once, without gradients, in `draw_frozen_rows`. Every proposal and every target of a one-step
objective is a combination of the rows, with coefficients that the schedule and omega give
(`step_coefficients`); see `lgd.objectives.forms` for the distances that follow.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import discrepancy
from lgd.diffusion import bridge_coefficients, noised, predictions
from lgd.guidance import pair_features
from lgd.objectives.forms import DistanceForms, SharedForms, distance_forms, gram_matrix
from lgd.types import Condition, Denoiser, Params, PRNGKey, Scalar, Schedule

Coupling = Literal["independent", "shared"]
Pairs = Literal["all", "matched", "off_diagonal"]
Info = dict[str, Float[Array, ""]]


class Rows(NamedTuple):
    """Vectors of g groups of m particles, the particles of a group at one pair of times (s, t).

    Every block is (g, m, d); ``delta`` is k such blocks one after another, one for each direction.
    Coefficients elsewhere are in the order of these blocks.
    """

    centred: Float[Array, "g m d"]  # x0_j minus the mean over the group; 0 for copies of one x0
    residual: Float[Array, "g m d"]  # r = cond - x0
    delta: Float[Array, "g km d"]  # Delta = cond - uncond, then cond - weaker_k
    eps: Float[Array, "g m d"]  # noise of x_t
    z: Float[Array, "g m d"]  # noise of the kernel
    eps_target: Float[Array, "g m d"]  # noise of x_s


class FrozenRows(NamedTuple):
    """The rows that need the denoiser: all that a one-step objective ever asks of it."""

    centred: Float[Array, "g m d"]
    residual: Float[Array, "g m d"]
    delta: Float[Array, "g km d"]
    eps: Float[Array, "g m d"]
    features: Float[Array, "g m f"]  # `guidance.pair_features` of every member's cond and uncond


def draw_rows(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    x0: Float[Array, "g m *dims"],
    member_c: Condition,
    *,
    t: Float[Array, " g"],
) -> tuple[Rows, Float[Array, "g m f"]]:
    """Rows with fresh noises, and the features of every member's pair of predictions.

    Args:
      key: source of the three noises.
      denoiser: the frozen model, with further directions if it is a `denoisers.Directions`.
      params: arrays of the denoiser.
      x0: real examples, grouped.
      member_c: a condition for each of the g m members, leaves (g m, ...).
      t: time of every group.
    """
    eps_key, target_key, z_key = jax.random.split(key, 3)
    frozen = draw_frozen_rows(eps_key, denoiser, params, x0, member_c, t=t)
    flat = (x0.shape[0] * x0.shape[1], *x0.shape[2:])
    z = jax.random.normal(jax.random.fold_in(z_key, 0), flat)  # as the first step of `unroll`
    fresh = (z, jax.random.normal(target_key, flat))
    rows = Rows(*frozen[:4], *(noise.reshape(frozen.eps.shape) for noise in fresh))
    return rows, frozen.features


def draw_frozen_rows(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    x0: Float[Array, "g m *dims"],
    member_c: Condition,
    *,
    t: Float[Array, " g"],
) -> FrozenRows:
    """The part of `draw_rows` that calls the denoiser, without gradients to it.

    Args:
      key: source of the noise of x_t.
      denoiser: the frozen model; each of its directions gives one block of ``delta``.
      params: arrays of the denoiser.
      x0: real examples, grouped.
      member_c: a condition for each of the g m members, leaves (g m, ...).
      t: time of every group.
    """
    g, m, *dims = x0.shape
    flat, member_t = x0.reshape(g * m, *dims), jnp.repeat(t, m)
    eps = jax.random.normal(key, flat.shape)
    x_t = noised(flat, eps, t=member_t, schedule=denoiser.schedule)
    cond, others = jax.lax.stop_gradient(predictions(denoiser, params, x_t, t=member_t, c=member_c))
    rows = [(cond - flat), *(cond - other for other in others), eps]
    residual, *deltas, noise = (row.reshape(g, m, -1) for row in rows)
    centred = (x0 - jnp.mean(x0, axis=1, keepdims=True)).reshape(g, m, -1)
    features = pair_features(cond, others[0]).reshape(g, m, -1)
    return FrozenRows(centred, residual, jnp.concatenate(deltas, axis=1), noise, features)


def mixed_predictions(
    x0: Float[Array, "g m *dims"], rows: Rows, omega: Float[Array, "g m k"]
) -> Float[Array, "g m *dims"]:
    """The guided predictions ``x0 + r + sum_k omega_k Delta_k`` of all members (paper, Eq. 7)."""
    g, m, k = omega.shape
    deltas = rows.delta.reshape(g, k, m, -1)
    guided = jnp.sum(jnp.moveaxis(omega, 2, 1)[..., None] * deltas, axis=1)
    return (x0.reshape(g, m, -1) + rows.residual + guided).reshape(x0.shape)


class StepCoefficients(NamedTuple):
    """Coefficients of a particle on its row of each block, relative to alpha_s times the centre."""

    proposal: Float[Array, "g b"]  # at omega = 0
    target: Float[Array, "g b"]
    direction: Float[Array, "g k"]  # of omega_k Delta_k


def step_coefficients(
    *,
    s: Float[Array, " g"],
    t: Float[Array, " g"],
    schedule: Schedule,
    churn: Scalar,
    coupling: Coupling,
    num_directions: int = 1,
) -> StepCoefficients:
    """Proposals and targets of one guided step as combinations of the blocks of `Rows`.

    With ``a = alpha_s - kappa alpha_t`` and ``kappa = (sigma_s / sigma_t) k`` of the bridge kernel
    (`diffusion.bridge_coefficients`; paper, Eq. 2 and 23)::

        proposal: alpha_s centred + a (r + sum_k omega_k Delta_k) + sigma_s k eps
                  + sigma_s sqrt(1 - k^2) z
        target:   alpha_s centred + sigma_s eps'          (eps' = eps for shared noise)

    Args:
      s: times that the steps go to.
      t: times that they come from.
      schedule: the forward process.
      churn: of the kernel, in [0, 1].
      coupling: whether proposal and target have noises of their own or share one.
      num_directions: of guidance.
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
    return StepCoefficients(*(jnp.stack(part, axis=-1) for part in (proposal, target, direction)))


def step_forms(
    rows: Rows,
    *,
    s: Float[Array, " g"],
    t: Float[Array, " g"],
    schedule: Schedule,
    churn: Scalar,
    coupling: Coupling,
) -> DistanceForms:
    """Squared distances of proposals and targets of one guided step, as polynomials of omega.

    Args:
      rows: what the step is made of; their Gram matrix is taken here.
      s: times that the steps go to.
      t: times that they come from.
      schedule: the forward process.
      churn: of the kernel, in [0, 1].
      coupling: whether proposal and target have noises of their own or share one.
    """
    k = rows.delta.shape[1] // rows.eps.shape[1]
    coefficients = step_coefficients(
        s=s, t=t, schedule=schedule, churn=churn, coupling=coupling, num_directions=k
    )
    matrix = gram_matrix(jnp.concatenate(rows, axis=1))
    return distance_forms(matrix, *coefficients, directions=tuple(range(2, 2 + k)))


def error_forms(rows: Rows) -> DistanceForms:
    """Squared norms of ``r_j + sum_k omega_jk Delta_jk``, as the distances to a target j at 0."""
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
    """``mean_{j,k} |x~_j - x_k|^beta - lam/2 mean_{j != k} |x~_j - x~_k|^beta`` (paper, Alg. 1).

    The term of the targets alone is constant in omega and left out.

    Args:
      forms: squared distances of proposals x~ and targets x.
      omega: guidance weights, of the shape that the forms take.
      beta: power of the distances.
      lam: weight of the second term; 0: none.
      pairs: which proposals meet which targets in the first term.
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
