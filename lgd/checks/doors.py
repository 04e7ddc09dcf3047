"""Checks of what `learn_guidance` is called with, before anything is read or compiled."""

import warnings
from collections.abc import Mapping
from typing import Any

from lgd import conditions, omega, starts
from lgd.checks.model import checked
from lgd.checks.report import Report
from lgd.data.dataset import Split
from lgd.diffusion import check_start, checked_denoiser
from lgd.machinery.arguments import having, instance, named, prng_key, wrong
from lgd.machinery.failures import NonFiniteError
from lgd.machinery.progress import phase
from lgd.objectives import Objective
from lgd.objectives.objective import TakesReward
from lgd.training import Trainer
from lgd.types import Denoiser, Params

_OBJECTIVE = ("support", "group_size", "times", "default_model", "prepared", "__call__")
_MODEL = ("init", "apply", "project", "support", "started", "tabulated", "num_directions")
_EXAMPLES = {
    "objective": "an objective, such as lgd.objectives.SelfConsistency()",
    "model": "a model of omega, such as lgd.omega.StepTable(times=...)",
    "start": "guidance, or a dict of omega functions such as {'mine': lgd.guidance.constant(1.0)}",
    "trainer": "lgd.training.Trainer(batch_size=256)",
}


def check_arguments(
    key: Any, denoiser: Any, objective: Any, model: Any, start: Any, trainer: Any
) -> None:
    """Raise ValueError for arguments of `learn_guidance` that are something else.

    Args:
      key: one key.
      denoiser: a denoiser.
      objective: an objective, or None.
      model: a model, or None.
      start: guidance or omega functions by name, or None.
      trainer: a trainer, or None.
    """
    prng_key("key", key)
    checked_denoiser(denoiser)
    if objective is not None:
        having("objective", objective, _OBJECTIVE, _EXAMPLES["objective"])
    if model is not None:
        having("model", model, _MODEL, _EXAMPLES["model"])
    _check_start(start)
    if trainer is not None:
        instance("trainer", trainer, Trainer, _EXAMPLES["trainer"])
    starts.check_start(start, model, denoiser.schedule)


def _check_start(start: Any) -> None:
    if start is None or isinstance(start, omega.Guidance):
        return
    if not isinstance(start, Mapping) or not start:
        raise wrong("start", _EXAMPLES["start"], start)
    for name, function in named("start", start, "omega functions").items():
        if not callable(function) or isinstance(function, type):
            raise wrong(f"start[{name!r}]", "an omega function of (s, t, c)", function)


def check_use(
    denoiser: Denoiser, params: Params, split: Split, objective: Objective, *, probe: bool
) -> None:
    """Raise for what cannot work, and warn of what is only suspicious.

    Args:
      denoiser: the model, which is refused where it is asked at times at which it knows no x0.
      params: its arrays.
      split: the examples.
      objective: what is minimised with them, perhaps with a reward.
      probe: whether to ask the model, see `check`.

    Raises:
      NonFiniteError: where predictions are NaN or inf.
      ValueError: for other errors, and strata without examples.
    """
    if split.stratum is not None:
        conditions.representatives(split.c, split.stratum)  # of every stratum there is one
    check_start(denoiser, (objective.support.t_max,))
    if probe:
        of_reward: tuple = (None, None)
        if isinstance(objective, TakesReward):
            of_reward = objective.reward, objective.reward_weight
        judge(checked(denoiser, params, split, *of_reward))


def look(denoiser: Denoiser, params: Params, split: Split, *, show: bool = True) -> None:
    """Ask a model about a few examples, and raise or warn as `judge` does.

    show: whether to say that this is under way.
    """
    with phase("look at the model", show=show):
        judge(checked(denoiser, params, split, None, None))


def judge(report: Report) -> None:
    """Raise one error of all that cannot work, and warn of each thing that is only suspicious."""
    texts = [str(finding) for finding in report.errors]
    if any(finding.subject.endswith("finite") for finding in report.errors):
        raise NonFiniteError("; ".join(texts))
    if texts:
        raise ValueError("; ".join(texts) + " (check=False leaves this check out)")
    for finding in report.warnings:
        warnings.warn(f"{finding.subject}: {finding.message}", stacklevel=4)
