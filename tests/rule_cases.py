"""Rules of every kind as rows of one table."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lgd import encoders, guidance, omega
from lgd.diffusion import denoise_pair, expand
from lgd.types import Prediction
from tests import rule_answers as answers
from tests.rule_toys import CLASSES, FLOW, TIMES


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
    knows_shape: bool = False  # whether it was made for data (b, 2)
    rows: int = 2  # of the network, for each sample and call
    known_answer: Callable[[], None] = lambda: None  # asserts what the paper says of the rule


def by_time(w):
    return lambda *, s, t, c: jnp.where(t > 0.4, w * (1.0 + 0.5 * c.astype(t.dtype)), 0.0)


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
    "apg": Row(make=lambda w: guidance.Apg(w, radius=0.5), known_answer=answers.of_apg),
    "cfg++": Row(
        make=guidance.CfgPlusPlus,
        neutral="uncond",
        exact=False,
        refused_by=("heun", "heun_edm", "dpmpp_2m"),
        known_answer=answers.of_cfg_plus_plus,
    ),
    "cfg++, weight": Row(
        make=lambda lam: guidance.cfg_plus_plus(lam, schedule=FLOW), neutral="uncond"
    ),
    "fitted": Row(
        make=lambda w: guidance.fitted_cfg(w, schedule=FLOW), known_answer=answers.of_fitted
    ),
    "beta": Row(
        make=lambda w: guidance.BetaCfg(guidance.beta_density(w), power=0.5),
        neutral="uncond",
        exact=False,
        known_answer=answers.of_beta,
    ),
    "cfg-zero": Row(
        make=lambda w: guidance.CfgZero(w, zero_steps=0), known_answer=answers.of_cfg_zero
    ),
    "tcfg": Row(make=lambda w: guidance.Tcfg(w, kind="velocity"), known_answer=answers.of_tcfg),
    "rescaled": Row(
        make=lambda w: guidance.Rescaled(w, kind="v"), known_answer=answers.of_rescaled
    ),
    "mog": Row(
        make=lambda w: guidance.Mog(w - 1.0, kind="velocity"),
        neutral="uncond",
        exact=False,
        known_answer=answers.of_mog,
    ),
    "auto mog": Row(
        make=lambda w: guidance.AutoMog(w - 1.0, low=0.0, high=5.0),
        neutral="uncond",
        exact=False,
        known_answer=answers.of_auto_mog,
    ),
    "recfg": Row(
        make=lambda w: guidance.ReCfg(w, answers.SLOPES, TIMES),
        knows_shape=True,
        known_answer=answers.of_recfg,
    ),
    "rectified cfg++": Row(
        make=guidance.RectifiedCfgPlusPlus, rows=3, known_answer=answers.of_rectified_cfg
    ),
    "raag": Row(make=lambda w: guidance.Raag(w, rate=0.5), known_answer=answers.of_raag),
    "power law": Row(make=guidance.PowerLaw, known_answer=answers.of_power_law),
    "evidence": Row(
        make=lambda w: guidance.EvidenceScale(w, posterior=answers.some_posterior),
        known_answer=answers.of_evidence,
        knows_shape=True,
    ),
    "adaptive": Row(
        make=lambda w: guidance.AdaptiveCfg(w, threshold=0.5), known_answer=answers.of_adaptive
    ),
    "gfcg": Row(
        make=lambda w: guidance.GfcgStyle(w, answers.some_logits),
        knows_shape=True,
        known_answer=answers.of_gfcg,
    ),
    "feedback": Row(
        make=lambda w: guidance.FeedbackGuidance(pi=1.0 - 0.5 * w),
        known_answer=answers.of_feedback,
    ),
    "feedback, hybrid": Row(
        make=lambda w: guidance.FeedbackGuidance(w, pi=1.0 - 0.2 * w, offset=-0.1),
        known_answer=answers.of_feedback_constants,
    ),
    "smc-cfg": Row(
        make=lambda w: guidance.SmcCfg(w, gain=0.05 * w, kind="velocity"),
        known_answer=answers.of_smc_cfg,
    ),
}
