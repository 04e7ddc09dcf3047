"""The stages of a run, in order: denoiser, guidance, evaluate, report."""
