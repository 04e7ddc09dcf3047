"""Devices, processes, signals and files; this room knows nothing of diffusion."""
