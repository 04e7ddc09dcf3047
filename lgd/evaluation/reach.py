"""How far omega can move the reward of each stratum: it only moves samples along Delta.

To first order at omega = 0, through all sampling steps and, as Alg. 4 sees it, through one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import conditions, sampling
from lgd.data.dataset import Split
from lgd.diffusion import add_noise, denoise_pair
from lgd.evaluation.generator import Generator
from lgd.types import RewardFn


class Slopes(NamedTuple):
    """Derivatives of the mean reward of every stratum at omega = 0, (g, k), by sampling step."""

    trajectory: np.ndarray  # of the samples' reward, by omega of that step
    one_step: np.ndarray  # ``E <grad R(cond), Delta>`` on noised real data: of R(x0_hat)


def slopes(
    generator: Generator, real: Split, reward: RewardFn, per_stratum: int, *, seed: int
) -> Slopes:
    """Derivatives of the mean reward of every stratum by omega, at omega = 0.

    Args:
      generator: the sampler, with one condition for each stratum.
      real: real examples, which are noised for one step.
      reward: R(x0, c).
      per_stratum: samples of each stratum for the derivatives through all steps.
      seed: of the noise.
    """
    return Slopes(
        _trajectory_slopes(generator, reward, per_stratum, seed),
        _one_step_slopes(generator, real, reward, seed),
    )


def _trajectory_slopes(
    generator: Generator, reward: RewardFn, per_stratum: int, seed: int
) -> np.ndarray:
    c = generator.repeated(per_stratum)
    noise_key, walk_key = jax.random.split(jax.random.key(seed))
    sigma = generator.denoiser.schedule.sigma(generator.times[0])
    start = sigma * jax.random.normal(noise_key, (conditions.size(c), *generator.shape))

    @jax.jit
    @jax.grad
    def by_omegas(omegas: Float[Array, "k b"]) -> Float[Array, ""]:
        x0 = sampling.unroll(
            walk_key,
            generator.denoiser,
            generator.params,
            c,
            start,
            guidance=omegas,
            times=generator.times,
            churn=generator.churn,
            solver=generator.solver,
        )
        return jnp.sum(reward(x0, c)) / per_stratum

    gradients = by_omegas(jnp.zeros((len(generator.times) - 1, conditions.size(c))))
    return np.asarray(gradients).reshape(-1, generator.num_conditions, per_stratum).sum(axis=2).T


def _one_step_slopes(generator: Generator, real: Split, reward: RewardFn, seed: int) -> np.ndarray:
    x0, c = jnp.asarray(real.x), jax.tree.map(jnp.asarray, real.c)
    schedule = generator.denoiser.schedule

    @jax.jit
    def one_time(t: Float[Array, ""]) -> Float[Array, " n"]:
        times = jnp.full(len(x0), t)
        x_t = add_noise(jax.random.key(seed), x0, t=times, schedule=schedule)
        cond, uncond = denoise_pair(generator.denoiser, generator.params, x_t, t=times, c=c)
        return jax.jvp(lambda x0_hat: reward(x0_hat, c), (cond,), (cond - uncond,))[1]

    along = np.stack([np.asarray(one_time(t)) for t in generator.times[:-1]], axis=1)
    return np.stack([along[real.strata == k].mean(axis=0) for k in range(generator.num_conditions)])
