"""Experiment settings: `default.py` has every field, the others their differences."""
