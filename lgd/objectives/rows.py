"""One-step objectives in Gram form: rows, the coefficients of particles on them, the loss.

The denoiser is called once, without gradients, in `draw_rows`; omega enters in the coefficients.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import discrepancy, gram
from lgd.diffusion import bridge_coefficients, denoise_pair, noised
from lgd.types import Condition, Denoiser, Params, PRNGKey, Schedule

Coupling = Literal["independent", "shared"]
Pairs = Literal["all", "matched", "off_diagonal"]
Info = dict[str, Float[Array, ""]]


class Rows(NamedTuple):
    """What a one-step objective knows of a group of m particles that share (s, t).

    Coefficient arrays below use the same blocks, in this order; every block is (g, m, d).
    """

    centred: Float[Array, "g m d"]  # x0_j minus the mean over the group; 0 for copies of one x0
    residual: Float[Array, "g m d"]  # r = cond - x0
    delta: Float[Array, "g m d"]  # Delta = cond - uncond
    eps: Float[Array, "g m d"]  # noise of x_t
    z: Float[Array, "g m d"]  # noise of the kernel
    eps_target: Float[Array, "g m d"]  # noise of x_s


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
    g, m, *dims = x0.shape
    eps_key, target_key, z_key = jax.random.split(key, 3)
    flat, member_t = x0.reshape(g * m, *dims), jnp.repeat(t, m)
    eps = jax.random.normal(eps_key, flat.shape)
    x_t = noised(flat, eps, t=member_t, schedule=denoiser.schedule)
    pair = denoise_pair(denoiser, params, x_t, t=member_t, c=member_c)
    cond, uncond = jax.lax.stop_gradient(pair)
    z = jax.random.normal(jax.random.fold_in(z_key, 0), flat.shape)  # as the first step of `unroll`
    eps_target = jax.random.normal(target_key, flat.shape)
    centred = x0 - jnp.mean(x0, axis=1, keepdims=True)
    blocks = (centred, cond - flat, cond - uncond, eps, z, eps_target)
    return Rows(*(block.reshape(g, m, -1) for block in blocks))


def particle_coefficients(
    omega: Float[Array, "g m"],
    *,
    s: Float[Array, " g"],
    t: Float[Array, " g"],
    schedule: Schedule,
    churn: float,
    coupling: Coupling,
) -> tuple[Float[Array, "g m q"], Float[Array, "g m q"]]:
    """Coefficients of proposals and targets on the rows, relative to alpha_s times the centre.

    With ``a = alpha_s - kappa alpha_t`` and ``kappa = (sigma_s / sigma_t) k``::

        proposal: alpha_s centred + a (r + omega Delta) + sigma_s k eps + sigma_s sqrt(1 - k^2) z
        target:   alpha_s centred + sigma_s eps'          (eps' = eps for shared noise)
    """
    scale = bridge_coefficients(t, s, schedule=schedule, churn=churn)
    alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
    eye, zero = jnp.eye(omega.shape[1]), jnp.zeros((omega.shape[1],) * 2)

    def block(value: Float[Array, " g"]) -> Float[Array, "g m m"]:
        return value[:, None, None] * eye[None]

    none = block(jnp.zeros_like(s)) + zero[None]
    guided = (scale.x0[:, None] * omega)[:, :, None] * eye[None]
    eps = block(scale.x_t * schedule.sigma(t))
    proposal = (block(alpha_s), block(scale.x0), guided, eps, block(scale.noise), none)
    noise = (block(sigma_s), none, none) if coupling == "shared" else (none, none, block(sigma_s))
    target = (block(alpha_s), none, none, *noise)
    return jnp.concatenate(proposal, axis=-1), jnp.concatenate(target, axis=-1)


def gram_loss(
    matrix: Float[Array, "g q q"],
    proposal: Float[Array, "g m q"],
    target: Float[Array, "g m q"],
    *,
    beta: float,
    lam: float,
    pairs: Pairs,
) -> Float[Array, " g"]:
    """``mean_{j,k} |x~_j - x_k|^beta - lam/2 mean_{j != k} |x~_j - x~_k|^beta`` (Alg. 1).

    The mean of the first term runs over the pairs named; the targets' own term is constant in
    omega and left out.
    """
    cross = discrepancy.power(gram.squared_distances(matrix, proposal, target), beta)
    if pairs == "matched":
        loss = jnp.mean(jnp.diagonal(cross, axis1=1, axis2=2), axis=-1)
    elif pairs == "off_diagonal":
        loss = discrepancy.off_diagonal_mean(cross)
    else:
        loss = jnp.mean(cross, axis=(1, 2))
    if lam > 0.0:
        within = discrepancy.power(gram.squared_distances(matrix, proposal, proposal), beta)
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
