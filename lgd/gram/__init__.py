"""Gram statistics: ask the frozen denoiser once, then learn and judge guidance without it.

`collect` writes what a one-step objective needs of the denoiser to disk, a small Gram matrix for
every example; `read` returns it, verified. From it `fit` and `sweep` learn omega with any one-step
objective, `closed_form` solves for tables, and `score` gives the held-out loss of any schedule.
Only this folder knows the format of statistics on disk.
"""

from lgd.gram.closed_form import Solved, closed_form
from lgd.gram.collect import collect
from lgd.gram.fit import Fitted, fit, sweep
from lgd.gram.lanes import Lane
from lgd.gram.layout import Layout, Particles, Statistics, StatisticsError
from lgd.gram.score import ClassDifferences, DifferenceMap, Scores, schedule_behind, score
from lgd.gram.start import started
from lgd.gram.store import is_complete, read
from lgd.machinery.lazy import modules_of

__all__ = [
    "ClassDifferences",
    "DifferenceMap",
    "Fitted",
    "Lane",
    "Layout",
    "Particles",
    "Scores",
    "Solved",
    "Statistics",
    "StatisticsError",
    "closed_form",
    "collect",
    "fit",
    "is_complete",
    "read",
    "schedule_behind",
    "score",
    "started",
    "sweep",
]

__getattr__ = modules_of(__name__)
