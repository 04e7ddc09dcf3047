"""The exact denoiser of a Gaussian mixture with class labels."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd.denoisers.network import unconditional_labels
from lgd.diffusion import checked_schedule, expand
from lgd.types import PRNGKey, Schedule


class MixtureParams(NamedTuple):
    """Components of a mixture with diagonal covariances: means, variances and log-weights."""

    means: Float[Array, "n d"]
    variances: Float[Array, "n d"]
    log_weights: Float[Array, " n"]


@dataclasses.dataclass(frozen=True)
class GaussianMixture:
    """Exact denoiser E[x0 | x_t, c] of a Gaussian mixture of vectors (d,) with class labels.

    ``p(x_t | i) = N(alpha m_i, alpha^2 v_i + sigma^2)`` and
    ``E[x0 | x_t, i] = m_i + alpha v_i / (alpha^2 v_i + sigma^2) (x_t - alpha m_i)`` for component i
    with mean m_i and variances v_i; components are averaged with their posterior weights.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from lgd import denoisers, schedules
    >>> denoiser = denoisers.GaussianMixture(labels=(0, 1), schedule=schedules.rectified_flow())
    >>> params = denoiser.params(jnp.array([[-2.0], [2.0]]), variances=1.0)
    >>> x_t, t, c = jnp.zeros((3, 1)), jnp.ones(3), jnp.array([0, 1, denoiser.num_classes])
    >>> jax.jit(denoiser.apply)(params, x_t, t=t, c=c).tolist()  # class means, and the mean of all
    [[-2.0], [2.0], [0.0]]

    Args:
      labels: the class of every component; classes are 0 to the largest, without gaps. The label
        ``num_classes`` is the unconditional input, all components.
      schedule: the noise schedule.

    Raises:
      ValueError: for labels with gaps.
    """

    labels: tuple[int, ...]
    schedule: Schedule

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", checked_schedule(self.schedule))
        if sorted(set(self.labels)) != list(range(self.num_classes)):
            raise ValueError(f"expected every label from 0 to the largest, got {self.labels}")

    @property
    def num_classes(self) -> int:
        """Number of classes, which is also the label of the unconditional input."""
        return max(self.labels) + 1

    def params(
        self,
        means: Float[Array, "n d"],
        variances: Float[Array, "n d"] | Float[Array, " n"] | float,
        weights: Float[Array, " n"] | None = None,
    ) -> MixtureParams:
        """Return parameters.

        Args:
          means: means (n, d), one for every label.
          variances: variances of every axis (n, d), of every component (n,), or one number.
          weights: positive weights (n,), normalised here; None: equal ones.

        Raises:
          ValueError: for another number of means than of labels.
        """
        means = jnp.asarray(means, jnp.float32)
        if len(means) != len(self.labels):
            raise ValueError(f"expected {len(self.labels)} means, got {len(means)}")
        spread = jnp.asarray(variances, jnp.float32)
        spread = spread[:, None] if spread.ndim == 1 else spread
        weights = jnp.ones(len(means)) if weights is None else jnp.asarray(weights)
        log_weights = jnp.log(weights / jnp.sum(weights))
        return MixtureParams(means, jnp.broadcast_to(spread, means.shape), log_weights)

    def apply(
        self,
        params: MixtureParams,
        x_t: Float[Array, "b d"],
        *,
        t: Float[Array, " b"],
        c: Int[Array, " b"],
    ) -> Float[Array, "b d"]:
        """Return ``E[x0 | x_t, c]``, (b, d)."""
        alpha, residual, total = self._noised(params, x_t, t)
        posterior = jax.nn.softmax(self._log_joint(params, residual, total, c), axis=-1)
        means = params.means[None] + alpha * params.variances[None] / total * residual
        return jnp.sum(posterior[..., None] * means, axis=1)

    def null(self, c: Int[Array, " b"]) -> Int[Array, " b"]:
        """Return the unconditional input, labels num_classes of the shape of c."""
        return unconditional_labels(c, self.num_classes)

    def log_density(
        self,
        params: MixtureParams,
        x_t: Float[Array, "b d"],
        *,
        t: Float[Array, " b"],
        c: Int[Array, " b"],
    ) -> Float[Array, " b"]:
        """Return ``log p(x_t | c)``, (b,), in nats."""
        _, residual, total = self._noised(params, x_t, t)
        joint = self._log_joint(params, residual, total, c)
        prior = jnp.where(self._member(c), params.log_weights[None], -jnp.inf)
        return jax.nn.logsumexp(joint, axis=-1) - jax.nn.logsumexp(prior, axis=-1)

    def posterior(
        self,
        params: MixtureParams,
        x_t: Float[Array, "b d"],
        *,
        t: Float[Array, " b"],
        c: Int[Array, " b"],
    ) -> Float[Array, " b"]:
        """Return ``p(c | x_t)``, (b,)."""
        _, residual, total = self._noised(params, x_t, t)
        every = self._log_joint(params, residual, total, self.null(c))
        within = jnp.where(self._member(c), every, -jnp.inf)
        return jnp.exp(jax.nn.logsumexp(within, axis=-1) - jax.nn.logsumexp(every, axis=-1))

    def draw(self, key: PRNGKey, params: MixtureParams, c: Int[Array, " b"]) -> Float[Array, "b d"]:
        """Return draws of p(x0 | c), (b, d)."""
        component_key, normal_key = jax.random.split(key)
        logits = jnp.where(self._member(c), params.log_weights[None], -jnp.inf)
        i = jax.random.categorical(component_key, logits)
        z = jax.random.normal(normal_key, (len(c), params.means.shape[-1]))
        return params.means[i] + jnp.sqrt(params.variances[i]) * z

    def _noised(
        self, params: MixtureParams, x_t: Float[Array, "b d"], t: Float[Array, " b"]
    ) -> tuple[Float[Array, "b 1 1"], Float[Array, "b n d"], Float[Array, "b n d"]]:
        """Return alpha, and ``x_t - alpha m_i`` and ``alpha^2 v_i + sigma^2`` per component."""
        alpha, sigma = (
            expand(f(t), x_t)[..., None] for f in (self.schedule.alpha, self.schedule.sigma)
        )
        residual = x_t[:, None] - alpha * params.means[None]
        return alpha, residual, alpha**2 * params.variances[None] + sigma**2

    def _log_joint(
        self,
        params: MixtureParams,
        residual: Float[Array, "b n d"],
        total: Float[Array, "b n d"],
        c: Int[Array, " b"],
    ) -> Float[Array, "b n"]:
        """Return ``log w_i + log p(x_t | i)`` for the components of class c, -inf for others."""
        log_normal = -0.5 * jnp.sum(residual**2 / total + jnp.log(2 * jnp.pi * total), axis=-1)
        return jnp.where(self._member(c), params.log_weights[None] + log_normal, -jnp.inf)

    def _member(self, c: Int[Array, " b"]) -> Array:
        labels = jnp.asarray(self.labels)
        return (c[:, None] == labels[None]) | (c[:, None] == self.num_classes)
