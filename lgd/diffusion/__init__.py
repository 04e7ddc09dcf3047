"""The forward process and its reversal: noising, kinds of prediction, the bridge kernel, pairs."""

from lgd.diffusion.kernel import (
    BridgeCoefficients,
    add_noise,
    bridge_coefficients,
    bridge_mean,
    bridge_step,
    noised,
)
from lgd.diffusion.kinds import KINDS, Kind, expand, from_x0, to_x0
from lgd.diffusion.models import check_start, checked_denoiser, checked_schedule, latest_time
from lgd.diffusion.pairs import denoise_pair, direction_names, predictions, weaker_predictions
from lgd.types import t_max

__all__ = [
    "KINDS",
    "BridgeCoefficients",
    "Kind",
    "add_noise",
    "bridge_coefficients",
    "bridge_mean",
    "bridge_step",
    "check_start",
    "checked_denoiser",
    "checked_schedule",
    "denoise_pair",
    "direction_names",
    "expand",
    "from_x0",
    "latest_time",
    "noised",
    "predictions",
    "t_max",
    "to_x0",
    "weaker_predictions",
]
