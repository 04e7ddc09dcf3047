"""Samples for evaluation: the same noise for every schedule."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lgd import guidance, sampling
from lgd.machinery import failures, parallel, processes
from lgd.types import Denoiser, OmegaFn, Params, PRNGKey


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """Draws equally many samples of every class, with the same noise for every schedule.

    Two calls with the same seed and number of samples differ by the schedule only. With a mesh, its
    devices share the work. The samples of every class are then split over the devices of this
    process where these divide their number; each of several processes gets all samples.
    """

    denoiser: Denoiser
    params: Params
    shape: tuple[int, ...]
    num_classes: int
    times: Float[Array, " n"]
    churn: float = 0.0
    solver: sampling.Solver = "ddim"
    mesh: Mesh | None = None
    skip: bool = False  # calls where omega is 0, see `sampling.sample`
    batch: int = 0  # most samples drawn at once; 0: all

    @property
    def nfe(self) -> int:
        """Network evaluations per sample where nothing is skipped."""
        return sampling.count_nfe(len(self.times) - 1, self.solver)

    def nfe_of(self, omega_fn: OmegaFn, per_class: int) -> int | float:
        """Network evaluations per sample with this schedule, a mean over what is drawn at once."""
        if not self.skip:
            return self.nfe
        omegas, c = self._omegas(omega_fn, per_class)
        parts = [omegas[:, rows] for rows in self._parts(len(c))]
        return float(np.mean([sampling.count_skipping_nfe(part, self.solver) for part in parts]))

    @failures.memory_advice()
    def __call__(
        self, omega_fn: OmegaFn, per_class: int, *, seed: int
    ) -> Float[Array, "g n *dims"]:
        """Samples (num_classes, per_class, *shape).

        Raises NonFiniteError, which names the times at which the denoiser is not finite, and
        DeviceMemoryError.
        """
        omegas, c = self._omegas(omega_fn, per_class)
        x0 = self._drawn(jax.random.key(seed), omegas, c)
        x0 = x0.reshape(self.num_classes, per_class, *self.shape)
        if not bool(jnp.isfinite(x0).all()):
            raise failures.NonFiniteError(f"expected finite samples, got others; {self._blame()}")
        return x0 if self.mesh is None else parallel.spread_rows(x0, parallel.here(self.mesh), 1)

    def _drawn(self, key: PRNGKey, omegas: Array, c: Array) -> Float[Array, "b *dims"]:
        """Samples of these conditions; more than ``batch`` in parts, each with a key of its own."""
        parts = self._parts(len(c))
        if len(parts) == 1:
            return self._drawn_at_once(key, omegas, c)
        drawn = [
            np.asarray(self._drawn_at_once(jax.random.fold_in(key, i), omegas[:, rows], c[rows]))
            for i, rows in enumerate(parts)
        ]
        return jnp.asarray(np.concatenate(drawn)[: len(c)])

    def _parts(self, num_rows: int) -> np.ndarray:
        """What is drawn at once (parts, rows), all of one size, which compiles once.

        The last part is filled up with its last row.
        """
        count = -(-num_rows // self.batch) if self.batch else 1
        size = -(-num_rows // count)
        return np.minimum(np.arange(count * size), num_rows - 1).reshape(count, size)

    def _drawn_at_once(self, key: PRNGKey, omegas: Array, c: Array) -> Float[Array, "b *dims"]:
        samples = sampling.sample(
            key,
            self.denoiser,
            self._placed_params,
            omegas,
            c,
            shape=self.shape,
            times=self.times,
            churn=self.churn,
            solver=self.solver,
            mesh=self.mesh,
            skip=self.skip,
        )
        return processes.local(samples.x0)

    def _omegas(self, omega_fn: OmegaFn, per_class: int) -> tuple[Array, Array]:
        """Of every step and sample, and the classes of the samples."""
        c = jnp.repeat(jnp.arange(self.num_classes, dtype=jnp.int32), per_class)
        return guidance.on_grid(omega_fn, self.times, c), c

    def _blame(self) -> str:
        c = np.arange(self.num_classes, dtype=np.int32)
        noise_only = np.zeros((self.num_classes, *self.shape), np.float32)
        times = np.asarray(self.times)[:-1].tolist()
        return failures.blame(self.denoiser, self._placed_params, noise_only, c, times)

    @functools.cached_property
    def _placed_params(self) -> Params:
        if self.mesh is None:
            return self.params
        return parallel.place(self.params, parallel.param_sharding(self.params, self.mesh))
