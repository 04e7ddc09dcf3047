"""Rules of every kind as rows of one table, with the small denoisers that they guide."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgd import encoders, guidance, omega, sampling, schedules
from lgd.denoisers import Directions, from_function
from lgd.diffusion import denoise_pair, expand, from_x0
from lgd.types import Prediction

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


def agreeing(label):
    """A denoiser whose two halves agree: both of its own condition, or of one label."""

    def one(params, x_t, t, c):
        return network(params, x_t, t, c if label is None else jnp.full_like(c, label))

    return from_function(one, schedule=FLOW, kind="x0", null=lambda c: c)


PLAIN = from_function(network, schedule=FLOW, kind="x0", null=NULL)
DENOISERS = {
    "plain": (PLAIN, EMBEDDING),
    "several": (Directions(PLAIN, {"weaker": PLAIN}), (EMBEDDING, {"weaker": 0.5 * EMBEDDING})),
    "cond": (agreeing(None), EMBEDDING),
    "uncond": (agreeing(NULL), EMBEDDING),
}


# Rules of papers, written here to show that the contracts suffice


@guidance.rule
class Momentum:
    """``cond + omega m`` with ``m = (cond - uncond) + beta m_last``: the momentum of APG.

    Sadat et al. (2024), arXiv 2410.02416. omega: as in `guidance.Cfg`, of one direction.
    """

    omega: Any
    beta: Any

    def calls(self, num_directions):
        return 2

    def prepare(self, denoiser, times, c):
        _, omegas = guidance.Cfg(self.omega).prepare(denoiser, times, c)
        return Momentum(None, self.beta), omegas

    def init(self, x, c):
        return jnp.zeros_like(x)

    def apply(self, denoiser, params, state, x_t, *, step, t, c):
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
        state = cond - uncond + self.beta * state
        return Prediction(cond + expand(step.inputs, x_t) * state), state


@guidance.rule
class CfgPlusPlus:
    """``x0 = uncond + lam (cond - uncond)``, renoised by the eps of uncond; 0: unconditional.

    Chung et al. (2024), arXiv 2406.08070.
    """

    lam: Any

    def calls(self, num_directions):
        return 2

    def prepare(self, denoiser, times, c):
        return self, None

    def init(self, x, c):
        pass

    def apply(self, denoiser, params, state, x_t, *, step, t, c):
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
        eps = from_x0(uncond, x_t, t=t, schedule=denoiser.schedule, kind="eps")
        return Prediction(uncond + self.lam * (cond - uncond), eps), None


def apg_answers():
    """Orthogonal to cond at eta 0; momentum of a constant Delta goes to 1 / (1 - beta); CFG."""
    denoiser, params = DENOISERS["plain"]
    t = jnp.full(5, 0.5)
    cond, uncond = denoise_pair(denoiser, params, START, t=t, c=CLASSES)

    def guided(rule, state):
        step = sampling.steps(jax.random.key(0), TIMES, None, jnp.full((4, 5), 2.0))
        step = jax.tree.map(lambda leaf: leaf[1], step)
        return rule.apply(denoiser, params, state, START, step=step, t=t, c=CLASSES)

    moved = guided(guidance.Apg(None), jnp.zeros_like(START))[0].x0 - cond
    np.testing.assert_allclose(jnp.sum(moved * cond, axis=1), 0.0, atol=1e-6)
    state = jnp.zeros_like(START)
    for share in (1.0, 0.5, 0.75, 0.625):
        _, state = guided(guidance.Apg(None), state)
        np.testing.assert_allclose(state, share * (cond - uncond), rtol=1e-5)
    plain = guided(guidance.Apg(None, eta=1.0, momentum=0.0), jnp.zeros_like(START))[0].x0
    np.testing.assert_allclose(plain, guidance.mix(cond, uncond, 2.0), rtol=1e-5)
    short = guided(guidance.Apg(None, eta=1.0, momentum=0.0, radius=1e-3), state)[0].x0 - cond
    np.testing.assert_allclose(jnp.linalg.norm(short, axis=1), 2e-3, rtol=1e-3)


# The matrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A rule of any strength, of one structure; what it is at strength 0 and where it fails."""

    make: Callable[[float], Any]
    denoiser: str = "plain"
    skip: bool = False
    neutral: str = "cond"  # the denoiser of `DENOISERS` that strength 0 samples
    around: Callable[[Any], Any] = lambda rule: rule  # what the rule does beside guiding
    exact: bool = True  # whether strength 0 is it to the bit
    refused_by: tuple[str, ...] = ()
    rows: int = 2  # of the network, for each sample and call
    known_answer: Callable[[], None] = lambda: None  # asserts what the paper says of the rule


def by_time(w):
    return lambda *, s, t, c: jnp.where(t > 0.4, w * (1.0 + 0.5 * c), 0.0)


NETWORK = omega.Network(
    schedule=FLOW, encoder=encoders.for_condition(CLASSES), width=8, depth=1, num_features=4
)


@functools.cache
def learned(w):
    """A network of the times, the condition and the features, of size w."""
    params = NETWORK.init(jax.random.key(0), CLASSES)
    last = max(params["params"], key=lambda name: (name.startswith("Dense"), name))
    random = 0.2 * jax.random.normal(jax.random.key(1), (NETWORK.width, 1))
    head = {"kernel": w * random, "bias": jnp.full(1, w)}
    return omega.bind(NETWORK, {"params": params["params"] | {last: head}})


def of_features(w):
    return lambda *, s, t, c, features: w * (1.0 + features[:, 3])


clipped = functools.partial(guidance.Clipped, low=-0.8, high=0.9)
thresholded = functools.partial(guidance.DynamicThreshold, high=0.8, quantile=0.9)

RULES = {
    "number": Row(make=guidance.Cfg),
    "weights": Row(make=lambda w: guidance.Cfg(jnp.full((4, 5), w))),
    "omega function": Row(make=by_time),
    "hand-made": Row(make=lambda w: guidance.limited_interval(w, 0.2, 0.8)),
    "learned, of features": Row(make=learned),
    "directions": Row(
        make=lambda w: guidance.constant_directions(w, 2.0 * w), denoiser="several", rows=3
    ),
    "clipped": Row(make=lambda w: clipped(by_time(w)), around=clipped),
    "thresholded": Row(make=lambda w: thresholded(by_time(w)), around=thresholded),
    "clipped, of features": Row(make=lambda w: clipped(learned(0.2 * w)), around=clipped),
    "skipping": Row(make=by_time, skip=True, exact=False),
    "skipping, clipped": Row(
        make=lambda w: clipped(by_time(w)), skip=True, around=clipped, exact=False
    ),
    "momentum": Row(make=lambda w: Momentum(w, -0.5)),
    "momentum, clipped": Row(make=lambda w: clipped(Momentum(w, -0.5)), around=clipped),
    "apg": Row(make=lambda w: guidance.Apg(w, radius=0.5), known_answer=apg_answers),
    "cfg++": Row(
        make=CfgPlusPlus, neutral="uncond", exact=False, refused_by=("heun", "heun_edm", "dpmpp_2m")
    ),
}


def draw(rule, denoiser, *, solver="ddim", skip=False):
    return sampling.sample(
        jax.random.key(0),
        *DENOISERS[denoiser],
        CLASSES,
        shape=(2,),
        guidance=rule,
        times=TIMES,
        solver=solver,
        skip=skip,
        return_trajectory=True,
    )
