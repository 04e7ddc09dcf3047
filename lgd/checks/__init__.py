"""Checks of a model and data that a user brings."""
