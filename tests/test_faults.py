"""The catalogue of faults, injected into the real launcher: one of a kind; with -m slow, all."""

import pytest

from experiments.faults.bench import Bench
from experiments.faults.catalogue import FAULTS


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[] if fault.quick else pytest.mark.slow)
        for fault in FAULTS
    ],
)
def test_nothing_is_lost(fault, bench):
    problems = list(fault.inject(bench))
    assert problems
    assert not list(filter(None, problems))
