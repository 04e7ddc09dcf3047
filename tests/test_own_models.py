"""Models of other JAX libraries are denoisers by a few lines, as docs/pretrained.md shows them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lgd
from lgd.denoisers import from_function

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

FLOW = lgd.schedules.rectified_flow()
X = jax.random.normal(jax.random.key(0), (4, 3))
T, C = jnp.array([0.2, 0.4, 0.6, 0.8]), jnp.array([0, 1, 1, 0])


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 3, rngs=rngs)
        self.embed = nnx.Embed(3, 3, rngs=rngs)

    def __call__(self, x, t, c):
        return self.linear(x) + self.embed(c) + t[:, None]


class Equinox(eqx.Module):
    """Of single examples."""

    linear: eqx.nn.Linear
    embed: eqx.nn.Embedding

    def __init__(self, key):
        self.linear, self.embed = eqx.nn.Linear(3, 3, key=key), eqx.nn.Embedding(3, 3, key=key)

    def __call__(self, x, t, c):
        return self.linear(x) + self.embed(c) + t


def of_nnx():
    model = NNX(nnx.Rngs(0))
    graph, state = nnx.split(model)
    denoiser = from_function(
        lambda p, x, t, c: nnx.merge(graph, p)(x, t, c), schedule=FLOW, kind="velocity", null=2
    )
    return denoiser, state, model(X, T, C)


def of_equinox():
    model = Equinox(jax.random.key(0))
    arrays, static = eqx.partition(model, eqx.is_array)
    denoiser = from_function(
        lambda p, x, t, c: jax.vmap(eqx.combine(p, static))(x, t, c),
        schedule=FLOW, kind="velocity", null=2,
    )  # fmt: skip
    return denoiser, arrays, jax.vmap(model)(X, T, C)


@pytest.mark.parametrize("bring", [of_nnx, of_equinox])
def test_a_model_predicts_as_by_itself_and_guidance_is_learned_for_it(bring):
    denoiser, params, expected = bring()
    np.testing.assert_allclose(denoiser.prediction(params, X, t=T, c=C), expected, rtol=1e-6)
    guidance = lgd.learn_guidance(
        jax.random.key(0), denoiser, params, np.tile(X, (8, 1)), np.tile(C, 8),
        objective=lgd.objectives.SelfConsistency(),
        start={"one": lgd.guidance.constant(1.0)},
        trainer=lgd.training.Trainer(
            optimizer=lgd.training.Optimizer(num_steps=1), batch_size=8, progress=False,
            check=False),
    )  # fmt: skip
    assert np.isfinite(guidance(0.5, c=[0, 1])).all()
