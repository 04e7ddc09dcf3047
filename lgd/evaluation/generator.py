"""Samples for evaluation: equally many of every condition, the same noise for every schedule."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lgd import conditions, sampling
from lgd.denoisers import probe
from lgd.guidance import as_rule
from lgd.guidance.rules import skipping_of
from lgd.machinery import failures, parallel, processes
from lgd.types import Condition, Denoiser, Params, Solver


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """Draws equally many samples of every condition, with the same noise for every schedule.

    Two calls with the same seed and number of samples differ by the guidance only. With a mesh, its
    devices share the work. The samples of every condition are then split over the devices of this
    process where these divide their number; each of several processes gets all samples.

    Args:
      denoiser: a frozen model.
      params: arrays of the denoiser.
      shape: shape of one sample.
      conditions: leaves (g, ...), the conditions to sample.
      times: grid of the sampler, (num_steps + 1,), decreasing.
      churn: see `sampling.sample`.
      solver: see `sampling.sample`.
      mesh: devices; None: wherever params lie.
      skip: leave out calls where omega is 0, see `sampling.sample`.
      batch: most samples drawn at once; 0: all.
      decode: of samples (b, *shape) into images of another shape (b, ...); None: none.
      groups: strata that conditions in a row belong to, equally many each, by which samples are
        returned; 0: every condition is a stratum.
    """

    denoiser: Denoiser
    params: Params
    shape: tuple[int, ...]
    conditions: Condition
    times: Float[Array, " n"]
    churn: float = 0.0
    solver: str | Solver = "ddim"
    mesh: Mesh | None = None
    skip: bool = False
    batch: int = 0
    decode: Callable[[Any], Any] | None = None
    groups: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for groups that conditions do not divide into."""
        if self.groups < 0 or (self.groups and self.num_conditions % self.groups):
            got = f"{self.groups} for {self.num_conditions}"
            raise ValueError(f"groups: expected a divisor of the number of conditions, got {got}")

    @property
    def num_conditions(self) -> int:
        """Number of conditions, g."""
        return conditions.size(self.conditions)

    def share(self, num_samples: int) -> int:
        """Samples of each condition where ``num_samples`` are asked for in all, rounded down."""
        return num_samples // self.num_conditions

    def nfe_of(self, guidance: Any, per_condition: int) -> int | float:
        """Network evaluations per sample with this guidance, a mean over what is drawn at once."""
        if not self.skip:
            return sampling.count_nfe(self.denoiser, guidance, len(self.times) - 1, self.solver)
        c, counts = self.repeated(per_condition), []
        for rows in self._parts(conditions.size(c)):
            part = conditions.take(c, rows)
            rule, inputs = as_rule(guidance).prepare(self.denoiser, self.times, part)
            calls = sampling.solver_of(self.solver).calls(len(self.times) - 1)
            counts.append(skipping_of(rule, inputs, calls)[2])
        return float(np.mean(counts))

    @failures.memory_advice()
    def __call__(
        self, guidance: Any, per_condition: int, *, seed: int
    ) -> Float[Array, "g n *dims"]:
        """Samples (g, per_condition, *shape) with whatever samplers take as guidance.

        With groups (groups, g per_condition / groups, *shape).

        Raises NonFiniteError, which names the times at which the denoiser is not finite, and
        DeviceMemoryError.
        """
        x0 = self._drawn(jax.random.key(seed), guidance, self.repeated(per_condition))
        if self.decode is not None:
            x0 = jnp.asarray(self.decode(x0))
        x0 = x0.reshape(self.groups or self.num_conditions, -1, *x0.shape[1:])
        if not bool(jnp.isfinite(x0).all()):
            raise failures.NonFiniteError(f"expected finite samples, got others; {self._report()}")
        if self.mesh is None:
            return x0
        return parallel.spread_rows(x0, parallel.local_mesh(self.mesh), 1)

    def repeated(self, per_condition: int) -> Condition:
        """Conditions of all samples, leaves (num_conditions per_condition, ...)."""
        c = jax.tree.map(jnp.asarray, self.conditions)
        return conditions.repeat(c, per_condition)

    def _drawn(self, key: Array, guidance: Any, c: Condition) -> Float[Array, "b *dims"]:
        """Samples of these conditions; more than ``batch`` in parts, each with a key of its own."""
        count = conditions.size(c)
        parts = self._parts(count)
        if len(parts) == 1:
            return self._drawn_at_once(key, guidance, c)
        drawn = [
            np.asarray(
                self._drawn_at_once(jax.random.fold_in(key, i), guidance, conditions.take(c, rows))
            )
            for i, rows in enumerate(parts)
        ]
        return jnp.asarray(np.concatenate(drawn)[:count])

    def _parts(self, num_rows: int) -> np.ndarray:
        """Indices of the samples of every part (parts, rows), all of one size, to compile once.

        The last part is filled up with its last row.
        """
        count = -(-num_rows // self.batch) if self.batch else 1
        size = -(-num_rows // count)
        return np.minimum(np.arange(count * size), num_rows - 1).reshape(count, size)

    def _drawn_at_once(self, key: Array, guidance: Any, c: Condition) -> Float[Array, "b *dims"]:
        samples = sampling.sample(
            key,
            self.denoiser,
            self._placed_params,
            c,
            shape=self.shape,
            guidance=guidance,
            times=self.times,
            churn=self.churn,
            solver=self.solver,
            mesh=self.mesh,
            skip=self.skip,
        )
        return processes.local(samples.x0)

    def _report(self) -> str:
        noise_only = np.zeros((self.num_conditions, *self.shape), np.float32)
        times = np.asarray(self.times)[:-1].tolist()
        return probe.non_finite_report(
            self.denoiser, self._placed_params, noise_only, self.conditions, times
        )

    @functools.cached_property
    def _placed_params(self) -> Params:
        if self.mesh is None:
            return self.params
        return parallel.place(self.params, parallel.param_sharding(self.params, self.mesh))
