"""Studies across runs: levels, transfer, ablations, rankings."""
