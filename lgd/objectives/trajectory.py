"""The trajectory objective: unroll guided steps, compare where they end with real data."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd import conditions, discrepancy, omega
from lgd.data.dataset import FileImages, Split
from lgd.diffusion import check_start, noised
from lgd.guidance import Cfg, as_rule
from lgd.machinery.progress import bar
from lgd.metrics.features import extract
from lgd.objectives.pooled import pooled_distance
from lgd.objectives.rows import Info, check_energy, check_step
from lgd.sampling.solvers import solver_of
from lgd.sampling.walk import Walk, checked_solver, scan, steps, traced_churn
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
    Solver,
)

Start = Literal["noise", "data"]
STEPS_APART = 10  # at most, between two steps that train one row of a default table
_FEATURE_BATCH = 1024  # examples whose features are computed at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Match the particles that K guided steps reach with real data of the same stratum.

    From pure noise (``start="noise"``) or from noised real data (``start="data"``) at times[0], K
    steps of the sampler go down to times[-1]; an `energy_distance` compares the particles of each
    stratum with real samples noised to times[-1], in data space or in that of ``features``::

        loss = mean_k D(p_guided(x_s | k), p(x_s | k)) + marginal_weight D(p_guided(x_s), p(x_s))

    where the second term pools the particles of all strata, and their targets (the marginal
    consistency of Eq. 15, at the end of a trajectory). Matching strata one by one trades the errors
    of their joint law away; the pooled term sees them. Without strata both terms are of all
    examples. The gradient flows through all steps and through the frozen denoiser. With a reward R,
    adds ``-reward_weight E R(x, c)`` on the particles reached.

    A step takes ``conditions_per_step`` strata, drawn without replacement, and estimates both terms
    of all strata without bias: the first by its mean over those drawn, the second by weighing pairs
    of particles by how often they are drawn together, see `pooled_distance`. So a step costs the
    same for ten strata and for a million. With C strata and r rounds of a group of each (see
    `training.Trainer`), P = C r num_particles, T = C r num_targets and K steps: 6 K P rows of the
    denoiser (cond and uncond, forwards, again, and backwards), (P + T)^2 distances for the second
    term and as many by C r for the first, and memory for K states of P particles, one guided step
    of them, and the distances.

    A batch has groups of ``group_size`` real members with their conditions: num_targets to compare
    with and, for ``start="data"``, num_particles more (the first ones) to start from. Particle i
    has the condition of member i, or of member i modulo the size of the group.

    Args:
      times: decreasing grid of the steps.
      more_times: further grids, from the same start to the same end: every call draws one of all
        grids, so that omega does not fit the step sizes of one.
      beta: power of the distances, in (0, 2].
      lam: weight of the within-set terms, in [0, 1].
      num_particles: particles of each group.
      num_targets: real examples that they are compared with.
      marginal_weight: weight of the pooled term; 0: strata one by one.
      conditions_per_step: strata of a step, at most; all where there are no more. The pooled term
        takes 2 or more.
      num_strata: strata that those of a batch are drawn from, see `prepared`; None: no others.
      churn: 0 deterministic, 1 ancestral.
      start: "noise" or "data".
      solver: a name in `sampling.SOLVERS`, or a solver.
      rule: what makes a rule of an omega function, for instance one that clips x0_hat:
        ``lambda omega: Clipped(Cfg(omega))``; at module level, so that it can be hashed.
      features: phi(x) (n, *dims) -> (n, f), to compare by; None: the data themselves.
      example_shape: the shape of a real example, where the x0 of batches are their features already
        (those of data do not change), see `prepared`.
      reward: R(x, c) -> (b,), of the particles reached.
      reward_weight: its weight; 0: no reward.
    """

    times: tuple[float, ...]
    more_times: tuple[tuple[float, ...], ...] = ()
    beta: float = 1.0
    lam: float = 1.0
    num_particles: int = 40
    num_targets: int = 96
    marginal_weight: float = 0.5
    conditions_per_step: int = 10
    num_strata: int | None = None
    churn: float = 0.0
    start: Start = "noise"
    solver: str | Solver = "ddim"
    rule: Callable[[OmegaFn], Any] = Cfg
    features: FeatureFn | None = None
    example_shape: tuple[int, ...] | None = None
    reward: RewardFn | None = None
    reward_weight: float = 0.0

    def __post_init__(self) -> None:
        check_energy(self.beta, self.lam, min(self.num_particles, self.num_targets))
        check_step(self.churn, "independent")
        checked_solver(self.solver, self.churn)
        if not self.marginal_weight >= 0.0:
            raise ValueError(f"expected marginal_weight >= 0, got {self.marginal_weight}")
        if self.conditions_per_step < 1:
            raise ValueError(f"expected conditions_per_step >= 1, got {self.conditions_per_step}")
        if self.marginal_weight > 0.0 and self.conditions_per_step == 1 < (self.num_strata or 1):
            raise ValueError(
                f"conditions_per_step: expected at least 2 of the {self.num_strata} strata for the "
                "term that pools them, got 1; or set marginal_weight = 0"
            )
        if any((grid[0], grid[-1]) != (self.times[0], self.times[-1]) for grid in self.more_times):
            raise ValueError(
                f"expected grids from {self.times[0]} to {self.times[-1]}, got {self.more_times}"
            )
        if self.start not in get_args(Start):
            raise ValueError(f"expected start in {get_args(Start)}, got {self.start!r}")
        if self.example_shape is not None and not self.takes_features:
            raise ValueError(
                "expected no example_shape without features, or from data, or to noisy data"
            )

    @property
    def takes_features(self) -> bool:
        """Whether nothing but the features of real examples is needed of them."""
        clean = self.times[-1] == 0.0
        return self.features is not None and self.start == "noise" and clean

    @property
    def group_size(self) -> int:
        """Real members that a group must hold."""
        return self.num_targets + (self.num_particles if self.start == "data" else 0)

    @property
    def support(self) -> omega.Support:
        """Where (s, t) is seen: the steps of the grids."""
        each = [omega.grid_support(grid) for grid in (self.times, *self.more_times)]
        return each[0]._replace(
            gap_min=min(support.gap_min for support in each),
            gap_max=max(support.gap_max for support in each),
        )

    def default_model(self, schedule: Schedule, c: Condition) -> omega.LearnedModel:
        """A table over label and step where steps come back to every label, else a network.

        The paper's network is for conditions that are no labels, and for more than
        `STEPS_APART` times ``conditions_per_step`` of them: a row of a table that few steps train
        moves by the noise of those few, while a network learns from every step for all labels.

        c: the condition of every stratum, or of some examples.
        """
        is_rare = conditions.size(c) > STEPS_APART * self.conditions_per_step
        if conditions.labels_of(c) is None or is_rare:
            return omega.default_network(schedule, c, self.support)
        return omega.StepTable(times=self.times, rows=omega.rows_for(c))

    def prepared(
        self, split: Split, num_draws: int, *, progress: bool = True
    ) -> tuple["Trajectory", Split]:
        """The objective for these strata, and features computed once where that is less work.

        Args:
          split: the real examples.
          num_draws: how many of them training will draw.
          progress: show a bar.
        """
        objective = dataclasses.replace(self, num_strata=max(1, split.num_strata))
        in_files = isinstance(split.x, FileImages)
        if not self.takes_features or in_files or num_draws < len(split.x):
            return objective, split
        assert self.features is not None  # which takes_features says
        feature_fn = jax.jit(self.features)
        size = min(_FEATURE_BATCH, len(split.x))
        with bar("features of real examples", -(-len(split.x) // size), show=progress) as advance:

            def counted(x: Array) -> Array:
                advance("")
                return feature_fn(x)

            x = extract(counted, split.x, batch_size=size)
        ready = dataclasses.replace(objective, example_shape=split.x.shape[1:])
        return ready, split._replace(x=x)

    def __call__(
        self, key: PRNGKey, omega_fn: OmegaFn, denoiser: Denoiser, params: Params, batch: Batch
    ) -> tuple[Float[Array, ""], Info]:
        """Loss on groups x0 (g, n, *dims), c (g, n, ...)."""
        if batch.x0.shape[1] != self.group_size:
            raise ValueError(f"expected groups of {self.group_size}, got {batch.x0.shape[1]}")
        if not self.more_times:
            return self._loss(key, omega_fn, denoiser, params, batch, self.times)
        grids = (self.times, *self.more_times)
        grid_key, loss_key = jax.random.split(key)
        branches = [
            functools.partial(self._loss, loss_key, omega_fn, denoiser, params, batch, grid)
            for grid in grids
        ]
        return jax.lax.switch(jax.random.randint(grid_key, (), 0, len(grids)), branches)

    def _loss(
        self,
        key: PRNGKey,
        omega_fn: OmegaFn,
        denoiser: Denoiser,
        params: Params,
        batch: Batch,
        grid: tuple[float, ...],
    ) -> tuple[Float[Array, ""], Info]:
        """The loss of one grid."""
        eps_key, target_key, walk_key = jax.random.split(key, 3)
        member = jnp.arange(self.num_particles) % self.group_size
        member_c = conditions.flatten(jax.tree.map(lambda leaf: leaf[:, member], batch.c))
        x_t = self._starts(eps_key, batch.x0, denoiser.schedule)
        targets = self._targets(target_key, batch.x0, denoiser.schedule)
        times = jnp.asarray(grid)
        check_start(denoiser, grid)
        rule, inputs = as_rule(self.rule(omega_fn)).prepare(denoiser, times, member_c)
        walk = Walk(denoiser, params, rule, solver_of(self.solver), member_c)
        each = steps(walk_key, times, traced_churn(self.churn), inputs)
        x_s, _ = scan(walk, x_t, each)
        loss, info = self._distance(x_s, targets, len(batch.x0))
        if isinstance(inputs, jax.Array):  # weights of every step
            info |= {"omega": jnp.mean(inputs)}
        if self.reward is None:
            return loss, info
        reward = jnp.mean(self.reward(x_s, member_c))
        return loss - self.reward_weight * reward, info | {"reward": reward}

    def _starts(
        self, key: PRNGKey, x0: Float[Array, "g n *dims"], schedule: Schedule
    ) -> Float[Array, "gm *example"]:
        g, dims = len(x0), x0.shape[2:] if self.example_shape is None else self.example_shape
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
        self, x: Float[Array, "gm *dims"], y: Float[Array, "gn *real"], g: int
    ) -> tuple[Float[Array, ""], Info]:
        """Within strata, and over all of them pooled."""
        if self.features is not None:
            x, y = self.features(x), y if self.example_shape is not None else self.features(y)
        x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
        distance = functools.partial(
            discrepancy.energy_distance, beta=self.beta, lam=self.lam, any_scale=False
        )
        groups = [points.reshape(g, len(points) // g, -1) for points in (x, y)]
        conditional = jnp.mean(jax.vmap(distance)(*groups))
        if self.marginal_weight == 0.0:
            return conditional, {"distance": conditional}
        if self.num_strata is None or self.num_strata <= self.conditions_per_step:
            marginal = distance(x, y)
        else:
            marginal = pooled_distance(
                *groups,
                drawn=self.conditions_per_step,
                num_strata=self.num_strata,
                beta=self.beta,
                lam=self.lam,
            )
        loss = conditional + self.marginal_weight * marginal
        return loss, {"distance": conditional, "marginal_distance": marginal}
