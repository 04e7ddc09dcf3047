"""The objectives that teach omega. The only file that knows the paper's algorithm.

Every objective is a frozen dataclass of settings, called as::

    loss, info = objective(key, omega_fn, denoiser, denoiser_params, batch)

and differentiable in whatever omega_fn closes over; the denoiser is frozen. The one-step
objectives go rows -> Gram matrix -> loss and call the denoiser without gradients; the trajectory
objective differentiates through K unrolled steps.
"""

import dataclasses
from typing import ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import discrepancy, gram, guidance, sampler
from lgd.diffusion import bridge_coefficients, denoise_pair, noised
from lgd.omega import Support, grid_support
from lgd.types import (
    Batch,
    Condition,
    Denoiser,
    FeatureFn,
    OmegaFn,
    Params,
    PRNGKey,
    RewardFn,
    Schedule,
)

Coupling = Literal["independent", "shared"]
Start = Literal["noise", "data"]
Info = dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeLaw:
    """``s ~ U[s_min, 1 - zeta - delta], dt ~ U[delta, 1 - zeta - s], t = s + dt`` (Alg. 1).

    delta is the smallest step, zeta keeps t off 1. The paper sweeps delta (best about .1) and
    s_min, and does not state zeta.
    """

    s_min: float = 0.01
    delta: float = 0.1
    zeta: float = 0.01

    def __post_init__(self) -> None:
        if min(self.s_min, self.zeta) < 0.0 or self.delta <= 0.0:
            raise ValueError(f"expected s_min, zeta >= 0 and delta > 0, got {self}")
        if self.s_min >= 1.0 - self.zeta - self.delta:
            raise ValueError(f"expected s_min < 1 - zeta - delta, got {self}")

    @property
    def support(self) -> Support:
        """Where this law has mass."""
        return Support(s_min=self.s_min, t_max=1.0 - self.zeta, gap_min=self.delta)

    def sample(self, key: PRNGKey, batch: int) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """Draw (s, t), each (b,)."""
        s_key, gap_key = jax.random.split(key)
        s = jax.random.uniform(
            s_key, (batch,), minval=self.s_min, maxval=1.0 - self.zeta - self.delta
        )
        gap = jax.random.uniform(gap_key, (batch,), minval=self.delta, maxval=1.0 - self.zeta - s)
        return s, s + gap


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


Pairs = Literal["all", "matched", "off_diagonal"]


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfConsistency:
    """Match, given x0, one guided step from t to s with direct noising to s (Alg. 1, Eq. 16-22).

    The paper's settings: beta 1.75, lam 1, 4 particles, training churn 1. With a reward R, adds
    ``-reward_weight E R(x0_hat, c)`` on the noised real data (Alg. 4).
    ``coupling="shared"`` gives proposal j and target j the same noise; then lam = 0 pairs j with j
    only, and lam > 0 pairs j with every other.
    """

    beta: float = 1.75
    lam: float = 1.0
    num_particles: int = 4
    churn: float = 1.0
    coupling: Coupling = "independent"
    time_law: TimeLaw = TimeLaw()
    reward: RewardFn | None = None
    reward_weight: float = 0.0

    group_size: ClassVar[None] = None  # takes single examples

    def __post_init__(self) -> None:
        _check_energy(self.beta, self.lam, self.num_particles)
        _check_step(self.churn, self.coupling)

    @property
    def support(self) -> Support:
        """Where (s, t) is seen."""
        return self.time_law.support

    @property
    def pairs(self) -> Pairs:
        """Which proposals meet which targets."""
        if self.coupling == "independent":
            return "all"
        return "matched" if self.lam == 0.0 else "off_diagonal"

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """Loss on examples x0 (b, *dims), c (b, ...)."""
        x0 = jnp.repeat(batch.x0[:, None], self.num_particles, axis=1)
        return _one_step_loss(self, key, omega_fn, denoiser, params, x0, batch.c)


def l2(**settings: object) -> SelfConsistency:
    """The simple l2 objective (Eq. 21): `SelfConsistency` with beta = 2 and lam = 0."""
    return dataclasses.replace(SelfConsistency(beta=2.0, lam=0.0), **settings)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionalMarginalConsistency:
    """Match the law of one guided step from t to s with that of noised data of one condition.

    Like `SelfConsistency`, with different real x0 of the same condition in a group, so that the law
    matched is p(x_s | c) and not p(x_s | x0). A proposal never meets the target made of its own x0.
    """

    beta: float = 1.75
    lam: float = 1.0
    group_size: int = 16
    churn: float = 1.0
    time_law: TimeLaw = TimeLaw()
    reward: RewardFn | None = None
    reward_weight: float = 0.0

    coupling: ClassVar[Coupling] = "independent"
    pairs: ClassVar[Pairs] = "off_diagonal"

    def __post_init__(self) -> None:
        _check_energy(self.beta, self.lam, self.group_size)
        _check_step(self.churn, self.coupling)

    @property
    def support(self) -> Support:
        """Where (s, t) is seen."""
        return self.time_law.support

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """Loss on groups x0 (g, n, *dims), c (g, ...)."""
        return _one_step_loss(self, key, omega_fn, denoiser, params, batch.x0, batch.c)


def _one_step_loss(
    settings: SelfConsistency | ConditionalMarginalConsistency,
    key: PRNGKey,
    omega_fn: OmegaFn,
    denoiser: Denoiser,
    params: Params,
    x0: Float[Array, "g m *dims"],
    c: Condition,
) -> tuple[Float[Array, ""], Info]:
    """Rows -> Gram matrix -> loss, and the reward on the same denoiser call."""
    g, m = x0.shape[:2]
    time_key, rows_key = jax.random.split(key)
    s, t = settings.time_law.sample(time_key, g)
    member_c = repeat(c, m)
    rows = draw_rows(rows_key, denoiser, params, x0, member_c, t=t)
    omega = jnp.repeat(omega_fn(s=s, t=t, c=c)[:, None], m, axis=1)
    proposal, target = particle_coefficients(
        omega,
        s=s,
        t=t,
        schedule=denoiser.schedule,
        churn=settings.churn,
        coupling=settings.coupling,
    )
    matrix = gram.gram_matrix(jnp.concatenate(rows, axis=1))
    loss = jnp.mean(
        gram_loss(
            matrix, proposal, target, beta=settings.beta, lam=settings.lam, pairs=settings.pairs
        )
    )
    info = {"distance": loss, "omega": jnp.mean(omega)}
    if settings.reward is None:
        return loss, info
    x0_hat = x0.reshape(g, m, -1) + rows.residual + omega[:, :, None] * rows.delta
    reward = jnp.mean(settings.reward(x0_hat.reshape(g * m, *x0.shape[2:]), member_c))
    return loss - settings.reward_weight * reward, info | {"reward": reward}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidedScoreMatching:
    """``E |x0 - mix(cond, uncond, omega)|^2`` on noised real data (App. C.1): a negative control.

    For an exact denoiser cond is the best prediction there is, and omega goes to 0.
    """

    time_law: TimeLaw = TimeLaw()
    num_particles: int = 4

    group_size: ClassVar[None] = None

    @property
    def support(self) -> Support:
        """Where (s, t) is seen."""
        return self.time_law.support

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """Loss on examples x0 (b, *dims), c (b, ...)."""
        m = self.num_particles
        time_key, rows_key = jax.random.split(key)
        s, t = self.time_law.sample(time_key, len(batch.x0))
        x0 = jnp.repeat(batch.x0[:, None], m, axis=1)
        rows = draw_rows(rows_key, denoiser, params, x0, repeat(batch.c, m), t=t)
        omega = omega_fn(s=s, t=t, c=batch.c)
        eye = jnp.broadcast_to(jnp.eye(m), (len(t), m, m))
        error = jnp.concatenate([eye, omega[:, None, None] * eye], axis=-1)  # r + omega Delta
        matrix = gram.gram_matrix(jnp.concatenate([rows.residual, rows.delta], axis=1))
        per_example = gram_loss(
            matrix, error, jnp.zeros_like(error), beta=2.0, lam=0.0, pairs="matched"
        )
        loss = jnp.mean(per_example)
        return loss, {"distance": loss, "omega": jnp.mean(omega)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Match the particles that K guided steps reach with real data of the same condition.

    From pure noise (``start="noise"``) or from noised real data (``start="data"``) at times[0], K
    steps of the sampler go down to times[-1]; an `energy_distance` compares the particles of each
    condition with real samples noised to times[-1], in data space or in that of ``features``. The
    gradient flows through all steps and through the frozen denoiser. With a reward R, adds
    ``-reward_weight E R(x, c)`` on the particles reached.

    A batch has groups of ``group_size`` real members: num_targets to compare with and, for
    ``start="data"``, num_particles more (the first ones) to start from.
    """

    times: tuple[float, ...]
    beta: float = 1.0
    lam: float = 1.0
    num_particles: int = 64
    num_targets: int = 64
    churn: float = 0.0
    start: Start = "noise"
    solver: sampler.Solver = "ddim"
    features: FeatureFn | None = None
    reward: RewardFn | None = None
    reward_weight: float = 0.0

    def __post_init__(self) -> None:
        _check_energy(self.beta, self.lam, min(self.num_particles, self.num_targets))
        _check_step(self.churn, "independent")
        if self.start not in get_args(Start):
            raise ValueError(f"expected start in {get_args(Start)}, got {self.start!r}")

    @property
    def group_size(self) -> int:
        """Real members that a group must hold."""
        return self.num_targets + (self.num_particles if self.start == "data" else 0)

    @property
    def support(self) -> Support:
        """Where (s, t) is seen: the steps of the grid."""
        return grid_support(self.times)

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """Loss on groups x0 (g, n, *dims), c (g, ...)."""
        if batch.x0.shape[1] != self.group_size:
            raise ValueError(f"expected groups of {self.group_size}, got {batch.x0.shape[1]}")
        eps_key, target_key, walk_key = jax.random.split(key, 3)
        member_c = repeat(batch.c, self.num_particles)
        x_t = self._starts(eps_key, batch.x0, denoiser.schedule)
        targets = self._targets(target_key, batch.x0, denoiser.schedule)
        times = jnp.asarray(self.times)
        omegas = guidance.on_grid(omega_fn, times, member_c)
        x_s = sampler.unroll(
            walk_key,
            denoiser,
            params,
            omegas,
            member_c,
            x_t,
            times=times,
            churn=self.churn,
            solver=self.solver,
        )
        loss = jnp.mean(self._distance(x_s, targets, len(batch.x0)))
        info = {"distance": loss, "omega": jnp.mean(omegas)}
        if self.reward is None:
            return loss, info
        reward = jnp.mean(self.reward(x_s, member_c))
        return loss - self.reward_weight * reward, info | {"reward": reward}

    def _starts(
        self, key: PRNGKey, x0: Float[Array, "g n *dims"], schedule: Schedule
    ) -> Float[Array, "gm *dims"]:
        g, _, *dims = x0.shape
        eps = jax.random.normal(key, (g * self.num_particles, *dims))
        t = jnp.full(len(eps), self.times[0])
        if self.start == "noise":
            return schedule.sigma(t[0]) * eps
        real = x0[:, : self.num_particles].reshape(eps.shape)
        return noised(real, eps, t=t, schedule=schedule)

    def _targets(
        self, key: PRNGKey, x0: Float[Array, "g n *dims"], schedule: Schedule
    ) -> Float[Array, "gn *dims"]:
        real = x0[:, -self.num_targets :].reshape(-1, *x0.shape[2:])
        if self.times[-1] == 0.0:
            return real
        s = jnp.full(len(real), self.times[-1])
        eps = jax.random.normal(key, real.shape)
        return noised(real, eps, t=s, schedule=schedule)

    def _distance(
        self, x: Float[Array, "gm *dims"], y: Float[Array, "gn *dims"], g: int
    ) -> Float[Array, " g"]:
        if self.features is not None:
            x, y = self.features(x), self.features(y)
        x, y = x.reshape(g, len(x) // g, -1), y.reshape(g, len(y) // g, -1)

        def distance(one: Array, other: Array) -> Array:
            return discrepancy.energy_distance(one, other, beta=self.beta, lam=self.lam)

        return jax.vmap(distance)(x, y)


Objective = SelfConsistency | ConditionalMarginalConsistency | GuidedScoreMatching | Trajectory


def repeat(c: Condition, times: int) -> Condition:
    """Every condition ``times`` times in a row: leaves (g, ...) become (g times, ...)."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, times, axis=0), c)


def _check_energy(beta: float, lam: float, num_particles: int) -> None:
    discrepancy.check_settings(beta, lam)
    fewest = 2 if lam > 0.0 else 1
    if num_particles < fewest:
        raise ValueError(f"expected at least {fewest} particles, got {num_particles}")


def _check_step(churn: float, coupling: str) -> None:
    if not 0.0 <= churn <= 1.0:
        raise ValueError(f"expected churn in [0, 1], got {churn}")
    if coupling not in get_args(Coupling):
        raise ValueError(f"expected coupling in {get_args(Coupling)}, got {coupling!r}")
