"""Learned guidance weights omega(s, t, c): the paper's network, and tables.

Every model is a frozen dataclass of settings with pure functions, ``init(key, c) -> params``,
``apply(params, *, s, t, c) -> (b,)`` and ``project(params)``, that answers for itself how to begin
and how to train it (`LearnedModel`). Its weights lie in [omega_min, omega_max], where omega_min is
0 by default: the objectives of self-consistency are surrogates that are biased low, and their
unconstrained optimum is negative at small s even for an exact denoiser. Queries outside the
`Support` of a model are clamped into it.
"""

from lgd.omega.learned import Guidance, Learned, bind
from lgd.omega.model import LearnedModel
from lgd.omega.network import Network, Output, default_network, projected_clip
from lgd.omega.rows import ByLabel, Nearest, One, Rows, rows_for
from lgd.omega.several import PerDirection, repeated
from lgd.omega.steps import CONVENTION
from lgd.omega.support import Support, grid_support
from lgd.omega.tables import BinTable, StepTable

__all__ = [
    "CONVENTION",
    "BinTable",
    "ByLabel",
    "Guidance",
    "Learned",
    "LearnedModel",
    "Nearest",
    "Network",
    "One",
    "Output",
    "PerDirection",
    "Rows",
    "StepTable",
    "Support",
    "bind",
    "default_network",
    "grid_support",
    "projected_clip",
    "repeated",
    "rows_for",
]
