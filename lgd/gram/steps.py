"""One step of a sweep: batches with fresh noise, and the loss of a lane on its batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd import omega
from lgd.gram.lanes import Program
from lgd.gram.loss import Examples, redrawn_rows, weights_of
from lgd.objectives import Energy
from lgd.objectives.forms import DistanceForms
from lgd.types import Params, PRNGKey


def redrawn_batches(
    program: Program, data: Examples, keys: PRNGKey, index: Int[Array, "seeds b"]
) -> tuple[Examples, Float[Array, "seeds b"], DistanceForms]:
    """The batch and s of every seed, with distances by fresh noise for every seed and churn.

    Args:
      program: what the lanes have in common.
      data: all examples.
      keys: one for every seed.
      index: the examples of the batch of every seed.
    """
    m = program.objective.num_members

    def of_seed(key: PRNGKey, rows: Int[Array, " b"]) -> tuple:
        s_key, rows_key = jax.random.split(key)
        batch = data.at(rows)
        s = program.objective.time_law.sample_s(s_key, batch.t)
        return batch, s, redrawn_rows(rows_key, batch, program.layout, num_particles=m)

    def of_form(seed: Int[Array, ""], churn: Float[Array, ""]) -> DistanceForms:
        seed_t, seed_s, seed_rows = jax.tree.map(lambda leaf: leaf[seed], (batch.t, s, rows))
        return program.objective.forms(
            seed_rows, s=seed_s, t=seed_t, schedule=program.schedule, churn=churn
        )

    batch, s, rows = jax.vmap(of_seed)(keys, index)
    seeds, churns = jnp.asarray(program.form_seeds), jnp.asarray(program.form_churns, jnp.float32)
    return batch, s, jax.vmap(of_form)(seeds, churns)


def lane_loss(
    program: Program,
    batch: Examples,
    s: Float[Array, " b"],
    forms: DistanceForms,
    energy: Energy,
    params: Params,
) -> Float[Array, ""]:
    """The mean loss of one lane on its batch.

    Args:
      program: what the lanes have in common.
      batch: the examples.
      s: times that the steps go to.
      forms: squared distances of the batch.
      energy: settings of the lane.
      params: of the model of the program.
    """
    weights = weights_of(
        omega.bind(program.model, params),
        batch,
        program.layout,
        s=s,
        num_particles=program.objective.num_members,
    )
    beta, lam, _ = (
        traced if static is None else static
        for traced, static in zip(energy, program.common, strict=True)
    )
    return jnp.mean(program.objective.losses(forms, weights, beta=beta, lam=lam))
