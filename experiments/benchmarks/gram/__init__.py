"""Benchmarks of the Gram form."""
