"""A guider of diffusers' modular pipelines that follows learned guidance.

It is saved and loaded by diffusers itself, with the weights in its config; the process that loads
it imports this module.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import ClassifierFreeGuidance
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import GuiderOutput, rescale_noise_cfg

from lgd.exchange.diffusers.export import Scale, cfg_scales
from lgd.exchange.diffusers.schedulers import asked
from lgd.types import Condition, OmegaFn

_Base: Any = ClassifierFreeGuidance  # whose own attributes are private


class LearnedGuidance(_Base):
    """Classifier-free guidance with a scale for every timestep, and for every sample if wanted.

    Args:
      timesteps: decreasing timesteps (k,), as the scheduler has them.
      scales: the scale of each, (k,) numbers or lists (b,); between timesteps it is interpolated.
      guidance_rescale: see ``diffusers.ClassifierFreeGuidance``.
      start: share of the steps after which guidance starts.
      stop: share of the steps after which it stops.
      enabled: whether there is guidance at all.
    """

    @register_to_config
    def __init__(
        self,
        timesteps: Sequence[float] = (1000.0, 0.0),
        scales: Sequence[Any] = (7.5, 7.5),
        guidance_rescale: float = 0.0,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ) -> None:
        rows = np.asarray(scales, np.float32)
        rows = rows[:, None] if rows.ndim == 1 else rows
        if len(timesteps) != len(rows) or rows.ndim != 2 or np.any(np.diff(timesteps) >= 0.0):
            raise ValueError(
                f"expected decreasing timesteps and as many scales, got {len(timesteps)} and "
                f"scales of shape {rows.shape}"
            )
        super().__init__(float(rows.max()), guidance_rescale, False, start, stop, enabled)
        self._knots, self._rows = np.asarray(timesteps, np.float64)[::-1], rows[::-1]

    @classmethod
    def of(
        cls, omega_fn: OmegaFn, scheduler: Any, num_steps: int, c: Condition, **options: Any
    ) -> "LearnedGuidance":
        """The guider that follows learned guidance on the timesteps of a scheduler.

        Args:
          omega_fn: learned guidance, see `export.cfg_scales`.
          scheduler: of the pipeline.
          num_steps: ``num_inference_steps`` of the pipeline.
          c: the condition of every image, leaves (b, ...), or (1, ...) for one of all.
          options: further arguments of ``scheduler.set_timesteps``.
        """
        timesteps = np.array(asked(scheduler, num_steps, **options).timesteps.tolist(), np.float64)
        scales = cfg_scales(omega_fn, scheduler, num_steps, c, **options)
        _, first = np.unique(-timesteps, return_index=True)  # solvers may list some twice
        return cls(timesteps[first].tolist(), scales[first].tolist())

    def forward(
        self, pred_cond: torch.Tensor, pred_uncond: torch.Tensor | None = None
    ) -> GuiderOutput:
        """The guided prediction."""
        pred = pred_cond
        if pred_uncond is not None:
            pred = pred_uncond + Scale(self._scales()) * (pred_cond - pred_uncond)
        if self.guidance_rescale > 0.0:
            pred = rescale_noise_cfg(pred, pred_cond, self.guidance_rescale)
        return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)

    def _scales(self) -> np.ndarray:
        """The scales at the current timestep, (1,) or (b,)."""
        at = float(self._timestep)
        each = [np.interp(at, self._knots, column) for column in self._rows.T]
        return np.asarray(each, np.float32)

    def _is_cfg_enabled(self) -> bool:
        """A scale of 1 does not switch it off, since the number of predictions must stay."""
        return self._enabled and (
            self._num_inference_steps is None
            or int(self._start * self._num_inference_steps)
            <= self._step
            < int(self._stop * self._num_inference_steps)
        )
