"""Benchmarks of devices: speed, memory, scaling."""
