"""What carries a run and knows no diffusion: devices, processes, signals, files."""
