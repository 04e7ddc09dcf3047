"""Guidance: score mixing, schedules written by hand, and rules.

A schedule is a function ``omega(*, s, t, c) -> (b,)`` of the times that a step goes to and from,
each (b,), and of the condition; a rule makes a guided prediction of it, or of more. omega = 0 is
plain conditional sampling, omega = -1 unconditional sampling; tools that speak of a "CFG scale"
mean ``cfg_scale = 1 + omega``.

Rules of papers, each with its source and neutral value in its docstring::

    weights of (s, t)    constant, intervals, ramps (`hand_made`); cfg_plus_plus, fitted_cfg,
                         exponential (C2FG), stagewise_triangle, beta_density
    of the predictions   Raag, BetaCfg, PowerLaw, EvidenceScale, AdaptiveCfg, GfcgStyle
    of the path          FeedbackGuidance
    other directions     CfgPlusPlus, CfgZero, Tcfg, Rescaled, RectifiedCfgPlusPlus, ReCfg, Mog,
                         AutoMog, Apg, SmcCfg
    round another rule   Clipped, DynamicThreshold

A rule that divides or projects predictions does so in the space of one kind, ``kind=``: x0, eps, v,
velocity or score. `as_rule` says what else samplers take.
"""

from typing import Any

from lgd.guidance.adaptive import AdaptiveCfg
from lgd.guidance.apg import Apg
from lgd.guidance.beta import BetaCfg, beta_density
from lgd.guidance.c2fg import exponential
from lgd.guidance.cfg_zero import CfgZero
from lgd.guidance.clipping import Clipped, DynamicThreshold
from lgd.guidance.evidence import EvidenceScale
from lgd.guidance.families import FAMILIES, Family, Field
from lgd.guidance.feedback import FeedbackGuidance
from lgd.guidance.fitted import fitted_cfg
from lgd.guidance.gfcg import GfcgStyle
from lgd.guidance.hand_made import (
    HandMade,
    clamp_cosine,
    clamp_linear,
    constant,
    constant_directions,
    cosine,
    limited_interval,
    limited_interval_per_class,
    linear,
    logsnr_interval,
    power_cosine,
)
from lgd.guidance.mixing import PAIR_FEATURES, mix, on_grid, pair_features, takes_features
from lgd.guidance.mog import AutoMog, Mog
from lgd.guidance.of_pair import Combined, InSpace, OfPair, Weighted
from lgd.guidance.plus_plus import CfgPlusPlus, cfg_plus_plus
from lgd.guidance.power_law import PowerLaw
from lgd.guidance.raag import Raag
from lgd.guidance.recfg import ReCfg, recfg_slopes
from lgd.guidance.rectified_cfg import RectifiedCfgPlusPlus
from lgd.guidance.rescaled import Rescaled
from lgd.guidance.rules import Cfg, as_rule, mixed, rule
from lgd.guidance.smc_cfg import SmcCfg
from lgd.guidance.stagewise import stagewise_triangle
from lgd.guidance.tcfg import Tcfg

__all__ = [
    "FAMILIES",
    "PAIR_FEATURES",
    "AdaptiveCfg",
    "Apg",
    "AutoMog",
    "BetaCfg",
    "Cfg",
    "CfgPlusPlus",
    "CfgZero",
    "Clipped",
    "Combined",
    "DynamicThreshold",
    "EvidenceScale",
    "Family",
    "FeedbackGuidance",
    "Field",
    "GfcgStyle",
    "HandMade",
    "InSpace",
    "Mog",
    "OfPair",
    "PowerLaw",
    "Raag",
    "ReCfg",
    "RectifiedCfgPlusPlus",
    "Rescaled",
    "SmcCfg",
    "Tcfg",
    "Weighted",
    "as_rule",
    "beta_density",
    "cfg_plus_plus",
    "clamp_cosine",
    "clamp_linear",
    "constant",
    "constant_directions",
    "cosine",
    "exponential",
    "fitted_cfg",
    "limited_interval",
    "limited_interval_per_class",
    "linear",
    "logsnr_interval",
    "mix",
    "mixed",
    "on_grid",
    "pair_features",
    "power_cosine",
    "recfg_slopes",
    "rule",
    "stagewise_triangle",
    "takes_features",
]


def __getattr__(name: str) -> Any:
    """The maker of any hand-made family, by its name in `FAMILIES`."""
    if name in FAMILIES:
        return FAMILIES[name].make
    raise AttributeError(f"module 'lgd.guidance' has no attribute {name!r}")
