"""Learned guidance weights omega(s, t, c): the paper's network, and tables.

Every model is a frozen dataclass of settings with pure functions: ``init(key) -> params``,
``apply(params, *, s, t, c) -> (b,)`` and ``project(params)``, and lies in [0, omega_max]: the
one-step objectives are surrogates that are biased low, and their unconstrained optimum is negative
at small s even for an exact denoiser. Queries outside the `Support` a model was trained on are
moved into it.
"""

from lgd.omega.network import Conditioning, Network, Output, projected_clip
from lgd.omega.several import Guidance, LearnedModel, PerDirection, bind
from lgd.omega.support import Support, grid_support
from lgd.omega.tables import BinTable, StepTable

__all__ = [
    "BinTable",
    "Conditioning",
    "Guidance",
    "LearnedModel",
    "Network",
    "Output",
    "PerDirection",
    "StepTable",
    "Support",
    "bind",
    "grid_support",
    "projected_clip",
]
