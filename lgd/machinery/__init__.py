"""Devices, processes, signals and files; and how the calls of a denoiser are split."""
