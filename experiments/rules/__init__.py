"""Rules for configs: of single fields, then across fields."""

from experiments.rules import data, denoiser, evaluation, guidance, reward
from experiments.rules.across import Across
from experiments.rules.fields import FIELDS

ACROSS: tuple[Across, ...] = (
    *guidance.ACROSS,
    *reward.ACROSS,
    *denoiser.ACROSS,
    *data.ACROSS,
    *evaluation.ACROSS,
)

__all__ = ["ACROSS", "FIELDS", "Across"]
