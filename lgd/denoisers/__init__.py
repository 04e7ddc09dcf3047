"""The frozen models: an exact mixture, networks trained here, and adapters to one's own."""

from lgd.denoisers.adapters import FunctionDenoiser, from_function
from lgd.denoisers.mixture import GaussianMixture, MixtureParams
from lgd.denoisers.mlp import ResidualMLP
from lgd.denoisers.network import DenoisingLoss, NetworkDenoiser

__all__ = [
    "DenoisingLoss",
    "FunctionDenoiser",
    "GaussianMixture",
    "MixtureParams",
    "NetworkDenoiser",
    "ResidualMLP",
    "from_function",
]
