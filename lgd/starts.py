"""Where training starts: the best of a few hand-made schedules under the objective itself."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lgd import guidance
from lgd.guidance.weights import check_schedule
from lgd.machinery import failures, parallel, stopping
from lgd.machinery.progress import bar
from lgd.omega import Guidance, LearnedModel
from lgd.training import Loss
from lgd.types import Batch, OmegaFn, Params, PRNGKey, Schedule

START_WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
START_BATCHES = 4  # that the schedules are compared on


def check_start(start: Any, model: LearnedModel | None, schedule: Schedule) -> None:
    """Raise ValueError for a start beside which no model may be, or for another noise schedule.

    Args:
      start: guidance learned before, schedules by name, or None.
      model: what is to be learned, or None.
      schedule: of the denoiser.
    """
    if isinstance(start, Guidance) and model is not None:
        raise ValueError("expected no model beside guidance to start from, got both")
    for weights in start.values() if isinstance(start, Mapping) else [start]:
        check_schedule(weights, schedule, name="start")


def start_schedules() -> dict[str, OmegaFn]:
    """Hand-made schedules that training may start from: constants, intervals, clamp-linear."""
    named: dict[str, OmegaFn] = {f"constant({w:g})": guidance.constant(w) for w in START_WEIGHTS}
    for w, (lo, hi) in itertools.product((0.1, 0.3, 1.0, 3.0), ((0.0, 0.5), (0.2, 0.8))):
        named[f"limited_interval({w:g}, {lo:g}, {hi:g})"] = guidance.limited_interval(w, lo, hi)
    for scale in (0.6, 0.8, 1.0, 1.5, 2.5):
        named[f"clamp_linear({scale:g})"] = guidance.clamp_linear(scale)
    return named


def best_schedule(
    key: PRNGKey,
    loss: Loss,
    denoiser_params: Params,
    batches: Sequence[Batch],
    candidates: Mapping[str, Params],
    *,
    mesh: Mesh,
    progress: bool = True,
) -> str:
    """The name of the candidate of smallest mean loss, all with the same data and draws.

    Args:
      key: source of the draws.
      loss: of the parameters of one model, so that one compiled loss serves all candidates.
      denoiser_params: frozen parameters, on the mesh.
      batches: what the candidates are compared on, on the mesh.
      candidates: parameters of the model that hold a schedule each, by its name.
      mesh: devices.
      progress: show a bar.

    Raises:
      NonFiniteError: where no loss is finite.
      Stopped: when a signal asked for it.
    """
    if len(candidates) == 1:
        return next(iter(candidates))
    loss = jax.jit(loss)
    everywhere = parallel.replicated(mesh)
    keys = [parallel.place(each, everywhere) for each in jax.random.split(key, len(batches))]

    def mean_loss(params: Params) -> float:
        params = parallel.place(params, everywhere)
        pairs = zip(batches, keys, strict=True)
        losses = [loss(params, denoiser_params, batch, each)[0] for batch, each in pairs]
        return float(np.mean([np.asarray(value) for value in losses]))

    means = {}
    with bar("choose the start", len(candidates), show=progress) as advance:
        for name, params in candidates.items():
            means[name] = mean_loss(params)
            advance(name)
            stopping.check(f"start schedule {name}")
    finite = [name for name, mean in means.items() if np.isfinite(mean)]
    if not finite:
        raise failures.NonFiniteError("expected finite losses of the start schedules, got none")
    return min(finite, key=lambda name: means[name])
