"""Settings of experiments: all fields in `default.py`, and differences in the others."""
