"""Denoisers: an exact mixture, networks to be trained, and adapters for other models."""

from lgd.denoisers.adapters import FunctionDenoiser, PairDenoiser, from_function
from lgd.denoisers.denoising import DenoisingLoss
from lgd.denoisers.directions import Directions
from lgd.denoisers.dit import DiT
from lgd.denoisers.mixture import GaussianMixture, MixtureParams
from lgd.denoisers.mlp import ResidualMLP
from lgd.denoisers.network import NetworkDenoiser
from lgd.denoisers.planted import Planted
from lgd.denoisers.unet import UNet
from lgd.machinery.lazy import modules_of

__all__ = [
    "DenoisingLoss",
    "DiT",
    "Directions",
    "FunctionDenoiser",
    "GaussianMixture",
    "MixtureParams",
    "NetworkDenoiser",
    "PairDenoiser",
    "Planted",
    "ResidualMLP",
    "UNet",
    "from_function",
]

__getattr__ = modules_of(__name__)
