"""Faults that a run must survive: each is injected into the real launcher, and the end compared.

    python -m experiments.faults [--quick]

`catalogue` lists them, `bench` starts and compares runs, `inject` strikes inside a run.
"""
