"""Guided sampling on a grid of times: solvers, and the walk that they take."""

from lgd.sampling.draw import Samples, count_nfe, count_skipping_nfe, sample
from lgd.sampling.solvers import SOLVERS, Ddim, DpmSolver2M, Heun, solver_of
from lgd.sampling.walk import State, Walk, steps, unroll

__all__ = [
    "SOLVERS",
    "Ddim",
    "DpmSolver2M",
    "Heun",
    "Samples",
    "State",
    "Walk",
    "count_nfe",
    "count_skipping_nfe",
    "sample",
    "solver_of",
    "steps",
    "unroll",
]
