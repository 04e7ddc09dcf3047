"""The small denoisers that rules are tested on."""

import jax
import jax.numpy as jnp

from lgd import sampling, schedules
from lgd.denoisers import Directions, from_function

FLOW = schedules.rectified_flow()
TIMES = schedules.uniform_times(4)
CLASSES = jnp.asarray([0, 1, 1, 0, 1], jnp.int32)
NULL = 2
START = jax.random.normal(jax.random.key(1), (5, 2))
EMBEDDING = jnp.asarray([[1.0, 0.2], [-0.8, 0.9], [0.1, -1.2]])
TRACES = []  # batch sizes, as the network is traced


def network(params, x_t, t, c):
    TRACES.append(len(x_t))
    return jnp.tanh(x_t * t[:, None] + params[c])


def folded(params, x_t, t, c):
    """The network on data of more axes."""
    return network(params, x_t.reshape(len(x_t), 2), t, c).reshape(x_t.shape)


def low_precision(params, x_t, t, c):
    return network(params, x_t, t, c).astype(jnp.bfloat16)


def agreeing(label):
    """A denoiser whose two halves agree: both of its own condition, or of one label."""

    def one(params, x_t, t, c):
        return network(params, x_t, t, c if label is None else jnp.full_like(c, label))

    return from_function(one, schedule=FLOW, kind="x0", null=lambda c: c)


PLAIN = from_function(network, schedule=FLOW, kind="x0", null=NULL)
FOLDED = from_function(folded, schedule=FLOW, kind="x0", null=NULL)
LOW = from_function(low_precision, schedule=FLOW, kind="x0", null=NULL)
DENOISERS = {
    "plain": (PLAIN, EMBEDDING),
    "low": (LOW, EMBEDDING),
    "several": (Directions(PLAIN, {"weaker": PLAIN}), (EMBEDDING, {"weaker": 0.5 * EMBEDDING})),
    "several, low": (Directions(LOW, {"weaker": LOW}), (EMBEDDING, {"weaker": 0.5 * EMBEDDING})),
    "cond": (agreeing(None), EMBEDDING),
    "uncond": (agreeing(NULL), EMBEDDING),
}


def draw(rule, denoiser, *, solver="ddim", skip=False, churn=0.0):
    return sampling.sample(
        jax.random.key(0),
        *DENOISERS[denoiser],
        CLASSES,
        shape=(2,),
        guidance=rule,
        times=TIMES,
        solver=solver,
        skip=skip,
        churn=churn,
        return_trajectory=True,
    )
