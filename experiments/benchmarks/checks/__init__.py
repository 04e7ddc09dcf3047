"""Benchmarks that check a claim side by side."""
