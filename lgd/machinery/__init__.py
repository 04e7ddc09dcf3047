"""Devices, processes, signals and files; and how the calls of a denoiser are split."""

from lgd.machinery.lazy import modules_of

__getattr__ = modules_of(__name__)
