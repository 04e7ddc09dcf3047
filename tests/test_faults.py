"""The catalogue of faults in the real launcher: one of a kind slow, all by hour."""

import importlib
import re
from pathlib import Path

import pytest

from experiments import faults
from experiments.faults.bench import Bench
from experiments.faults.catalogue import FAULTS

PLACES = sorted(
    place
    for file in Path(faults.__file__).parent.glob("*.py")
    for place in re.findall(r'"((?:lgd|experiments)[\w.]*:[\w.]+)"', file.read_text())
)


@pytest.mark.parametrize("place", dict.fromkeys(PLACES))
def test_every_place_of_a_fault_is_a_function(place):
    module, _, path = place.partition(":")
    function = importlib.import_module(module)
    for name in path.split("."):
        function = getattr(function, name)
    assert hasattr(function, "__code__") or hasattr(function, "__wrapped__")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


def marks(fault):
    """One fault of every kind is run by CI."""
    return pytest.mark.slow if fault.quick else pytest.mark.hour


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=fault.name, marks=marks(fault)) for fault in FAULTS]
)
def test_nothing_is_lost(fault, bench):
    problems = list(fault.inject(bench))
    assert problems
    assert not list(filter(None, problems))
