"""Faults that a run must survive, injected into the real launcher one at a time.

    python -m experiments.faults [--quick]

`catalogue` lists them, `bench` starts runs and compares their results, `inject` acts in a run.
"""
